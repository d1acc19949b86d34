"""Graphs written in Python: what each state becomes on the wire, and what is refused."""

from __future__ import annotations

import hashlib
import inspect
import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession import llb
from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb.sources import normalized_reference

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = llb.image("busybox")


def operations(state: llb.State, **options: Any) -> list[ops_pb2.Op]:
    """Return what is sent for ``state``, without the last, which only names the result."""
    return list(state.definition(**options).operations.values())[:-1]


def last(state: llb.State) -> ops_pb2.Op:
    return operations(state)[-1]


def caps(state: llb.State) -> set[str]:
    """Return what the last operation needs of a BuildKit."""
    definition = state.definition()
    *_, digest, _ = definition.operations
    return set(definition.message.metadata[digest].caps)


def test_an_operation_is_known_by_the_digest_of_its_bytes() -> None:
    """The last one has no body and one input: the result."""
    definition = BASE.run("true").definition()
    encoded = list(getattr(definition.message, "def"))
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in encoded]
    image, command, result = (ops_pb2.Op.FromString(data) for data in encoded)
    assert [each.digest for each in command.inputs] == [digests[0]]
    assert (result.WhichOneof("op"), [each.digest for each in result.inputs]) == (None, [digests[1]])
    assert image.source.identifier == "docker-image://docker.io/library/busybox:latest"


def test_a_state_copies_with_all_that_the_action_takes() -> None:
    """The method has the arguments of `mobysession.llb.copy`, and hands each of them on."""
    action, method = (inspect.signature(copy).parameters for copy in (llb.copy, llb.State.copy))
    assert set(method) - {"self", "name"} == set(action)
    given: dict[str, Any] = {"include": ["a"], "exclude": ["b"], "mode": 0o600, "owner": (1, 2)}
    given["created"] = datetime(1970, 1, 2, tzinfo=UTC)
    given |= dict.fromkeys(("contents", "parents", "wildcard", "empty_ok", "follow", "unpack"), True)
    assert set(given) == set(action) - {"source", "src", "dest"}
    made = BASE.copy(llb.local("src"), "/a", "/b", **given)
    assert last(made) == last(BASE.file(llb.copy(llb.local("src"), "/a", "/b", **given)))


def test_equal_graphs_are_equal_bytes() -> None:
    """However often they are written; an operation that is used twice is sent once."""

    def graph() -> llb.State:
        one, two = BASE.run("one"), llb.image("busybox").run("two")
        return llb.scratch().copy(one, "/a", "/").copy(two, "/b", "/")

    assert graph().definition().to_bytes() == graph().definition().to_bytes()
    assert sum(op.HasField("source") for op in operations(graph())) == 1


def test_a_long_build_is_no_recursion() -> None:
    """Deeper than Python goes."""
    state = BASE
    for number in range(3000):
        state = state.file(llb.mkfile(f"/{number}", ""))
    assert len(operations(state)) == 3001


def test_what_a_command_runs_in_is_inherited() -> None:
    """Variables, directory and user, which the states before do not get."""
    state = BASE.env(A="1", B="2").dir("/w").dir("sub").as_user("u:g")
    meta = last(state.run(["a", "b"], env={"A": "3"}, hostname="h", hosts={"x": "1.2.3.4"})).exec.meta
    assert list(meta.args) == ["a", "b"]
    assert list(meta.env) == ["A=3", "B=2"]
    assert (meta.cwd, meta.user, meta.hostname) == ("/w/sub", "u:g", "h")
    assert [(host.Host, host.IP) for host in meta.extraHosts] == [("x", "1.2.3.4")]
    assert BASE.cwd == "/"
    assert list(last(BASE.run("a b")).exec.meta.args) == ["/bin/sh", "-c", "a b"]


