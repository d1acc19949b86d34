"""Text from the engine cannot command a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.buildkit.printable import printable


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain caf\u00e9 \u65e5\u672c", "plain caf\u00e9 \u65e5\u672c"),
        ("a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hclear", "clear"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]52;c;ZXZpbA==\x1b\\clipboard", "clipboard"),
        ("\x9b31mred", "red"),
        ("\x1bcreset", "reset"),
        ("bell\x07 back\x08space del\x7f nul\x00", "bell backspace del nul"),
        ("10%\r50%\rdone\r\n", "done"),
        ("two\nlines", "two lines"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("unfinished \x1b]0;title", "unfinished 0;title"),
    ],
)
def test_what_a_terminal_would_obey_is_removed(hostile: str, harmless: str) -> None:
    """Sequences go as a whole, control characters one by one, and the text between them stays."""
    assert printable(hostile) == harmless


def test_newlines_stay_where_asked_for() -> None:
    """A message of several lines keeps them, each line made harmless by itself."""
    assert printable("a\x1b[1m\nb\r\n\nc", newlines=True) == "a\nb\n\nc"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\x9b[]m;0\x07\r\n\t"), max_size=30))
def test_nothing_that_controls_is_left(text: str) -> None:
    """Whatever comes, no control character but the tab gets through, and a second pass changes nothing."""
    result = printable(text)
    assert not [char for char in result if char != "\t" and (ord(char) < 32 or 127 <= ord(char) < 160)]
    assert printable(result) == result
