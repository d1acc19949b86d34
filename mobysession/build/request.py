"""What the engine is asked for, made from the options: a solve request, or the query of ``POST /build``.

Nothing here waits; what depends on the engine (its gateway address) comes in as an argument. The attribute names are
those of the frontend ``dockerfile.v0`` (moby/buildkit frontend/dockerui) and of the Engine API's ``/build``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession._pb import control_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.build.options import BuildOptions

__all__ = ["build_query", "frontend_attributes", "solve_request"]


#: What the engine asks a session for instead of the network; see `mobysession.services.upload`.
UPLOADED = "http://buildkit-session/"


def solve_request(
    options: BuildOptions, *, ref: str, session_id: str, dockerfile: str, gateway: str = "", has_store: bool = True
) -> control_pb2.SolveRequest:
    """Return the solve for ``options``.

    The first exporter is named twice: engines before BuildKit 0.13 read only the old fields, later ones prefer the new.
    """
    exporters = _exporters(options) if has_store or options.outputs else []
    kind, attributes = exporters[0] if exporters else ("", {})
    return control_pb2.SolveRequest(
        Ref=ref,
        Session=session_id,
        Frontend="dockerfile.v0",
        FrontendAttrs=frontend_attributes(options, dockerfile=dockerfile, gateway=gateway),
        ExporterDeprecated=kind,
        ExporterAttrsDeprecated=attributes,
        Exporters=[control_pb2.Exporter(Type=kind, Attrs=attributes) for kind, attributes in exporters],
        Entitlements=["network.host"] if options.network == "host" else [],
        Cache=_caches(options),
    )


def _caches(options: BuildOptions) -> control_pb2.CacheOptions:
    """Return the caches; the message has to be there even without any, or some engines crash."""
    if not options.cache_from and not options.cache_to:
        return control_pb2.CacheOptions()
    return control_pb2.CacheOptions(
        Exports=[control_pb2.CacheOptionsEntry(Type=one.type, Attrs=one.attrs) for one in options.exported_caches()],
        Imports=[control_pb2.CacheOptionsEntry(Type=one.type, Attrs=one.attrs) for one in options.imported_caches()],
    )


def _exporters(options: BuildOptions) -> list[tuple[str, dict[str, str]]]:
    if not options.outputs:
        return [("moby", {"name": ",".join(options.tags)} if options.tags else {})]
    from mobysession.build.exports import exports_of  # only for who has outputs: start-up

    return [(export.type, export.attributes) for export in exports_of(options.exports(), options.tags)]


def frontend_attributes(options: BuildOptions, *, dockerfile: str, gateway: str = "") -> dict[str, str]:
    """Return the attributes of ``dockerfile.v0``; ``gateway`` replaces ``host-gateway`` in hosts."""
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
        attributes["platform"] = ",".join(options.platforms)
    if options.no_cache:
        attributes["no-cache"] = ""
    elif options.no_cache_filter:
        attributes["no-cache"] = ",".join(options.no_cache_filter)
    if options.network != "default":
        attributes["force-network-mode"] = options.network
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
    attributes.update({f"build-arg:{name}": value for name, value in options.arguments().items()})
    attributes.update({f"label:{name}": value for name, value in options.labels.items()})
    return attributes


def _named_contexts(options: BuildOptions) -> dict[str, str]:
    if not options.build_contexts:
        return {}
    from mobysession.build.contexts import is_remote, local_name  # only for who has some: start-up

    return {
        f"context:{name}": given if isinstance(given, str) and is_remote(given) else f"local:{local_name(name)}"
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
        ("remote", "client-session"),
        ("buildid", build_id),
        ("dockerfile", dockerfile),
        ("rm", "1"),
    ]
    query += [("t", tag) for tag in options.tags]
    query += [("extrahosts", f"{host}:{address}") for host, address in options.hosts()]
    if options.target:
        query.append(("target", options.target))
    if options.platforms:
        query.append(("platform", ",".join(options.platforms)))
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
    if options.labels:
        query.append(("labels", json.dumps(dict(options.labels))))
    return query


def _csv(values: Iterable[str]) -> str:
    import csv  # only for who adds hosts or limits: start-up
    import io

    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
