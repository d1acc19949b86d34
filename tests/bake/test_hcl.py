"""HCL: expressions, functions, variables and their environment, matrices, references; and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobysession import limits
from mobysession.bake.read import read_definition
from mobysession.errors import BakeError

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.bake.definition import Definition


def read(folder: Path, text: str, **variables: str) -> Definition:
    """Return the definition that a file of HCL is."""
    (folder / "bake.hcl").write_text(text)
    return read_definition(["bake.hcl"], variables=variables)


def value(folder: Path, expression: str, more: str = "", **variables: str) -> str:
    """Return an expression's value, as a build argument has it."""
    definition = read(folder, f'{more}\ntarget "default" {{\n  args = {{ X = {expression} }}\n}}\n', **variables)
    text: str = definition.select().targets["default"]["args"]["X"]
    return text


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3 - 4 / 2", "7"),
        ("7 / 2", "3.5"),
        ("-7 % 3", "-1"),
        ("0.1", "0.1"),
        ("1e3", "1000"),
        ("!(1 < 2) || 2 >= 2 && true", "true"),
        ('"a" == "a"', "true"),
        ('1 == "1"', "false"),
        ("true ? 1 : 2", "1"),
        ('"a${1 + 1}b${"c${"d"}"}"', "a2bcd"),
        (r'"\t\"\\\u00e9"', '\t"\\é'),
        ('"$${x} %%{y} $z"', "${x} %{y} $z"),
        ('["a", "b"][1]', "b"),
        ("{ a = { b = 3 } }.a.b", "3"),
        ('join(",", [for x in ["a", "b", "c"] : upper(x) if x != "b"])', "A,C"),
        ('join(",", [for k, v in { b = 1, a = 2 } : "${k}${v}"])', "a2,b1"),
        ('jsonencode({ for x in ["aa", "ab", "b"] : substr(x, 0, 1) => x... })', '{"a":["aa","ab"],"b":["b"]}'),
        ('join("-", [{ n = "a" }, { n = "b" }][*].n)', "a-b"),
        ("max([1, 5, 3]...)", "5"),
        ("<<EOT\nline ${1 + 1}\n  two\nEOT\n", "line 2\n  two\n"),
        ("<<-EOT\n    line\n      two\n    EOT\n", "line\n  two\n"),
        ('try([][0], "other")', "other"),
        ("can([][0])", "false"),
        ('format("%s-%03d-%v-%q-%.1f%%", "a", 7, true, "q", 1.25)', 'a-007-true-"q"-1.2%'),
        ('regex_replace("a1b22", "([0-9]+)", "<$1>")', "a<1>b<22>"),
        ('join(",", regex("(\\\\d+)-(\\\\d+)", "x 12-34"))', "12,34"),
        ('lookup({ a = "1" }, "b", "none")', "none"),
        ('coalesce(null, "z")', "z"),
        ('jsonencode(regexall("(?<k>[a-z])=", "a=1 b=2"))', '[{"k":"a"},{"k":"b"}]'),
        ('sha256("x")', "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ('base64decode(base64encode("é"))', "é"),
        ('formatdate("EEEE D MMM YY, h:mm aa", "2024-01-02T15:04:05Z")', "Tuesday 2 Jan 24, 15:04 pm"),
        ('timeadd("2024-01-02T03:04:05Z", "-1h5s")', "2024-01-02T02:04:00Z"),
        ('join("", setunion(["b"], ["a", "b"]))', "ab"),
        ('join(",", flatten([["a"], ["b", ["c"]]]))', "a,b,c"),
        ("jsonencode(merge({ a = 1 }, { b = null }))", '{"a":1,"b":null}'),
        ('join(",", split("/", "a/b"))', "a,b"),
        ('join(",", split("", "aéb"))', "a,é,b"),
        ('"${length(split("", ""))}${length(split(",", ""))}"', "01"),
        ('upper("straße ᾳ ŉ a1")', "STRAßE ᾼ ŉ A1"),
        ('lower("ΟΔΟΣ İ A")', "οδοσ i a"),
        ('title("ßa ǆx éa a-b a_b a\'b 1a A")', "ßa ǅx Éa A-B A_b A'B 1a A"),
        ("and(true, not(or(false, notequal(1, 1))))", "true"),
        ('length(range(3)) + strlen(trimspace(title(lower(" A b "))))', "6"),
    ],
)
def test_an_expression(folder: Path, expression: str, expected: str) -> None:
    """Each has the value that HCL gives it."""
    assert value(folder, expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nope", "there is no variable 'nope'"),
        ("nope()", "there is no function 'nope'"),
        ('"%{ if true }a%{ endif }"', "directives are not supported"),
        ("<<EOT\n%{ if true }a%{ endif }\nEOT\n", "directives are not supported"),
        ("1 / 0", "1 / 0 has no result"),
        ('"a" + 1', "\\+ needs a number, not 'a'"),
        ("upper()", "upper\\(\\) cannot be called"),
        ("[1][1]", "there is no element 1 in a list of 1"),
        ("{ a = 1 }.b", "there is no 'b' in the table"),
        ('"${[]}"', "X needs a text|args.X needs a text"),
        ("range(100000)", "more than 1024 numbers"),
        ('regex("(", "x")', "is no regular expression"),
        ('timeadd("2024-01-02T03:04:05Z", "soon")', "'soon' is no duration"),
        ('timeadd("yesterday", "1h")', "'yesterday' is no time"),
        ("target", "target is no value by itself"),
        ("target.other.args", "there is no target 'other'"),
        ("target.default.args", "depends on itself"),
        ("f(1, 2)", "it takes 1 values, not 2"),
        ("g(1)", "nested too deeply, or a function calls itself"),
        ("V", "the variable 'V' depends on itself"),
    ],
)
def test_an_expression_without_a_value_is_refused(folder: Path, expression: str, message: str) -> None:
    """The message has the file, the line and the reason."""
    more = 'function "f" {\n  params = [x]\n  result = x\n}\nfunction "g" {\n  params = [x]\n  result = g(x)\n}\n'
    if expression == "V":
        more += 'variable "V" {\n  default = W\n}\nW = V\n'
    with pytest.raises(BakeError, match=message) as caught:
        value(folder, expression, more)
    assert caught.value.file == "bake.hcl"
    assert caught.value.line > 0


