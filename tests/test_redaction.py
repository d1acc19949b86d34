from __future__ import annotations

import base64
import json
import logging
import threading
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession import limits
from mobysession.redaction import HIDDEN, LONGEST_ENCODED, RedactingFilter, Redactor, redacted_logs

SECRET = 'hunter2/gr\u00fcn? "and" more\tof it'


@pytest.fixture
def redactor():
    """Know one value that every encoding changes."""
    redactor = Redactor()
    redactor.add(SECRET)
    return redactor


def test_values_are_replaced_wherever_they_stand(redactor):
    """Text and bytes lose every occurrence and keep the rest."""
    assert redactor.redact(f"<{SECRET}|{SECRET}>") == "<***|***>"
    assert redactor.redact(f"<{SECRET}>".encode()) == b"<***>"


def test_what_has_nothing_to_hide_is_the_same_object(redactor):
    """Nothing is copied where nothing is found."""
    text = "an ordinary line"
    assert redactor.redact(text) is text


@pytest.mark.parametrize(
    "encode",
    [
        lambda raw: base64.b64encode(raw).decode(),
        lambda raw: base64.urlsafe_b64encode(raw).decode(),
        lambda raw: raw.hex(),
        lambda raw: raw.hex().upper(),
        lambda raw: quote(raw),
        lambda raw: quote(raw, safe=""),
        lambda raw: quote_plus(raw),
        lambda raw: json.dumps(raw.decode())[1:-1],
        lambda raw: json.dumps(raw.decode(), ensure_ascii=False)[1:-1],
        lambda raw: repr(raw.decode())[1:-1],
        lambda raw: repr(raw)[2:-1],
    ],
)
def test_encoded_values_are_replaced(redactor, encode):
    """The forms in which programs print a value are hidden like the value."""
    assert redactor.redact(f"<{encode(SECRET.encode())}>") == "<***>"


@given(before=st.binary(max_size=5), value=st.binary(min_size=12, max_size=40), after=st.binary(max_size=5))
def test_base64_of_something_around_a_value(before, value, after):
    """At any offset in base64, at most two characters at each end of the value are left."""
    if len(value.strip()) < 12:
        return
    redactor = Redactor()
    redactor.add(value)
    hidden = redactor.redact(base64.b64encode(before + value + after).decode())
    assert HIDDEN in hidden
    left, _, right = hidden.partition(HIDDEN)
    assert len(left) <= len(before) * 4 / 3 + 2
    assert len(right.rstrip("=")) <= len(after) * 4 / 3 + 2


@given(value=st.text("abcd\n ", min_size=3), before=st.text("xyz\n "), after=st.text("xyz\n "))
def test_no_text_shows_a_value(value, before, after):
    """Whatever stands around a value of three characters or more, it is gone afterwards."""
    redactor = Redactor()
    redactor.add(value)
    hidden = redactor.redact(before + value + after)
    assert len(value.strip()) < 3 or value.strip() not in hidden


@pytest.mark.parametrize("value", ["", "ab", b"ab", "  \n\t  ", " a\n"])
def test_short_values_stay(value):
    """A value that stands everywhere by chance is not hidden."""
    redactor = Redactor()
    redactor.add(value)
    assert redactor.redact("ab   \n\t   a\n") == "ab   \n\t   a\n"


def test_three_characters_are_hidden():
    """The shortest value that counts has three characters."""
    redactor = Redactor()
    redactor.add("abc")
    assert redactor.redact("xabcx") == "x***x"


def test_the_newline_of_a_file_does_not_protect_its_value():
    """A value is hidden without the white space around it, which stays, and in the encodings with it as well."""
    redactor = Redactor()
    redactor.add("hunter2\n")
    assert redactor.redact("pass hunter2, hunter2\n") == "pass ***, ***\n"
    assert redactor.redact(base64.b64encode(b"hunter2").decode()) == "***"


def test_the_newline_of_a_long_file_does_not_protect_it_either():
    """A value too long for its encoded forms is hidden with and without the white space around it."""
    redactor = Redactor()
    redactor.add("0123456789" * LONGEST_ENCODED + "\n")
    assert redactor.redact("<" + "0123456789" * LONGEST_ENCODED + ">") == "<***>"


def test_long_lines_of_a_value_are_hidden_one_by_one():
    """A key of several lines is hidden in a log that shows one line at a time; its short lines are not."""
    redactor = Redactor()
    redactor.add("-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nshort\n-----END KEY-----\n")
    assert redactor.redact("step 1: MIIEvQIBADANBgkq") == "step 1: ***"
    assert redactor.redact("short") == "short"


def test_of_values_that_hold_one_another_the_longest_goes():
    """No rest of a longer value stays because a shorter one was found in it."""
    redactor = Redactor()
    redactor.add("abc")
    redactor.add("abcdef")
    assert redactor.redact("abcdef abc") == "*** ***"


