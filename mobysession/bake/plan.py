"""What is built for a target: its attributes as `BuildOptions`, so that a bake is nothing but builds.

Paths count from the working directory, those of Dockerfiles from the context. A Dockerfile that stands in the
definition is written to a directory of its own, where it has the name that the target gives it.

Source: docker/buildx bake/bake.go, toBuildOpt.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobysession.bake.definition import linked_names, platforms_of
from mobysession.build.attests import Attest
from mobysession.build.cache import CacheEntry
from mobysession.build.contexts import is_remote
from mobysession.build.exports import Output
from mobysession.build.fields import join_fields
from mobysession.build.options import BuildOptions
from mobysession.build.remote import is_remote_context
from mobysession.errors import BakeError, UsageError
from mobysession.services.secrets import parse_secret_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.bake.entries import Entry
    from mobysession.bake.target import Target

__all__ = ["dockerfile_path", "options_of"]


def options_of(name: str, target: Target, scratch: str, common: Mapping[str, Any]) -> BuildOptions:
    """Return the build of a target; blocking.

    Args:
        name: of the target, for messages.
        target: resolved.
        scratch: a directory of ours for what has to be a file.
        common: options that all targets have.

    Raises:
        BakeError: what the target says is no build; names it.
    """
    try:
        return BuildOptions(**{**_options(name, target, scratch), **common})
    except UsageError as error:
        raise BakeError(f"target {name!r}: {error.message}", hint=error.hint) from error


def _options(name: str, target: Target, scratch: str) -> dict[str, Any]:
    context = target["context"]
    if "-" in (context, target["dockerfile"]):
        raise UsageError("a target cannot be read from stdin")
    network = target.get("network") or "default"
    no_cache = target.get("no-cache") or False
    calls = target.get("call") not in (None, "", "build")
    if calls and linked_names(target):
        raise UsageError("a target with another one as a context can be built, but not asked for anything else")
    return {
        "context": context,
        "file": _dockerfile(name, target, scratch),
        "build_contexts": {key: value.removeprefix("cwd://") for key, value in target.get("contexts", {}).items()},
        "build_args": target.get("args", {}),
        "labels": target.get("labels", {}),
        "tags": target.get("tags", ()),
        "target": target.get("target") or None,
        "platforms": platforms_of(target),
        "no_cache": no_cache,
        "no_cache_filter": () if no_cache else target.get("no-cache-filter", ()),
        "pull": target.get("pull") or False,
        "network": network,
        "shm_size": target.get("shm-size") or None,
        "ulimits": target.get("ulimits", ()),
        "add_hosts": [
            f"{host}={ip}" for host, given in target.get("extra-hosts", {}).items() for ip in given.split(",")
        ],
        "secrets": dict(parse_secret_spec(_secret(entry)) for entry in target.get("secret", ())),
        "ssh": [_ssh(entry) for entry in target.get("ssh", ())],
        "cache_from": [CacheEntry(entry["type"], _rest(entry)) for entry in target.get("cache-from", ())],
        "cache_to": [CacheEntry(entry["type"], _rest(entry)) for entry in target.get("cache-to", ())],
        # What is asked for instead of a build has none.
        "outputs": () if calls else [_output(entry) for entry in target.get("output", ())],
        "annotations": target.get("annotations", ()),
        "attests": [_attest(entry) for entry in target.get("attest", ())],
        "call": target.get("call") or None,
        # The network brings it with it.
        "allow": [one for one in target.get("entitlements", ()) if network != "host" or one != "network.host"],
    }


def _dockerfile(name: str, target: Target, scratch: str) -> str:
    if target.get("dockerfile-inline"):
        folder = Path(scratch, name)
        folder.mkdir()
        (folder / "Dockerfile").write_text(target["dockerfile-inline"], "utf-8")
        return str(folder / "Dockerfile")
    return dockerfile_path(target)


def dockerfile_path(target: Target) -> str:
    """Return where a target has its Dockerfile, as a build takes it: from the context's root if that is elsewhere."""
    written: str = target["dockerfile"]
    if written.startswith("cwd://"):
        return os.path.abspath(written.removeprefix("cwd://"))
    if is_remote_context(target["context"]) or is_remote(written) or os.path.isabs(written):
        return written
    return os.path.join(target["context"], written)


def _rest(entry: Entry) -> dict[str, str]:
    return {key: value for key, value in entry.items() if key != "type"}


def _secret(entry: Entry) -> str:
    return join_fields(f"{key}={value}" for key, value in entry.items())


def _ssh(entry: Entry) -> str:
    paths = ",".join(entry.get("paths", ()))
    return f"{entry.get('id', '')}={paths}" if paths else entry.get("id", "")


def _output(entry: Entry) -> Output:
    attrs = {key: value for key, value in entry.items() if key not in ("type", "dest")}
    return Output(entry["type"], entry.get("dest"), attrs)


def _attest(entry: Entry) -> Attest:
    attrs = {key: value for key, value in entry.items() if key not in ("type", "disabled")}
    return Attest(entry["type"], attrs, disabled=entry.get("disabled", False))
