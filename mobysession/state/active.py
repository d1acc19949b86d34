"""The daemon that is used where nobody names one: the docker CLI's choice, or else the active reference.

The reference stands in only where the docker CLI would take its default: neither ``--host`` nor a context, neither
``DOCKER_HOST`` nor ``DOCKER_CONTEXT`` nor ``currentContext`` says anything, not even ``default``. Where nothing was
ever remembered that costs one look for a file.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mobysession import limits
from mobysession.errors import StateError
from mobysession.state.location import state_path
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from mobysession.state.references import DaemonReference

__all__ = ["Choice", "choose_endpoint", "find_endpoint", "stand_in"]


class Choice(NamedTuple):
    """The endpoint, and the reference that it is from; None where it is the docker CLI's choice."""

    endpoint: Endpoint
    reference: DaemonReference | None = None


def find_endpoint(
    environ: Mapping[str, str] | None = None,
    *,
    config_dir: str | os.PathLike[str] | None = None,
    host: str | None = None,
    context: str | None = None,
) -> Endpoint:
    """Return the endpoint that `choose_endpoint` chooses."""
    return choose_endpoint(environ, config_dir=config_dir, host=host, context=context).endpoint


def choose_endpoint(
    environ: Mapping[str, str] | None = None,
    *,
    config_dir: str | os.PathLike[str] | None = None,
    host: str | None = None,
    context: str | None = None,
) -> Choice:
    """Choose a daemon as `Endpoint.from_env` does, with the active reference in place of the default; blocking.

    Raises:
        EndpointError, UsageError: see `Endpoint.from_env`.
        StateError: something is remembered and cannot be read; to go to another daemon than the active one could do
            harm, so the user must act.
    """
    found = Endpoint.from_env(environ, config_dir=config_dir, host=host, context=context)
    return stand_in(found, environ, config_dir=config_dir) if found.is_default else Choice(found)


def stand_in(
    found: Endpoint, environ: Mapping[str, str] | None = None, *, config_dir: str | os.PathLike[str] | None = None
) -> Choice:
    """Choose the active reference in place of the docker CLI's default, ``found``, where there is one; blocking.

    For who has asked `Endpoint.from_env` already, and need not load this where a daemon is named.

    Raises:
        EndpointError, StateError: see `choose_endpoint`.
    """
    path = state_path(environ)
    reference = _active(path) if path.exists() else None
    if reference is None:
        return Choice(found)
    # Through the same door as DOCKER_HOST, for TLS and headers; who set it is another matter.
    endpoint = Endpoint.from_env(environ, config_dir=config_dir, host=reference.address)
    return Choice(replace(endpoint, source="active daemon"), reference)


def _active(path: Path) -> DaemonReference | None:
    from mobysession.state.database import Database
    from mobysession.state.references import CLIENT_STATE, active_in
    from mobysession.state.steps import stored_values

    database = Database.open(path, check=False)
    try:
        with database.transaction(writes=False) as connection:
            reference = active_in(stored_values(connection, CLIENT_STATE))
    finally:
        database.close()
    if reference is not None and time.time() - reference.last_accessed > limits.ACCESS_GRAIN:
        # No build waits, or fails, because the time of its beginning cannot be written down.
        with suppress(StateError):
            _accessed(path, reference.address)
    return reference


def _accessed(path: Path, address: str) -> None:
    from mobysession.state.database import Database
    from mobysession.state.references import CLIENT_STATE
    from mobysession.state.steps import Step, Write

    def update(values: dict[str, Any]) -> dict[str, Any]:
        daemons = values["daemons"]
        return {"daemons": {**daemons, address: {**daemons[address], "last_accessed": time.time()}}}

    database = Database.open(path, busy=0, check=False)
    try:
        with database.transaction() as connection:
            Write(CLIENT_STATE, "", (Step(update, {}, {}),), lambda *_: None).run(connection)
    finally:
        database.close()
