"""What the engine is asked for, made from the options: a solve request, or the query of ``POST /build``.

Nothing here waits; what depends on the engine (its gateway address) comes in as an argument. The attribute names are
those of the frontend ``dockerfile.v0`` (moby/buildkit frontend/dockerui) and of the Engine API's ``/build``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession._pb import control_pb2
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mobysession._pb import sourcepolicy_pb2
    from mobysession.build.options import BuildOptions

__all__ = ["build_query", "frontend_attributes", "solve_request"]


#: What the engine asks a session for instead of the network; see `mobysession.services.upload`.
UPLOADED = "http://buildkit-session/"


def solve_request(
    options: BuildOptions,
    *,
    ref: str,
    session_id: str,
    dockerfile: str,
    gateway: str = "",
    has_store: bool = True,
    attests: bool = False,
) -> control_pb2.SolveRequest:
    """Return the solve for ``options``.

    The first exporter is named twice: engines before BuildKit 0.13 read only the old fields, later ones prefer the new.
    ``attests`` tells that the result can hold attestations, so that one is asked for where nobody says otherwise.
    """
    exporters = _exporters(options, has_store=has_store)
    kind, attributes = exporters[0] if exporters else ("", {})
    asked = frontend_attributes(options, dockerfile=dockerfile, gateway=gateway, attests=attests)
    return control_pb2.SolveRequest(
        Ref=ref,
        Session=session_id,
        Frontend="gateway.v0" if "source" in asked else "dockerfile.v0",
        FrontendAttrs=asked,
        ExporterDeprecated=kind,
        ExporterAttrsDeprecated=attributes,
        Exporters=[control_pb2.Exporter(Type=kind, Attrs=attributes) for kind, attributes in exporters],
        Entitlements=_entitlements(options),
        Cache=_caches(options),
        Internal=options.called() is not None,
        SourcePolicy=_source_policy(options),
    )


def _entitlements(options: BuildOptions) -> list[str]:
    return [*options.allow, "network.host"] if options.network == "host" else list(options.allow)


def _source_policy(options: BuildOptions) -> sourcepolicy_pb2.Policy | None:
    if options.source_policy is None:
        return None
    from mobysession.build.source_policy import parse_source_policy  # only for who has one: start-up

    return parse_source_policy(options.source_policy)


def _caches(options: BuildOptions) -> control_pb2.CacheOptions:
    """Return the caches; the message has to be there even without any, or some engines crash."""
    if not options.cache_from and not options.cache_to:
        return control_pb2.CacheOptions()
    return control_pb2.CacheOptions(
        Exports=[control_pb2.CacheOptionsEntry(Type=one.type, Attrs=one.attrs) for one in options.exported_caches()],
        Imports=[control_pb2.CacheOptionsEntry(Type=one.type, Attrs=one.attrs) for one in options.imported_caches()],
    )


def _exporters(options: BuildOptions, *, has_store: bool = True) -> list[tuple[str, dict[str, str]]]:
    if not options.outputs:
        exporters = [("moby", {"name": ",".join(options.tags)} if options.tags else {})]
        if not has_store or options.called() is not None:
            return []
    else:
        from mobysession.build.exports import exports_of  # only for who has outputs: start-up

        exporters = [(export.type, export.attributes) for export in exports_of(options.exports(), options.tags)]
        if not has_store:
            exporters = [("image" if kind == "moby" else kind, attributes) for kind, attributes in exporters]
    if options.annotations:
        from mobysession.build.annotations import annotation_attributes  # only for who has some: start-up

        for _, attributes in exporters:
            attributes.update(annotation_attributes(options.annotated()))
    return exporters


def frontend_attributes(
    options: BuildOptions, *, dockerfile: str, gateway: str = "", attests: bool = False
) -> dict[str, str]:
    """Return the attributes of ``dockerfile.v0``.

    Args:
        options: the build.
        dockerfile: the name of the Dockerfile in its directory.
        gateway: replaces ``host-gateway`` in hosts.
        attests: whether the result can hold attestations.
    """
    attributes = {
        "filename": dockerfile,
        # An engine resolves base images from its own store first, as docker's CLI asks it to.
        "image-resolve-mode": "pull" if options.pull else "local",
    }
    if isinstance(options.context, str) and options.context.startswith(UPLOADED):
        attributes["context"] = options.context
    if options.target:
        attributes["target"] = options.target
    if options.platforms:
        attributes["platform"] = ",".join(options.built_for())
    if options.no_cache:
        attributes["no-cache"] = ""
    elif options.no_cache_filter:
        attributes["no-cache"] = ",".join(options.no_cache_filter)
    if options.network != "default":
        attributes["force-network-mode"] = options.network
    if options.cgroup_parent:
        attributes["cgroup-parent"] = options.cgroup_parent
    hosts = [f"{host}={address}" for host, address in resolved_hosts(options, gateway)]
    if hosts:
        attributes["add-hosts"] = _csv(hosts)
    if (size := options.shm_bytes()) is not None:
        attributes["shm-size"] = str(size)
    if limits := options.limits():
        attributes["ulimit"] = _csv(str(limit) for limit in limits)
    attributes.update(_named_contexts(options))
    if imported := options.imported_caches():
        from mobysession.build.cache import cache_imports  # only for who has caches: start-up

        attributes["cache-imports"] = cache_imports(imported)
    if attests or options.attests or options.provenance or options.sbom:
        from mobysession.build.attests import attest_attributes

        attributes.update(attest_attributes(options.attested(), default=attests))
    arguments = options.arguments()
    attributes.update({f"build-arg:{name}": value for name, value in arguments.items()})
    attributes.update({f"label:{name}": value for name, value in options.labels.items()})
    if not _MEANT.isdisjoint(arguments):
        attributes.update(_meant_by_arguments(arguments))
    attributes.update(options.frontend_attrs)
    return attributes


#: Build arguments that are more than that.
_MEANT = frozenset(("BUILDKIT_SYNTAX", "BUILDKIT_MULTI_PLATFORM"))


def _meant_by_arguments(arguments: Mapping[str, str]) -> dict[str, str]:
    from mobysession.build.fields import parse_bool  # only for who has such arguments: start-up

    attributes: dict[str, str] = {}
    syntax = arguments.get("BUILDKIT_SYNTAX")
    if syntax is not None:
        if not syntax.strip():
            raise UsageError("the build argument BUILDKIT_SYNTAX is empty", hint="Name the image of a frontend.")
        attributes |= {"source": syntax.split()[0], "cmdline": syntax}
    if parse_bool(arguments.get("BUILDKIT_MULTI_PLATFORM", "")):
        attributes["multi-platform"] = "true"
    return attributes


def _named_contexts(options: BuildOptions) -> dict[str, str]:
    if not options.build_contexts:
        return {}
    from mobysession.build.contexts import context_name, is_remote, local_name  # only for who has some: start-up

    return {
        f"context:{context_name(name)}": given
        if isinstance(given, str) and is_remote(given)
        else f"local:{local_name(name)}"
        for name, given in options.build_contexts.items()
    }


def resolved_hosts(options: BuildOptions, gateway: str) -> list[tuple[str, str]]:
    """Return (host, address) pairs, one for each of the gateway's addresses where ``host-gateway`` was asked for."""
    pairs = []
    for host, address in options.hosts():
        addresses = gateway.split(",") if address == "host-gateway" and gateway else [address]
        pairs += [(host, one) for one in addresses]
    return pairs