def test_a_regular_expression_has_its_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would search for years is given up, wherever it stands."""
    monkeypatch.setattr(limits, "BAKE_REGEX_TIME", 0.01)
    endless = f'"^(a|aa)+$", "{"a" * 60}b"'
    for call in (f"regex({endless})", f"regexall({endless})", f'regex_replace("{"a" * 60}b", "^(a|aa)+$", "")'):
        with pytest.raises(BakeError, match="takes too long"):
            value(folder, f"jsonencode({call})")


def test_what_is_no_hcl_is_refused_with_its_line(folder: Path) -> None:
    """The line is shown too."""
    with pytest.raises(BakeError, match=r"bake.hcl:2: this is no HCL: 'tags = \]'"):
        read(folder, 'target "a" {\n  tags = ]\n}\n')


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ('default = "x"', {"V": "y"}, "y"),
        ("default = 3", {"V": "7"}, "8"),
        ("default = true", {"V": "0"}, "false"),
        ("type = string", {"V": "7"}, "7"),
        ("type = number", {"V": "7"}, "8"),
        ("type = list(string)\n  default = []", {"V": 'a,"b,c"'}, "a|b,c"),
        ("type = list(string)", {"V": "a", "V_JSON": '["j"]'}, "j"),
        ("type = map(string)", {"V": "k:v"}, "v"),
        ("", {}, ""),
    ],
)
def test_the_environment_overrides_a_variable(
    folder: Path, declared: str, given: dict[str, str], expected: str
) -> None:
    """By its type, or by that of its default."""
    shown = 'can(V[0]) ? join("|", V) : can(V.k) ? V.k : can(V + 1) && can(pow(V, 1)) && V != "7" ? V + 1 : V'
    assert value(folder, shown, f'variable "V" {{\n  {declared}\n}}', **given) == expected


def test_a_plain_attribute_is_no_variable_of_the_environment(folder: Path) -> None:
    """It can be named, and only the file says what it is."""
    assert value(folder, '"${plain}"', 'plain = "file"', plain="environment") == "file"


def test_a_variable_that_is_not_valid_is_refused(folder: Path) -> None:
    """With the message of the file, and its line."""
    text = (
        'variable "V" {\n  default = ""\n  validation {\n    condition = V != ""\n    error_message = "set V"\n  }\n}\n'
    )
    with pytest.raises(BakeError, match=r"bake\.hcl:3: variable 'V': set V"):
        read(folder, text)
    assert read(folder, text, V="x").variables[0].value == "x"


def test_a_matrix_makes_targets(folder: Path) -> None:
    """One for each combination, by its name; the label stands for all of them."""
    text = (
        'target "m" {\n  name = "m-${a}-${b.n}"\n  matrix = {\n    a = ["1", "2"]\n    b = [{ n = "x" }, { n = "y" }]\n'
        '  }\n  args = { A = a, B = b["n"] }\n}\n'
    )
    targets = read(folder, text).select(["m"]).targets
    assert {name: target["args"] for name, target in targets.items()} == {
        f"m-{a}-{b}": {"A": a, "B": b} for a in "12" for b in "xy"
    }


def test_a_matrix_needs_a_name(folder: Path) -> None:
    """As long as there are several; and its bound is that of targets."""
    with pytest.raises(BakeError, match="have the same name"):
        read(folder, 'target "m" {\n  matrix = { a = [1, 2] }\n}\n')
    assert list(read(folder, 'target "m" {\n  matrix = { a = [1] }\n}\n').targets) == ["m"]
    numbers = "range(1000)"
    matrix = f"{{ a = {numbers}, b = {numbers}, c = [1, 2] }}"
    text = f'target "m" {{\n  name = "m-${{a}}-${{b}}-${{c}}"\n  matrix = {matrix}\n}}\n'
    with pytest.raises(BakeError, match=f"more than {limits.MAX_BAKE_TARGETS} targets"):
        read(folder, text)


def test_a_target_is_named_in_expressions(folder: Path) -> None:
    """By its own attributes, of all blocks with its name, in whatever order they stand."""
    text = (
        'target "default" {\n  args = { X = "${target.other.tags[0]}-${target.other.args.A}" }\n}\n'
        'target "other" {\n  tags = ["t:${V}"]\n}\ntarget "other" {\n  args = { A = 1 }\n}\n'
        'variable "V" {\n  default = 2\n}\n'
    )
    assert read(folder, text).select().targets["default"]["args"]["X"] == "t:2-1"


def test_functions_of_the_file(folder: Path) -> None:
    """They may call each other, and take any number of values at the end."""
    more = (
        'function "all" {\n  params = [first]\n  variadic_params = rest\n'
        '  result = join("+", concat([first], rest))\n}\n'
        'function "twice" {\n  params = [x]\n  result = all(x, x)\n}\n'
    )
    assert value(folder, 'all("a", "b", twice("c"))', more) == "a+b+c+c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('other "x" {\n}\n', "there are no 'other' blocks"),
        ("target {\n}\n", "a target has no name"),
        ('target "a" {\n  bogus = 1\n}\n', "a target has no attribute 'bogus'"),
        ('target "a" {\n  args {\n  }\n}\n', "a target has no 'args' blocks"),
        ('group "g" {\n  matrix = {}\n  targets = []\n}\n', "a group has no matrix"),
        ('group "g" {\n}\n', "group 'g' has no list of targets"),
        ('variable "v" {\n  bogus = 1\n}\n', "a variable has no 'bogus'"),
        ('variable "v" {\n  type = thing\n}\n', "the type 'thing' is not supported"),
        (
            'variable "v" {\n  type = object({a=optional(number, 1)})\n}\n',
            r"optional\(\) in .* takes a type, and no default",
        ),
        ('variable "v" {\n  type = object({a=optional(map(any),{})})\n}\n', "takes a type, and no default"),
        ('function "f" {\n  params = []\n}\n', "function 'f' has no result"),
        ('target "a" {\n  tags = []\n  tags = []\n}\n', "'tags' is set twice"),
    ],
)
def test_what_no_file_has_is_refused(folder: Path, text: str, message: str) -> None:
    """By its name, with its place."""
    with pytest.raises(BakeError, match=message) as caught:
        read(folder, text)
    assert caught.value.line > 0


def test_an_attribute_of_an_object_may_be_optional(folder: Path) -> None:
    """A comma in its type begins no default."""
    kind = "object({a=optional(tuple([string, bool])), b=optional(map(number))})"
    assert read(folder, f'variable "v" {{\n  type = {kind}\n}}\n').variables[0].name == "v"
