"""How a result came about, as the engine has recorded it: read from the history of its builds.

Whether or not the image holds an attestation, BuildKit keeps a provenance with its record of the solve, from 0.11 on.
The record names it by digest; its bytes come from the engine's content store, on the same connection.

Source: docker/buildx build/provenance.go; moby/buildkit solver/llbsolver/history.go; containerd api/services/content.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from mobysession import limits
from mobysession.buildkit.history import PREDICATE
from mobysession.errors import ApiError, RpcError, StatusCode, UnsupportedByEngine
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.build.options import BuildOptions
    from mobysession.buildkit.control import Control
    from mobysession.buildkit.history import History

__all__ = ["is_wanted", "metadata_provenance", "read_provenance"]

_MODE: Final = "BUILDX_METADATA_PROVENANCE"
_OFF: Final = ("disabled", "0", "f", "false")
_SLSA: Final = "https://slsa.dev/provenance/"
#: What BuildKit calls its way of building in SLSA 0.2.
_BUILD_TYPE: Final = "https://mobyproject.org/buildkit@v1"


def is_wanted(options: BuildOptions) -> bool:
    """Tell whether anybody will look at the provenance: in the file with the engine's response, or as it was asked for.

    ``BUILDX_METADATA_PROVENANCE=disabled`` keeps it out of the file.
    """
    attest = options.attested().get("provenance")
    if attest is not None and not attest.disabled:
        return True
    return options.metadata_file is not None and os.environ.get(_MODE, "").lower() not in _OFF


async def read_provenance(control: Control, ref: str) -> dict[str, Any]:
    """Return the provenance of a solve that is done, by platform; by an empty name where there is one result only.

    It is what in-toto calls the predicate, as the engine wrote it: SLSA 1 has a key ``buildDefinition``, SLSA 0.2 has
    ``buildType`` instead. Empty where the engine keeps no history.

    Raises:
        RpcError: the engine failed to say.
    """
    found: dict[str, Any] = {}
    history = control.history
    for platform, digest in (await _attested(history, ref)).items():
        try:
            document = parse_json(await _read(history, digest))
        except ValueError:
            continue
        if isinstance(document, dict):
            found[platform] = document
    return found


async def _attested(history: History, ref: str) -> dict[str, str]:
    """Return the digests of the provenances in the record of a solve, by platform; none where there is no record."""
    try:
        record = (await history.get(ref)).message
    except (ApiError, UnsupportedByEngine):
        return {}
    except RpcError as error:
        if error.code is not StatusCode.NOT_FOUND:
            raise
        return {}
    found: dict[str, str] = {}
    # Not the record's ``blobs``, each of which is there once: several platforms may have one provenance.
    for platform, result in (dict(record.Results) or {"": record.Result}).items():
        for one in result.Attestations:
            if one.size <= limits.MAX_PROVENANCE and one.annotations.get(PREDICATE, "").startswith(_SLSA):
                found.setdefault(platform, one.digest)
    return found


async def _read(history: History, digest: str) -> bytes:
    async with aclosing(history.read(digest)) as parts:
        return b"".join([part async for part in parts])


def metadata_provenance(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return provenances as ``docker buildx build --metadata-file`` has them, by its keys.

    Unless ``BUILDX_METADATA_PROVENANCE`` is ``max``, the steps and the times are left out.
    """
    left_out = () if os.environ.get(_MODE, "min").lower() == "max" else ("buildConfig", "metadata")
    return {
        f"buildx.build.provenance/{name}" if name else "buildx.build.provenance": {
            key: value for key, value in _as_slsa02(document).items() if key not in left_out
        }
        for name, document in found.items()
    }


def _as_slsa02(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a predicate in the words of SLSA 0.2, which is what such files have had from the beginning."""
    if "buildDefinition" not in document:
        return dict(document)
    definition, run = _object(document, "buildDefinition"), _object(document, "runDetails")
    outside, inside = _object(definition, "externalParameters"), _object(definition, "internalParameters")
    config, meta = _object(outside, "configSource"), _object(run, "metadata")
    kept = ("buildConfig", "builderPlatform")
    environment = {
        "platform": inside.get("builderPlatform", ""),
        **{key: value for key, value in inside.items() if key not in kept},
    }
    source = {"uri": config.get("uri"), "digest": config.get("digest"), "entryPoint": config.get("path")}
    dependencies = definition.get("resolvedDependencies") or []
    converted = {
        "builder": {"id": _object(run, "builder").get("id", "")},
        "buildType": _BUILD_TYPE,
        "materials": [{key: one[key] for key in ("uri", "digest") if key in one} for one in dependencies],
        "invocation": {
            "configSource": {key: value for key, value in source.items() if value},
            "parameters": outside.get("request", {}),
            "environment": environment,
        },
        "buildConfig": inside.get("buildConfig"),
        "metadata": _metadata02(meta) if meta else None,
    }
    return {key: value for key, value in converted.items() if value is not None}


def _metadata02(meta: Mapping[str, Any]) -> dict[str, Any]:
    complete = _object(meta, "buildkit_completeness")
    return {
        "buildInvocationID": meta.get("invocationID", ""),
        "buildStartedOn": meta.get("startedOn"),
        "buildFinishedOn": meta.get("finishedOn"),
        "completeness": {
            "parameters": complete.get("request", False),
            "environment": True,
            "materials": complete.get("resolvedDependencies", False),
        },
        "reproducible": meta.get("buildkit_reproducible", False),
        f"{_BUILD_TYPE}#metadata": _object(meta, "buildkit_metadata"),
    }


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
