"""The keywords of the functions that build, for type checkers and editors: what follows ``**`` in their signatures.

A wrapper of one's own has the same checks and completion::

    from typing import Unpack
    from mobysession.build import BuildKeywords

    def build_ours(context: str, **options: Unpack[BuildKeywords]) -> BuildResult:
        options.setdefault("labels", {"team": "ours"})
        return build(context, **options)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from mobysession.build.annotations import Annotation
    from mobysession.build.attests import Attest
    from mobysession.build.cache import CacheEntry
    from mobysession.build.calls import Call
    from mobysession.build.exports import Output
    from mobysession.build.many import OnStatus
    from mobysession.build.options import Attach, Driver, Ulimit
    from mobysession.filesync.sources import SourceLike
    from mobysession.progress.view import View
    from mobysession.rpc.registrar import Attachable
    from mobysession.services.credentials import CredentialsFrom
    from mobysession.services.secrets import SecretSource
    from mobysession.services.ssh import SshAgents
    from mobysession.session.access import Access
    from mobysession.session.tracing import Tracing
    from mobysession.transport.endpoint import Endpoint

__all__ = ["BuildKeywords", "CommonKeywords", "ManyKeywords"]


class CommonKeywords(TypedDict, total=False):
    """Fields of `BuildOptions` that are the caller's, and so the same for all targets of a bake file."""

    credentials: CredentialsFrom | None
    services: Sequence[Attachable]
    access: Access | None
    tracing: Tracing | Literal[False] | None
    driver: Driver
    attach: Attach
    strict: bool
    source_policy: str | os.PathLike[str] | Mapping[str, object] | None
    cgroup_parent: str | None
    frontend_attrs: Mapping[str, str]


class BuildKeywords(CommonKeywords, total=False):
    """The fields of `BuildOptions` but its context, which goes first and without its name."""

    build_contexts: Mapping[str, SourceLike]
    file: str | os.PathLike[str] | None
    tags: Sequence[str]
    target: str | None
    build_args: Mapping[str, str | None]
    labels: Mapping[str, str]
    no_cache: bool
    no_cache_filter: Sequence[str]
    pull: bool
    platforms: Sequence[str]
    add_hosts: Sequence[str]
    network: str
    shm_size: int | str | None
    ulimits: Sequence[str | Ulimit]
    secrets: Mapping[str, SecretSource]
    ssh: SshAgents
    cache_from: Sequence[str | CacheEntry]
    cache_to: Sequence[str | CacheEntry]
    outputs: Sequence[str | Output]
    push: bool
    load: bool
    annotations: Mapping[str, str] | Sequence[str | Annotation]
    attests: Sequence[str | Attest]
    provenance: bool | str | None
    sbom: bool | str | None
    allow: Sequence[str]
    call: str | Call | None
    image_config: Mapping[str, Any] | None
    iidfile: str | os.PathLike[str] | None
    metadata_file: str | os.PathLike[str] | None
    timeline: str | os.PathLike[str] | None


class ManyKeywords(TypedDict, total=False):
    """The keywords of `mobysession.build.build_many` but ``return_errors``, which its result depends on."""

    names: Sequence[str]
    endpoint: Endpoint | None
    at_once: int | None
    progress: str | View | None
    on_status: OnStatus | None
    one_session: bool
    retries: int
