"""Where the steps of a build come from and go to besides the engine's own cache: ``--cache-from`` and ``--cache-to``.

``registry`` is an image in a registry; ``local`` an OCI layout in a directory of this machine, which the engine reads
and writes through the session; ``inline`` goes into the image that is built; ``gha``, ``s3`` and ``azblob`` are stores
that BuildKit reaches by itself. Of a local cache the engine wants to know the digest, which is in the layout's
``index.json`` under a tag; and what it exported there is put into that index when the build is done.

Source: docker/buildx util/buildflags/cache.go, build/opt.go; moby/buildkit client/solve.go.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mobysession.build.fields import parse_bool, split_fields, split_pairs
from mobysession.errors import UnsupportedByEngine, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobysession.build.options import BuildOptions
    from mobysession.transport.endpoint import Endpoint

__all__ = ["CacheEntry", "cache_imports", "parse_entries", "plain_registries", "refuse_impossible"]

_TYPES: Final = ("registry", "local", "inline", "gha", "s3", "azblob")
_MODES: Final = ("min", "max")
#: What an engine has no code for, and only a buildkitd reaches.
_ONLY_BUILDKITD: Final = frozenset(("s3", "azblob"))
#: What an engine can that keeps its images in a graph driver.
_GRAPH_EXPORTS: Final = frozenset(("inline",))
_GRAPH_IMPORTS: Final = frozenset(("registry", "local"))
#: Attributes that let whoever has them into a store.
_SECRET: Final = frozenset(("token", "ghtoken", "access_key_id", "secret_access_key", "session_token"))


@dataclass(frozen=True)
class CacheEntry:
    """One ``--cache-from`` or ``--cache-to``.

    Args:
        type: ``registry``, ``local``, ``inline``, ``gha``, ``s3`` or ``azblob``.
        attrs: what it takes: ``ref`` of a registry; ``src`` to read a directory, ``dest`` to write one, ``tag`` in its
            index, ``digest``; ``mode=max`` to keep the steps of all stages.

    Raises:
        UsageError: there is no such type.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type not in _TYPES:
            raise UsageError(f"there is no cache of type {self.type!r}", hint=f"Choose {', '.join(_TYPES)}.")
        attrs: object = self.attrs
        if not isinstance(attrs, Mapping) or not all(isinstance(text, str) for text in attrs.values()):
            raise UsageError("attrs of a cache is a mapping of names to texts")

    def __repr__(self) -> str:
        shown = {key: "***" if key in _SECRET else value for key, value in self.attrs.items()}
        return f"CacheEntry({self.type!r}, {shown!r})"

    @property
    def secrets(self) -> list[str]:
        """The values of attributes that nobody may see."""
        return [value for key, value in self.attrs.items() if key in _SECRET]

    @property
    def ignores_errors(self) -> bool:
        """Whether a build succeeds when this cache cannot be written."""
        return parse_bool(self.attrs.get("ignore-error", "")) is True

    @property
    def resets(self) -> bool:
        """Whether blobs that nothing in the index of a local cache needs are removed from it."""
        return parse_bool(self.attrs.get("reset", "")) is True


def parse_entries(given: Iterable[str | CacheEntry], *, exported: bool) -> list[CacheEntry]:
    """Return caches as values, each once; a text is read as ``docker buildx build`` reads it.

    A text without ``=`` is the name of an image, or several with commas between; otherwise it is ``key=value``,
    separated by commas and quoted as in CSV, keys in any case.

    Args:
        given: values or texts.
        exported: whether they are written, not read.

    Raises:
        UsageError: one of them is something else, or lacks what it needs.
    """
    entries: list[CacheEntry] = []
    for one in given:
        for entry in [one] if isinstance(one, CacheEntry) else _parse(one):
            _check(entry, exported=exported)
            if entry not in entries:
                entries.append(entry)
    return entries


def _parse(text: str) -> list[CacheEntry]:
    if "=" not in text:
        return [CacheEntry("registry", {"ref": name}) for name in split_fields("cache", text) if name]
    attributes = {key.lower(): value for key, value in split_pairs("cache", text).items()}
    kind = attributes.pop("type", "")
    if not kind:
        raise UsageError(f"cache {text!r} has no type", hint=f"Write type=TYPE with one of {', '.join(_TYPES)}.")
    return [CacheEntry(kind, attributes)]