def test_what_a_command_may_is_said() -> None:
    """And what a BuildKit must know for it."""
    run = BASE.run(
        "a",
        network="none",
        security="insecure",
        ulimits={"nofile": (1, 2)},
        exit_codes=[0, 3],
        secret_env={"TOKEN": "token"},
        ignore_cache=True,
        name="the name",
    )
    op = last(run).exec
    assert (op.network, op.security) == (ops_pb2.NONE, ops_pb2.INSECURE)
    assert [(limit.Name, limit.Soft, limit.Hard) for limit in op.meta.ulimit] == [("nofile", 1, 2)]
    assert list(op.meta.validExitCodes) == [0, 3]
    assert [(each.ID, each.name) for each in op.secretenv] == [("token", "TOKEN")]
    assert {
        *("exec.meta.network", "exec.meta.security", "exec.meta.ulimit", "exec.validexitcode", "exec.secretenv"),
        *("meta.ignorecache", "meta.description", "exec.meta.base"),
    } <= caps(run)
    definition = run.definition()
    *_, digest, _ = definition.operations
    assert definition.message.metadata[digest].ignore_cache
    assert definition.message.metadata[digest].description["llb.customname"] == "the name"


def test_mounts_are_sorted_and_count_inputs_and_results() -> None:
    """A file system that is mounted twice is one input; only what can be written leads to a result."""
    other = llb.local("src")
    run = BASE.run(
        "a",
        mounts=[
            llb.bind(other, "/z", path="/sub"),
            llb.bind(other, "/b", readonly=True),
            llb.bind(llb.scratch(), "/out"),
            llb.cache("/c", cache_id="id", sharing="locked"),
            llb.tmpfs("/t", size=7),
            llb.secret("s", mode=0o444, owner=(1, 2), required=True),
            llb.ssh(),
        ],
    )
    op = last(run)
    mounts = {mount.dest: mount for mount in op.exec.mounts}
    assert list(mounts) == sorted(mounts)
    assert len(op.inputs) == 2
    assert {dest: (mount.input, mount.output) for dest, mount in mounts.items()} == {
        "/": (0, 0),
        "/b": (1, -1),
        "/c": (-1, -1),
        "/out": (-1, 1),
        "/run/buildkit/ssh_agent.0": (-1, -1),
        "/run/secrets/s": (-1, -1),
        "/t": (-1, -1),
        "/z": (1, 2),
    }
    assert mounts["/z"].selector == "/sub"
    assert (mounts["/c"].cacheOpt.ID, mounts["/c"].cacheOpt.sharing) == ("id", ops_pb2.LOCKED)
    assert mounts["/t"].TmpfsOpt.size == 7
    secret = mounts["/run/secrets/s"].secretOpt
    assert (secret.ID, secret.mode, secret.uid, secret.gid, secret.optional) == ("s", 0o444, 1, 2, False)
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in op.exec.meta.env
    result = list(run.mount("/out").definition().operations.values())[-1]
    assert result.inputs[0].index == 1
    with pytest.raises(UsageError, match="nothing that could be written was mounted on /b"):
        run.mount("/b")


def test_a_command_that_cannot_write_its_root_leads_to_what_was_there() -> None:
    """The mounts that it wrote are its results."""
    run = BASE.run("a", readonly=True, mounts=[llb.bind(llb.scratch(), "/out")])
    assert run.output == BASE.output
    assert last(run.mount("/out")).exec.mounts[0].readonly


