"""As much of Dockerfiles as the fake understands."""

from __future__ import annotations

import pytest

from mobysession.testing.dockerfile import BadDockerfile, parse_dockerfile, parse_ignore_file


def test_continued_lines_and_comments():
    """A continued instruction is one, comments inside it are none of it, and its lines are counted."""
    (stage,) = parse_dockerfile("# syntax=x\nFROM a\nRUN one \\\n# not this\n  two\n\nCMD x\n")
    (step,) = stage.steps()
    assert (step.text, step.first_line, step.last_line) == ("RUN one two", 3, 5)


def test_sources_of_copies():
    """Local sources count, in either form; those of other stages and of the net do not."""
    text = 'FROM a\nCOPY ./b/ c d/\nCOPY ["e f", "g"]\nCOPY --from=x h i\nADD https://x/y z /w\nCOPY . /\n'
    (stage,) = parse_dockerfile(text)
    assert [step.sources() for step in stage.steps()] == [["b", "c"], ["e f"], [], ["z"], [""]]


def test_mounts_are_read():
    """Of several mounts those of the type are found, with all their fields."""
    (stage,) = parse_dockerfile("FROM a\nRUN --mount=type=secret,id=t,required=true --mount=type=cache,target=/c x\n")
    (step,) = stage.steps()
    assert step.mounts("secret") == [{"type": "secret", "id": "t", "required": "true"}]


def test_only_needed_stages_count():
    """Stages that the target neither builds on nor copies from are left out."""
    text = "FROM a AS one\nFROM b AS two\nFROM scratch AS three\nCOPY --from=one x y\nFROM three AS four\n"
    assert [stage.name for stage in parse_dockerfile(text)] == ["one", "three", "four"]
    assert [stage.name for stage in parse_dockerfile(text, "two")] == ["two"]


def test_a_target_that_is_not_there():
    """An unknown target is refused by its name."""
    with pytest.raises(BadDockerfile, match='"none"'):
        parse_dockerfile("FROM a AS one\n", "none")


def test_ignore_files():
    """Comments, blanks and slashes are treated as the frontend treats them."""
    text = "\ufeff# comment\n #no comment\n\n  /a/b/ \n! keep\n!\n./c\n"
    assert parse_ignore_file(text) == ["#no comment", "a/b", "!keep", "!", "c"]
