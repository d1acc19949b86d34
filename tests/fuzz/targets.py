"""The table of what is fuzzed, shared by the bounded run of the tests and the long one of ``make fuzz``.

A run of a target depends on nothing but the target's name and a number: `Target.run` takes a number, damages a seed
with chance drawn from it, and raises whatever is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from mobysession.protocol.framing import encode_messages
from tests.fuzz import parsers, samples
from tests.fuzz.connections import hear_as_client, hear_as_server
from tests.fuzz.mutations import damage_bytes, damage_frames
from tests.fuzz.seeds import conversations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """Something that reads hostile bytes.

    Attributes:
        name: as the command line takes it.
        check: reads bytes, with chance for what else must be decided; raises what is a bug.
        seeds: valid inputs.
        framed: they are HTTP/2, and can be damaged without breaking the framing.
    """

    name: str
    check: Callable[[bytes, Random], None]
    seeds: Callable[[], Sequence[bytes]]
    framed: bool = False

    def run(self, number: int) -> None:
        """Run once, with the input and the schedule that ``number`` stands for."""
        chance = Random(f"{self.name} {number}")
        self.check(self.damaged(chance), chance)

    def damaged(self, chance: Random) -> bytes:
        """Return the next input that ``chance`` brings."""
        data = chance.choice(self.seeds())
        if self.framed and chance.random() < 0.7:
            return damage_frames(data, chance)
        return damage_bytes(data, chance)


def _said(*, session: bool) -> list[bytes]:
    return [one.said for name, one in conversations().items() if name.startswith("session-") is session]


def _heads() -> list[bytes]:
    return [one.head for one in conversations().values() if one.head] + samples.REFUSALS


def _framed_messages() -> list[bytes]:
    return [
        encode_messages([b"", b"one", b"two" * 1000]),
        encode_messages([b"x" * 5000] * 3, compress=True),
        encode_messages([b"", b"1"], compress=True),
    ]


TARGETS = (
    Target("server", hear_as_server, lambda: [*_said(session=True), samples.CONVERSATION], framed=True),
    Target("client", hear_as_client, lambda: _said(session=False), framed=True),
    Target("handshake", parsers.read_handshake, _heads),
    Target("framing", parsers.read_framing, _framed_messages),
    Target("metadata", parsers.read_metadata, lambda: samples.REQUESTS),
    Target("status", parsers.read_status, lambda: samples.TRAILERS),
    Target("packets", parsers.read_packets, lambda: samples.PACKETS),
    Target("patterns", parsers.read_patterns, lambda: samples.IGNORE_FILES),
    Target("trace", parsers.read_trace, lambda: samples.TRACES),
    Target("config", parsers.read_config, lambda: samples.CONFIGS),
)