def build_query(options: BuildOptions, *, build_id: str, session_id: str, dockerfile: str) -> list[tuple[str, str]]:
    """Return the query of ``POST /build`` for a context that comes through session ``session_id``.

    Without ``outputs`` the engine exports to its image store, as it does for `solve_request`.
    """
    query = [
        ("version", "2"),
        ("session", session_id),
        # Of what prepares a build only an address of the context can be told here.
        ("remote", options.frontend_attrs.get("context", "client-session")),
        ("buildid", build_id),
        ("dockerfile", dockerfile),
        ("rm", "1"),
    ]
    query += [("t", tag) for tag in options.tags]
    query += [("extrahosts", f"{host}:{address}") for host, address in options.hosts()]
    if options.target:
        query.append(("target", options.target))
    if options.platforms:
        query.append(("platform", ",".join(options.built_for())))
    if options.no_cache:
        query.append(("nocache", "1"))
    if options.pull:
        query.append(("pull", "1"))
    if options.network != "default":
        query.append(("networkmode", options.network))
    if (size := options.shm_bytes()) is not None:
        query.append(("shmsize", str(size)))
    import json  # only for the classic driver: start-up

    if options.outputs:
        # Nothing but the cache is an output here, unlike in a solve.
        asked = [{"Type": kind, "Attrs": attributes} for kind, attributes in _exporters(options)]
        query.append(("outputs", json.dumps(asked or [{"Type": "cacheonly", "Attrs": {}}])))
    if options.cache_from or options.cache_to:
        from mobysession.build.cache import plain_registries

        query.append(("cachefrom", json.dumps(plain_registries(options))))
    if limits := options.limits():
        listed = [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in limits]
        query.append(("ulimits", json.dumps(listed)))
    if arguments := options.arguments():
        query.append(("buildargs", json.dumps(arguments)))
    labels = {
        # What git knows of a context may be labels.
        **{
            key.removeprefix("label:"): text for key, text in options.frontend_attrs.items() if key.startswith("label:")
        },
        **options.labels,
    }
    if labels:
        query.append(("labels", json.dumps(labels)))
    return query


def _csv(values: Iterable[str]) -> str:
    import csv  # only for who adds hosts or limits: start-up
    import io

    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