def test_files_are_changed_one_after_the_other() -> None:
    """Each action works on what the one before it made, the last leads to the result; paths are relative."""
    source = llb.local("src").dir("/from")
    state = BASE.dir("/w").file(
        llb.mkdir("d", parents=True, owner="u:5"),
        llb.copy(source, "a", "d/", owner=(1, 2), mode="u=rw", exclude=["x"], created=datetime(1970, 1, 2, tzinfo=UTC)),
        llb.mkfile("/f", "text", mode=0o600),
        llb.symlink("f", "/l"),
        llb.rm("/g*", wildcard=True, missing_ok=True),
    )
    op = last(state)
    made, copied, written, linked, removed = op.file.actions
    assert [(each.input, each.secondaryInput, each.output) for each in op.file.actions] == [
        (0, -1, -1),
        (2, 1, -1),
        (3, -1, -1),
        (4, -1, -1),
        (5, -1, 0),
    ]
    assert (made.mkdir.path, made.mkdir.owner.user.byName.name, made.mkdir.owner.group.byID) == ("/w/d", "u", 5)
    assert (copied.copy.src, copied.copy.dest) == ("/from/a", "/w/d/")
    assert (copied.copy.owner.user.byID, copied.copy.owner.group.byID) == (1, 2)
    assert (copied.copy.mode, copied.copy.modeStr, copied.copy.timestamp) == (0, "u=rw", 86400 * 10**9)
    assert (written.mkfile.data, written.mkfile.mode, written.mkfile.timestamp) == (b"text", 0o600, -1)
    assert (linked.symlink.oldpath, linked.symlink.newpath) == ("f", "/l")
    assert (removed.rm.path, removed.rm.allowNotFound) == ("/g*", True)
    assert {"file.base", "file.rm.wildcard", "file.symlink.create", "file.copy.modestring"} <= caps(state)


def test_an_empty_file_system_has_no_input() -> None:
    """And knows nobody by name."""
    op = last(llb.scratch().file(llb.mkdir("/d")))
    assert (len(op.inputs), op.file.actions[0].input) == (0, -1)
    with pytest.raises(UsageError, match="'u' is not known in an empty file system"):
        llb.scratch().file(llb.mkdir("/d", owner="u"))


def test_states_are_merged_and_compared() -> None:
    """An empty one counts as nothing."""
    changed = BASE.run("a")
    merged = last(llb.merge(BASE, llb.scratch(), llb.diff(BASE, changed)))
    assert [each.input for each in merged.merge.inputs] == [0, 1]
    difference = last(llb.diff(BASE, changed)).diff
    assert (difference.lower.input, difference.upper.input) == (0, 1)
    whole = last(llb.diff(llb.scratch(), changed)).diff
    assert (whole.lower.input, whole.upper.input) == (-1, 0)
    assert llb.diff(llb.scratch(), llb.scratch()) == llb.scratch()
    with pytest.raises(UsageError, match="two states to merge"):
        llb.merge(BASE, llb.scratch())


def test_what_is_no_state_cannot_be_merged() -> None:
    """A list is said to be one, as it is the likely slip."""
    lists: Any = [BASE, BASE]
    with pytest.raises(UsageError, match="merge takes states, not an object of type list") as caught:
        llb.merge(lists)
    assert caught.value.hint == "Give each as an argument of its own."
    text: Any = "busybox"
    with pytest.raises(UsageError, match="diff takes states, not an object of type str"):
        llb.diff(BASE, text)


FIVE: Any = 5
MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: llb.image(FIVE), "reference takes a text, not an object of type int"),
    (lambda: llb.image("a", platform=FIVE), "platform takes a text"),
    (lambda: llb.image("a", checksum=FIVE), "checksum takes a text"),
    (lambda: llb.local(FIVE), "directory takes a text"),
    (lambda: llb.git(FIVE), "url takes a text"),
    (lambda: llb.git("https://a/b", FIVE), "ref takes a text"),
    (lambda: llb.http(FIVE), "url takes a text"),
    (lambda: BASE.dir(FIVE), "path takes a text"),
    (lambda: BASE.as_user(FIVE), "user takes a text"),
    (lambda: BASE.with_platform(FIVE), "platform takes a text"),
    (lambda: BASE.run(FIVE), "a command is a text or a list of words, not an object of type int"),
    (lambda: BASE.run(["echo", FIVE]), "command takes a text, not an object of type int"),
    (lambda: BASE.file(FIVE), "file takes actions"),
    (lambda: BASE.copy(FIVE, "a", "b"), "copy takes a state, not an object of type int"),
    (lambda: llb.copy(BASE, FIVE, "b"), "src takes a text"),
    (lambda: llb.mkdir(FIVE), "path takes a text"),
    (lambda: llb.mkfile("a", FIVE), "content takes bytes or a text"),
    (lambda: llb.rm(FIVE), "path takes a text"),
    (lambda: llb.symlink(FIVE, "a"), "target takes a text"),
    (lambda: llb.bind(FIVE, "/a"), "bind takes a state"),
    (lambda: llb.cache(FIVE), "target takes a text"),
    (lambda: llb.secret(FIVE), "secret_id takes a text"),
    (lambda: llb.ssh(FIVE), "agent_id takes a text"),
]


