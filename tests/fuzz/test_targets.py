"""A bounded run of every target, the same each time, and the cases that longer runs have found."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz import samples
from tests.fuzz.__main__ import main
from tests.fuzz.mutations import cut, damage_bytes, damage_frames
from tests.fuzz.seeds import conversations, frames_of
from tests.fuzz.targets import TARGETS, Target

#: Runs of each target: together about a second.
_RUNS = {"server": 150, "client": 60, "config": 150, "patterns": 200}
_BY_NAME = {target.name: target for target in TARGETS}

#: Inputs that longer runs failed over once, cut down to what mattered, by target.
_FOUND = [
    # A carriage return in DOCKER_CUSTOM_HEADERS was an error of Python's csv.
    ("config", b"X-A=1\rX-B=2"),
    # A request without gRPC's content type counts as open until it ends; the one who looks for leaks must know.
    ("server", samples.CONVERSATION.replace(b"application/grpc", b"application/html")),
]


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_a_bounded_run(target: Target) -> None:
    """Damaged inputs give results or the errors that the reader may raise, and nothing else."""
    for number in range(_RUNS.get(target.name, 300)):
        target.run(number)


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_the_seeds_themselves(target: Target) -> None:
    """What is damaged was valid before, or the fuzzing would start from nothing."""
    for seed in target.seeds():
        target.check(seed, Random(0))


@pytest.mark.parametrize(("name", "data"), _FOUND)
def test_what_was_found_stays_mended(name: str, data: bytes) -> None:
    """An input that failed once does not fail again, whatever the schedule."""
    for seed in range(20):
        _BY_NAME[name].check(data, Random(seed))


def test_frames_are_found() -> None:
    """The recordings are whole frames, so that damage by the frame is what it says."""
    for conversation in conversations().values():
        frames = frames_of(conversation.said)
        assert b"".join(frames) == conversation.said
        assert len(frames[-1]) == 9 + int.from_bytes(frames[-1][:3], "big")


def test_damage_is_repeatable() -> None:
    """The same number gives the same damage, which is what makes a reproducer one."""
    said = conversations()["session-28.5.2-image"].said
    for damage in (damage_bytes, damage_frames):
        assert len({damage(said, Random(7)) for _ in range(3)}) == 1
        assert damage(said, Random(7)) != damage(said, Random(8))
    assert b"".join(cut(said, Random(1))) == said


def test_a_failure_is_saved_with_its_number(monkeypatch, tmp_path, capsys) -> None:
    """A bug that the long run meets is printed with the command that repeats it, and ends in exit status 1."""
    inputs: list[bytes] = []

    def check(data: bytes, _chance: Random) -> None:
        inputs.append(data)
        if len(inputs) == 20:
            raise ZeroDivisionError

    broken = Target("broken", check, lambda: [b"some bytes"])
    monkeypatch.setattr("tests.fuzz.__main__.TARGETS", (broken,))
    monkeypatch.setattr("tests.fuzz.__main__.FOUND", tmp_path / "found")
    assert main(["--seconds", "5", "--seed", "3"]) == 1
    (case,) = (tmp_path / "found").iterdir()
    assert case.read_bytes() == inputs[-1]
    number = case.name.removeprefix("broken-")
    assert f"--number {number} broken" in capsys.readouterr().err
    inputs.clear()
    assert main(["--number", number, "broken"]) == 0
    assert inputs == [case.read_bytes()]
