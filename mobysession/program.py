"""Running a program of the user's that provides or keeps something: a credential helper, a command for a secret.

Such a program may hang, start others, or print without an end. It gets a time from its caller and a size, and whatever
happens it is gone when the call is over, with all that it started and that stayed in its group.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from mobysession.concurrency import open_nursery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TooMuchOutput", "run_program"]


class TooMuchOutput(Exception):
    """A program printed more than its caller takes; it has been killed."""


async def run_program(
    command: Sequence[str | os.PathLike[str]],
    question: bytes = b"",
    *,
    limit: int,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Run a program to its end and return its status and what it printed; what it says on stderr is dropped.

    Args:
        command: the program and its arguments.
        question: what it can read on stdin.
        limit: bytes that it may print.
        environment: its variables; None: our own.

    Raises:
        OSError, ValueError: it cannot be started.
        TooMuchOutput: it printed more than ``limit``.

    Cancel: it is killed, and gone when this returns.
    """
    # A session of its own, so that whatever it starts can be killed with it.
    process = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(_tell, process, question)
            output = await _listen(process, limit)
        return await process.wait(), output
    except BaseException:
        # Also where it has ended itself: something that it started still holds its output open.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        await _end(process)


async def _tell(process: trio.Process, question: bytes) -> None:
    assert process.stdin is not None  # asked for above
    with suppress(trio.BrokenResourceError):  # it did not want to know
        await process.stdin.send_all(question)
    await process.stdin.aclose()


async def _listen(process: trio.Process, limit: int) -> bytes:
    assert process.stdout is not None  # asked for above
    output = bytearray()
    async for chunk in process.stdout:
        output += chunk
        if len(output) > limit:
            raise TooMuchOutput
    return bytes(output)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