@pytest.mark.parametrize(("make", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_arguments_of_another_type_are_refused_by_name(make: Callable[[], object], words: str) -> None:
    """Where they are given, and not somewhere below."""
    with pytest.raises(UsageError, match=words):
        make()


def test_a_path_object_is_told_how_to_become_a_text() -> None:
    """It is the likely slip where a path is wanted."""
    path: Any = PurePosixPath("/d")
    with pytest.raises(UsageError, match="path takes a text, not an object of type PurePosixPath") as caught:
        llb.mkdir(path)
    assert caught.value.hint == "Write it as a text, str(path)."


def test_a_platform_is_that_of_the_state_or_of_the_definition() -> None:
    """Files are the same on all."""
    state = llb.image("a", platform="linux/arm/v7").run("x").file(llb.mkdir("/d"))
    image, command, files = operations(state, platform="linux/amd64")
    assert (image.platform.Architecture, image.platform.Variant) == ("arm", "v7")
    assert command.platform.Architecture == "arm"
    assert not files.HasField("platform")
    plain, _ = operations(BASE.run("x"), platform="linux/amd64")
    assert plain.platform.Architecture == "amd64"
    assert not operations(BASE)[0].HasField("platform")
    assert operations(BASE.with_platform("linux/s390x"))[0].platform.Architecture == "s390x"


@pytest.mark.parametrize(
    ("state", "identifier", "attrs"),
    [
        (
            llb.image("a/b@sha256:" + "0" * 64, resolve_mode="pull", checksum="sha256:1"),
            "docker-image://docker.io/a/b@sha256:" + "0" * 64,
            {"image.resolvemode": "pull", "image.checksum": "sha256:1"},
        ),
        (
            llb.local("src", include=["a"], exclude=["b"], follow=["c"]),
            "local://src",
            {
                "local.includepattern": '["a"]',
                "local.excludepatterns": '["b"]',
                "local.followpaths": '["c"]',
                "local.sharedkeyhint": "src",
            },
        ),
        (
            llb.git("https://h.test/a/b.git", "main", subdir="/sub/", keep_git_dir=True, checksum="abc"),
            "git://h.test/a/b.git#main:sub",
            {
                "git.fullurl": "https://h.test/a/b.git",
                "git.keepgitdir": "true",
                "git.checksum": "abc",
                "git.authtokensecret": "GIT_AUTH_TOKEN",
                "git.authheadersecret": "GIT_AUTH_HEADER",
            },
        ),
        (
            llb.git("git@h.test:a/b.git", known_hosts="h.test key", skip_submodules=True),
            "git://h.test/a/b.git",
            {
                "git.fullurl": "git@h.test:a/b.git",
                "git.mountsshsock": "default",
                "git.knownsshhosts": "h.test key",
                "git.skipsubmodules": "true",
                "git.authtokensecret": "GIT_AUTH_TOKEN",
                "git.authheadersecret": "GIT_AUTH_HEADER",
            },
        ),
        (
            llb.http("https://h.test/f", checksum="sha256:1", filename="g", mode=0o755, owner=(1, 2)),
            "https://h.test/f",
            {
                "http.checksum": "sha256:1",
                "http.filename": "g",
                "http.perm": "0755",
                "http.uid": "1",
                "http.gid": "2",
            },
        ),
    ],
)
def test_a_source_has_its_identifier_and_its_attributes(
    state: llb.State, identifier: str, attrs: dict[str, str]
) -> None:
    """As BuildKit's own clients write them."""
    (op,) = operations(state)
    assert (op.source.identifier, dict(op.source.attrs)) == (identifier, attrs)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("me/a", "docker.io/me/a:latest"),
        ("index.docker.io/a", "docker.io/library/a:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("r.test:5000/a", "r.test:5000/a:latest"),
        ("r.test:5000/a/b:c", "r.test:5000/a/b:c"),
        ("a@sha256:1", "docker.io/library/a@sha256:1"),
        ("Registry/a", "Registry/a:latest"),
    ],
)
def test_an_images_name_is_written_in_full(short: str, full: str) -> None:
    """As docker completes it."""
    assert normalized_reference(short) == full


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: llb.image("Busybox"),
        lambda: llb.image(""),
        lambda: llb.image("a", resolve_mode="x"),
        lambda: llb.image("a", platform="linux"),
        lambda: llb.local("a", include="*"),
        lambda: llb.git("nothing"),
        lambda: llb.git("ftp://h/a"),
        lambda: llb.http("ftp://h/a"),
        lambda: llb.cache("/a", sharing="x"),
        lambda: llb.tmpfs("a"),
        lambda: llb.copy(llb.scratch(), "/a", "/b"),
        lambda: BASE.run(""[:0].split()),
        lambda: BASE.run("a", network="x"),
        lambda: BASE.run("a", security="x"),
        lambda: BASE.run("a", mounts=[llb.tmpfs("/a"), llb.tmpfs("/a")]),
        lambda: BASE.file(),
        lambda: llb.scratch().definition(),
        lambda: BASE.definition(platform="x"),
        lambda: llb.Definition.parse(b"\xff"),
        lambda: llb.Definition.parse(b""),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[], object]) -> None:
    """Where it is written, not where it is built."""
    with pytest.raises(UsageError):
        wrong()


