"""The front door for asyncio code: the same names and options, awaited in a loop of asyncio's.

What is called runs on trio in one worker thread, which lives as long as there is something for it to do and is shared
by all who call meanwhile. Three things are carried across, in both directions where they can go in both:

- Cancellation: a task that is cancelled cancels the build on the engine, and is told once that is done.
- Context variables: a callback sees those of the task that called.
- Functions of the caller's: an ``async def`` that provides a secret, credentials or a decision is run in the caller's
  own loop, where it may await what belongs there; a plain function runs in a thread, as it does elsewhere.
"""

from mobysession.aio.builds import AsyncioBuild, bake, build, build_many, build_on, open_build, run_once
from mobysession.aio.sessions import AsyncioSession, open_session

__all__ = [
    "AsyncioBuild",
    "AsyncioSession",
    "bake",
    "build",
    "build_many",
    "build_on",
    "open_build",
    "open_session",
    "run_once",
]