def _check(entry: CacheEntry, *, exported: bool) -> None:
    if entry.type == "inline" and not exported:
        raise UsageError(
            "an inline cache is read from the image it is in", hint="Name the image: type=registry,ref=NAME."
        )
    needed = {"registry": "ref", "local": "dest" if exported else "src"}.get(entry.type)
    if needed is not None and not entry.attrs.get(needed):
        raise UsageError(f"a cache of type {entry.type} needs {needed}=")
    if entry.type == "local" and entry.attrs.get("tag", "latest") == "":
        raise UsageError("the tag of a local cache is empty")
    if exported and entry.attrs.get("mode", "min") not in _MODES:
        raise UsageError(f"a cache has no mode {entry.attrs['mode']!r}", hint="Choose min or max.")


def cache_imports(entries: Sequence[CacheEntry]) -> str:
    """Return what the frontend, which decides on imports, has to know of them."""
    import json  # only for who has caches: start-up

    return json.dumps([{"Type": entry.type, "Attrs": dict(entry.attrs)} for entry in entries])


def plain_registries(options: BuildOptions) -> list[str]:
    """Return the images of ``cache_from``, all that ``POST /build`` can be told.

    Raises:
        UnsupportedByEngine: there is more; the message says what could.
    """
    if options.cache_to:
        raise UnsupportedByEngine(
            "POST /build exports no cache",
            hint="Use an engine with /grpc; or the build argument BUILDKIT_INLINE_CACHE=1, and push the image.",
        )
    for entry in options.imported_caches():
        if entry.type != "registry" or set(entry.attrs) != {"ref"}:
            raise UnsupportedByEngine(
                "POST /build reads cache from images only, by their names", hint="Use an engine with /grpc."
            )
    return [entry.attrs["ref"] for entry in options.imported_caches()]


async def refuse_impossible(endpoint: Endpoint, options: BuildOptions) -> None:
    """Ask the engine about caches that not every engine has.

    Raises:
        UnsupportedByEngine: it has one of them not; the message says what would.
        TransportError, ApiError: it cannot be asked.
    """
    exported = {entry.type for entry in options.exported_caches()}
    imported = {entry.type for entry in options.imported_caches()}
    if endpoint.is_buildkitd or not (exported - _GRAPH_EXPORTS or imported - _GRAPH_IMPORTS):
        return
    for kind in sorted((exported | imported) & _ONLY_BUILDKITD):
        raise UnsupportedByEngine(
            f"a Docker engine has no cache of type {kind}; a buildkitd has", hint="type=registry and type=local work."
        )
    from mobysession.build.exports import has_containerd_store
    from mobysession.transport.api import EngineApi

    if has_containerd_store(await EngineApi(endpoint).get_json("/info")):
        return
    store = "Enable the containerd image store in the engine's configuration (Docker 24 and later)"
    for kind in sorted(exported - _GRAPH_EXPORTS):
        raise UnsupportedByEngine(
            f"this engine keeps images in a graph driver, and cannot export cache of type {kind}",
            hint=f"{store}; or use type=inline, and push the image.",
        )
    for kind in sorted(imported - _GRAPH_IMPORTS):
        raise UnsupportedByEngine(
            f"this engine keeps images in a graph driver, and cannot read cache of type {kind}", hint=f"{store}."
        )


def with_github_attributes(entry: CacheEntry) -> CacheEntry:
    """Add to a cache of GitHub's what its runners tell by variables, as buildx does."""
    version = entry.attrs.get("version") or ("2" if parse_bool(os.environ.get("ACTIONS_CACHE_SERVICE_V2", "")) else "")
    results = os.environ.get("ACTIONS_RESULTS_URL")
    wanted = {
        "token": os.environ.get("ACTIONS_RUNTIME_TOKEN"),
        "url_v2": results if version == "2" else None,
        "url": os.environ.get("ACTIONS_CACHE_URL", results),
    }
    added = {key: value for key, value in wanted.items() if value is not None}
    return CacheEntry(entry.type, {**added, **entry.attrs})


def with_aws_attributes(entry: CacheEntry) -> CacheEntry:
    """Add to a cache in S3 the credentials of the environment, unless it has its own.

    buildx asks AWS's library for them, which looks into files and services too; the engine does that by itself.
    """
    if {"access_key_id", "secret_access_key"} <= entry.attrs.keys():
        return entry
    names = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    }
    added = {key: value for key, name in names.items() if (value := os.environ.get(name))}
    return CacheEntry(entry.type, {**added, **entry.attrs})


def is_reachable(entry: CacheEntry) -> bool:
    """Tell whether a cache can be used at all: GitHub's is only on its runners, and elsewhere nobody shall fail."""
    return entry.type != "gha" or (bool(entry.attrs.get("token")) and any(map(entry.attrs.get, ("url", "url_v2"))))
