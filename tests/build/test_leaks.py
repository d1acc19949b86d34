"""Secrets that stand where they do not belong."""

from __future__ import annotations

import pytest

from mobysession import limits
from mobysession.build.leaks import LeakWatch


def shorts(watch: LeakWatch) -> list[str]:
    """Return the texts of the warnings that are new."""
    return [warning.short.decode() for warning in watch.take()]


@pytest.mark.parametrize(
    ("value", "held", "found"),
    [
        ("dev", "dev", True),
        ("dev", "development", False),
        ("dev\n", " dev ", True),
        ("no", "no", False),
        ("12345678", "key=12345678;", True),
        ("1234567", "key=1234567;", False),
        ("", "", False),
    ],
)
def test_a_value_is_found_where_it_is_no_chance(value: str, held: str, found: bool) -> None:
    """The whole value counts from 3 bytes on, a part of a text from 8 on."""
    for watch in (LeakWatch({"ARG": held}, {}), LeakWatch({}, {"label": held})):
        watch.look("id", value.encode())
        assert bool(shorts(watch)) is found


def test_each_place_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a secret is asked for, or a step prints it; and no more than a bound in all."""
    monkeypatch.setattr(limits, "MAX_STATUSES", 3)
    watch = LeakWatch({"ARG": "a-long-value"}, {})
    for _ in range(2):
        watch.look("id", b"a-long-value")
        watch.printed("sha256:one")
    assert len(shorts(watch)) == 2
    for number in range(5):
        watch.printed(f"sha256:{number}")
    assert len(shorts(watch)) == 1
    assert shorts(watch) == []