def test_bytes_that_are_no_text_are_hidden():
    """A binary value is found in bytes."""
    redactor = Redactor()
    redactor.add(b"\xff\x00\xfe\x01")
    assert redactor.redact(b"<\xff\x00\xfe\x01>") == b"<***>"


@pytest.mark.parametrize(("size", "hidden"), [(LONGEST_ENCODED, True), (LONGEST_ENCODED + 1, False)])
def test_only_values_of_some_size_are_looked_for_in_hex(size, hidden):
    """Of very long values only the plain form is known."""
    value = b"0123456789abcdef" * (LONGEST_ENCODED // 16) + b"z"
    redactor = Redactor()
    redactor.add(value[:size])
    assert redactor.redact(value[:size]) == b"***"
    assert (redactor.redact(value[:size].hex()) == "***") is hidden


@pytest.mark.parametrize(
    ("text", "bytes_held"),
    [
        (b"nothing", 0),
        (b"see hun", 3),
        (b"see h", 1),
        (b"see huh", 1),
        (b"hun\n", 0),
        (b"see hunter2hunter", 0),
        (b"", 0),
    ],
)
def test_the_beginning_of_a_value_is_told(text, bytes_held):
    """As far as it may go on; what is whole does not, nor does a line that has ended."""
    redactor = Redactor()
    redactor.add("hunter")
    redactor.add("hunter2hunter")
    assert redactor.unfinished(redactor.redact(text)) == bytes_held


def test_the_oldest_values_are_forgotten(monkeypatch):
    """Only so many values are known at once, and adding one again makes it young."""
    monkeypatch.setattr(limits, "REDACTED_VALUES", 2)
    redactor = Redactor()
    for value in ("first", "second", "first", "third"):
        redactor.add(value)
    assert redactor.redact("first second third") == "*** second ***"


def test_values_may_be_added_from_other_threads():
    """What worker threads add at once is all known afterwards."""
    redactor = Redactor()
    threads = [threading.Thread(target=redactor.add, args=(f"value-{number}-of-many",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redactor.redact(" ".join(f"value-{number}-of-many" for number in range(20))) == " ".join(["***"] * 20)


def test_repr_shows_no_value(redactor):
    """The redactor itself shows how many values it knows, and none of them."""
    assert repr(redactor) == "<Redactor of 1 values>"


@pytest.fixture
def shown(redactor):
    """Log to a handler with the filter; return what the handler writes, and the logger."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Handler()
    handler.addFilter(RedactingFilter(redactor))
    logger = logging.getLogger("tests.redaction")
    logger.addHandler(handler)
    yield lines, logger
    logger.removeHandler(handler)


def test_log_records_are_redacted(shown):
    """Message and arguments lose their values; other records pass as they are."""
    lines, logger = shown
    logger.warning("token %s for %d", SECRET, 7)
    logger.warning("plain %s", "text")
    assert lines == ["token *** for 7", "plain text"]


def test_tracebacks_in_logs_are_redacted(shown):
    """The text of a logged exception is redacted with the rest."""
    lines, logger = shown
    try:
        int(SECRET)
    except ValueError:
        logger.exception("failed")
    assert "ValueError: invalid literal for int() with base 10: '***'" in lines[0]
    assert SECRET not in lines[0]


def test_stacks_in_logs_are_redacted(redactor):
    """The stack that a record carries as text is redacted too."""
    record = logging.LogRecord("n", logging.INFO, "f", 1, "message", None, None, sinfo=f"Stack: {SECRET}")
    assert RedactingFilter(redactor).filter(record)
    assert record.stack_info == "Stack: ***"


def test_a_record_that_cannot_be_formatted_is_still_redacted(shown, redactor):
    """A logging mistake does not raise in the filter, and the parts that the handler will report are redacted."""
    record = logging.LogRecord("n", logging.INFO, "f", 1, f"%d {SECRET}", (SECRET,), None)
    assert RedactingFilter(redactor).filter(record)
    assert (record.msg, record.args) == ("%d *** ('***',)", None)


def test_a_redactor_without_values_is_false(redactor):
    """Whoever has much to show can ask first whether there is anything to hide."""
    assert redactor
    assert not Redactor()


@pytest.mark.parametrize("name", ["mobysession", None])
def test_our_log_is_redacted_for_a_while(redactor, name):
    """Handlers of our logger, and of those above it, hide values inside the block only."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Handler()
    logging.getLogger(name).addHandler(handler)
    try:
        with redacted_logs(redactor):
            logging.getLogger("mobysession.build").warning("got %s", SECRET)
        logging.getLogger("mobysession.build").warning("got %s", SECRET)
    finally:
        logging.getLogger(name).removeHandler(handler)
    assert lines == ["got ***", f"got {SECRET}"]