def test_the_lines_of_python_can_be_sent_along() -> None:
    """Each operation has the line on which it was written; without being asked for, nothing of the file is sent."""
    state = BASE.run("a")
    assert not state.definition().message.HasField("Source")
    source = state.definition(with_sources=True).message.Source
    (info,) = source.infos
    assert (info.filename, info.language) == ("test_graph.py", "Python")
    lines = info.data.decode().splitlines()
    marked = [lines[place.ranges[0].start.line - 1] for each in source.locations.values() for place in each.locations]
    assert '    state = BASE.run("a")' in marked


def test_a_definition_is_dumped_and_read_again() -> None:
    """As JSON, for Graphviz, and as bytes."""
    definition = llb.scratch().copy(llb.local("src"), "/a", "/", name='a "name"').definition()
    assert definition.locals == ("src",)
    assert llb.Definition.parse(definition.to_bytes()) == definition
    source, copied, result = definition.as_json()
    assert source["Op"]["source"]["identifier"] == "local://src"
    assert copied["OpMetadata"]["description"]["llb.customname"] == 'a "name"'
    assert result["Op"]["inputs"][0]["digest"] == copied["Digest"]
    json.dumps(definition.as_json())
    dot = definition.as_dot()
    assert 'label="local://src"' in dot
    assert 'label="a \\"name\\""' in dot
    assert f'"{source["Digest"]}" -> "{copied["Digest"]}"' in dot


@given(st.lists(st.sampled_from(["run", "file", "copy", "merge"]), max_size=12), st.randoms(use_true_random=False))
def test_any_graph_is_in_order(steps: list[str], random: Any) -> None:
    """Every input is sent before what works on it, and nothing is sent twice."""
    states = [BASE, llb.local("src")]
    for at, step in enumerate(steps):
        one, other = random.choice(states), random.choice(states)
        if step == "run":
            states.append(one.run(f"{at}", mounts=[llb.bind(other, "/m")]))
        elif step == "file":
            states.append(one.file(llb.mkfile("/f", f"{at}")))
        elif step == "copy":
            states.append(one.copy(other, "/a", "/b"))
        else:
            states.append(llb.merge(one, other))
    seen: set[str] = set()
    for digest, op in states[-1].definition().operations.items():
        assert {each.digest for each in op.inputs} <= seen
        assert digest not in seen
        seen.add(digest)
