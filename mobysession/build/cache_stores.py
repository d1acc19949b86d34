"""The directories of this machine that a build reads cache and images from, or writes cache to.

Before the build they are looked at, and each becomes a store of the Content service. After it, what the engine has
written is put into their indexes.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.build.cache import CacheEntry, is_reachable, with_aws_attributes, with_github_attributes
from mobysession.build.layouts import LAYOUT_SCHEME, find_layout
from mobysession.errors import ContextError, MobysessionError, OutputError, UsageError
from mobysession.jsontext import parse_json
from mobysession.services.oci_layout import OciLayout, parse_digest
from mobysession.services.oci_layout_index import find_descriptor, parse_descriptor, put_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.build.layout_output import LayoutOutput
    from mobysession.build.options import BuildOptions
    from mobysession.redaction import Redactor
    from mobysession.services.content import Content

__all__ = ["LocalStores", "make_layout", "open_stores"]

_log = logging.getLogger("mobysession.build")

#: How the daemon calls the store of a cache, before the directory as it was written (BuildKit cache/remotecache/local).
_LOCAL: Final = "local:"
#: The key of the engine's response under which the descriptor of what it exported is.
_MANIFEST: Final = "cache.manifest"


class LocalStores(NamedTuple):
    """What a build uses of this machine's OCI layouts.

    Attributes:
        options: the build, with digests in place of tags, and without caches that are not there.
        stores: for the Content service.
        exported: caches that the build writes.
        output: the directory that the image is written to as a layout.
    """

    options: BuildOptions
    stores: Mapping[str, OciLayout]
    exported: tuple[CacheEntry, ...]
    output: LayoutOutput | None = None

    def service(self) -> Content | None:
        """Return what serves the stores; None where there are none."""
        if not self.stores:
            return None
        from mobysession.services.content import Content  # only for who has some: start-up

        return Content(self.stores)

    def write_indexes(self, response: Mapping[str, str]) -> None:
        """Put what the engine has exported into the indexes of the local caches; blocking.

        Raises:
            OutputError: it did not export, or an index cannot be written.
        """
        for entry in self.exported:
            try:
                self._write_index(entry, response)
            except OutputError as error:
                if not entry.ignores_errors:
                    raise
                _log.warning("%s", error.message)

    def _write_index(self, entry: CacheEntry, response: Mapping[str, str]) -> None:
        dest = entry.attrs["dest"]
        layout = self.stores[_LOCAL + dest]
        try:
            descriptor = parse_descriptor(parse_json(response.get(_MANIFEST, "")))
            is_there = layout.has(descriptor.digest)
        except (ValueError, ContextError):
            is_there, descriptor = False, None
        if descriptor is None or not is_there:
            raise OutputError(
                f"the engine has finished the build and not exported its cache to {dest!r}",
                path=dest,
                hint="Its log may say why.",
            )
        put_descriptor(layout, descriptor, tag=entry.attrs.get("tag", "latest"))
        if entry.resets:
            from mobysession.services.oci_layout_prune import prune

            prune(layout)


def open_stores(options: BuildOptions, redactor: Redactor) -> LocalStores:
    """Look at the caches and layouts of a build; blocking.

    Args:
        options: the build.
        redactor: learns the tokens of caches.

    Raises:
        UsageError: two caches are written to one directory.
        ContextError: a layout cannot be read, or has no such image.
        OutputError: a cache cannot be written.
    """
    stores: dict[str, OciLayout] = {}
    contexts = dict(options.build_contexts)
    for name, given in contexts.items():
        if isinstance(given, str) and given.startswith(LAYOUT_SCHEME):
            store_id, layout, contexts[name] = find_layout(name, given)
            stores[store_id] = layout
    exported = _reachable(options.exported_caches(), redactor)
    written = [entry for entry in exported if entry.type == "local"]
    for entry in written:
        dest = entry.attrs["dest"]
        if _LOCAL + dest in stores:
            raise UsageError(f"two caches are written to {dest!r}")
        stores[_LOCAL + dest] = make_layout(dest)
    found = (_imported(entry, stores) for entry in _reachable(options.imported_caches(), redactor))
    imported = [entry for entry in found if entry is not None]
    resolved = replace(options, build_contexts=contexts, cache_from=imported, cache_to=exported)
    output: LayoutOutput | None = None
    if options.outputs:
        from mobysession.build.layout_output import EXPORT_STORE, open_layout  # only for who has outputs: start-up

        output = open_layout(options.exports())
        if output is not None:
            stores[EXPORT_STORE] = output.layout
    return LocalStores(resolved, stores, tuple(written), output)


def _reachable(entries: Sequence[CacheEntry], redactor: Redactor) -> list[CacheEntry]:
    """Return caches with what the environment knows of them, without those that it knows nothing of, with a warning."""
    known = [_with_token(entry, redactor) for entry in entries]
    for entry in known:
        if not is_reachable(entry):
            _log.warning("the cache of type %s is left out: this is no runner of GitHub's", entry.type)
    return [entry for entry in known if is_reachable(entry)]


def _with_token(entry: CacheEntry, redactor: Redactor) -> CacheEntry:
    if entry.type == "gha":
        entry = with_github_attributes(entry)
    elif entry.type == "s3":
        entry = with_aws_attributes(entry)
    for value in entry.secrets:
        redactor.add(value)
    return entry


def make_layout(dest: str) -> OciLayout:
    """Return a directory, made where it is missing, as a store to be written to; OutputError where it cannot be."""
    layout = OciLayout(os.path.abspath(dest), writable=True)
    try:
        with layout.folder(make=True):
            pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)
        raise OutputError(f"{dest!r} cannot be written: {reason}", path=dest) from error
    if not os.access(layout.path, os.W_OK):
        raise OutputError(f"{dest!r} cannot be written: permission denied", path=dest)
    return layout


def _imported(entry: CacheEntry, stores: dict[str, OciLayout]) -> CacheEntry | None:
    """Return a cache with its digest, and note its store; None, with a warning as of buildx, where it is not there."""
    if entry.type != "local":
        return entry
    src = entry.attrs["src"]
    layout = stores.get(_LOCAL + src) or OciLayout(os.path.abspath(src))
    try:
        digest = entry.attrs.get("digest") or _digest(layout, entry.attrs.get("tag", "latest"))
        parse_digest(digest)
        layout.info(digest)
    except MobysessionError as error:
        _log.warning("the cache in %r is left out: %s", src, error.message)
        return None
    stores[_LOCAL + src] = layout
    return CacheEntry("local", {**entry.attrs, "digest": digest})


def _digest(layout: OciLayout, tag: str) -> str:
    descriptor = find_descriptor(layout, tag)
    if descriptor is None:
        raise ContextError(f"its index.json has no tag {tag!r}")
    return descriptor.digest
