"""Targets of compose files: each service with a ``build`` is one, and all of them are the group ``default``.

Several files are merged before anything is made of them, as compose merges them: tables by their names, lists one
behind the other, all else replaced. What compose has no words for stands under ``x-bake`` of a build.

Source: docker/buildx bake/compose.go; compose-spec build.md, 13-merge.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from mobysession.bake.definition import Definition, Group, valid_name
from mobysession.bake.entries import ENTRIES, merge_entries, read_entries
from mobysession.bake.interpolation import interpolated
from mobysession.bake.target import ATTRIBUTES, Target
from mobysession.bake.values import as_bool, as_text
from mobysession.bake.yamltext import parse_yaml
from mobysession.build.fields import parse_bool
from mobysession.build.options import parse_size
from mobysession.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["is_compose", "read_compose"]

_BUILD: Final = (
    *("context", "dockerfile", "dockerfile_inline", "additional_contexts", "args", "labels", "tags", "cache_from"),
    *("cache_to", "target", "secrets", "ssh", "platforms", "pull", "no_cache", "network", "shm_size", "ulimits"),
    *("extra_hosts", "provenance", "sbom", "entitlements", "isolation", "privileged", "x-bake"),
)
#: What of a build's tables may be written as a list too, and what is between name and value then.
_LISTED: Final = {"args": "=", "labels": "=", "additional_contexts": "=", "extra_hosts": "=", "ssh": "="}
_X_BAKE: Final = (
    *("tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output", "pull", "no-cache", "no-cache-filter"),
    "contexts",
)


def is_compose(document: object) -> bool:
    """Return whether a document looks like a compose file."""
    return isinstance(document, dict) and "services" in document


def read_compose(files: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> Definition:
    """Return the targets of compose files, given as name and text, in order.

    Args:
        files: in the order in which they are merged.
        environment: the variables, those of ``.env`` among them.

    Raises:
        BakeError: one is no compose file, or its builds make no sense.
    """
    merged: dict[str, Any] = {}
    for name, text in files:
        document = parse_yaml(text, name)
        if not isinstance(document, dict):
            raise BakeError("this is no compose file: it has no services", file=name)
        if "include" in document:
            raise BakeError("include is not supported: name the other file with -f", file=name)
        part = {key: document[key] for key in ("services", "secrets") if key in document}
        try:
            merged = _merged(merged, _normal(_filled(part, environment)))
        except UsageError as error:
            raise BakeError(error.message, hint=error.hint, file=name) from None
    return _definition(merged, environment, ", ".join(name for name, _ in files))


def _filled(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return interpolated(node, environment)
    if isinstance(node, list):
        return [_filled(item, environment) for item in node]
    if isinstance(node, dict):
        return {key if isinstance(key, str) else as_text(key): _filled(item, environment) for key, item in node.items()}
    return node


def _normal(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with one way of writing for everything that is merged."""
    services = document.get("services") or {}
    if not isinstance(services, dict):
        raise UsageError("services is a table")
    for name, service in services.items():
        if not isinstance(service, dict | None):
            raise UsageError(f"service {name!r} is a table")
        if service is None:
            continue
        build = service.get("build")
        if isinstance(build, str):
            service["build"] = {"context": build}
        elif isinstance(build, dict):
            service["build"] = {key: _as_table(key, value) for key, value in build.items()}
        elif build is not None:
            raise UsageError(f"build of service {name!r} is a directory or a table")
    return document


def _as_table(key: str, value: Any) -> Any:
    if key not in _LISTED or not isinstance(value, list):
        return value
    table: dict[str, Any] = {}
    for item in value:
        text = as_text(item, key)
        name, separator, given = text.partition("=")
        if not separator and key == "extra_hosts":
            name, separator, given = text.partition(":")
        table[name] = given if separator else None
    return table


def _merged(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **{k: _merged(first[k], v) if k in first else v for k, v in second.items()}}
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *(item for item in second if item not in first)]
    return second


def _definition(document: dict[str, Any], environment: Mapping[str, str], where: str) -> Definition:
    definition = Definition()
    secrets = document.get("secrets") or {}
    names = []
    for service_name, service in (document.get("services") or {}).items():
        if not service or service.get("build") is None:
            continue
        if "extends" in service:
            raise BakeError(f"service {service_name!r}: extends is not supported", file=where)
        try:
            name = valid_name(service_name.replace(".", "_"))
            definition.add(name, _target(service, secrets, environment))
        except UsageError as error:
            raise BakeError(f"service {service_name!r}: {error.message}", hint=error.hint, file=where) from None
        names.append(name)
    if document.get("services"):
        definition.groups["default"] = Group(names)
    return definition


def _target(service: dict[str, Any], secrets: Mapping[str, Any], environment: Mapping[str, str]) -> Target:
    build = {key: value for key, value in service["build"].items() if value is not None}
    for key in build:
        if key not in _BUILD and not key.startswith("x-"):
            raise UsageError(f"build has no {key!r}", hint=f"It has {', '.join(_BUILD)}.")
    target: Target = {}
    for key, name in (("dockerfile", "dockerfile"), ("dockerfile_inline", "dockerfile-inline"), ("target", "target")):
        if build.get(key):
            target[name] = as_text(build[key], key)
    for key in ("context", "network"):
        if build.get(key):
            target[key] = as_text(build[key], key)
    for key, name in (("pull", "pull"), ("no_cache", "no-cache")):
        if key in build and as_bool(build[key], key):
            target[name] = True
    for key in ("tags", "platforms"):
        if key in build:
            target[key] = [as_text(item, key) for item in build[key]]
    if "additional_contexts" in build:
        target["contexts"] = _contexts(build["additional_contexts"])
    target["args"] = _arguments(build.get("args") or {}, service.get("environment"), environment)
    target["labels"] = {
        key: as_text("" if v is None else v, "labels") for key, v in (build.get("labels") or {}).items()
    }
    target["extra-hosts"] = _hosts(build.get("extra_hosts") or {})
    target |= _records(build, secrets)
    if build.get("shm_size"):
        target["shm-size"] = _size(parse_size(build["shm_size"]))
    if "ulimits" in build:
        target["ulimits"] = _ulimits(build["ulimits"])
    _extend(target, build.get("x-bake"))
    if not target.get("tags") and service.get("image"):
        target["tags"] = [as_text(service["image"], "image")]
    return {name: value for name, value in target.items() if value not in ({}, None)}


def _contexts(given: Mapping[str, Any]) -> dict[str, str]:
    contexts = {}
    for name, value in given.items():
        kind, separator, rest = as_text(value, "additional_contexts").partition(":")
        linked = separator and kind in ("service", "target")
        contexts[name] = f"target:{rest.replace('.', '_')}" if linked else _path(as_text(value))
    return contexts


def _path(given: str) -> str:
    """Return a path as compose has it, without what leads nowhere; an address stays as it is."""
    return given if "://" in given else os.path.normpath(given)


def _arguments(given: Mapping[str, Any], own: Any, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments, those without a value from the service's environment, or from ours."""
    if isinstance(own, list):
        own = {name: value if mark else None for name, mark, value in (as_text(i).partition("=") for i in own)}
    known = {**environment, **{key: as_text(value) for key, value in (own or {}).items() if value is not None}}
    filled = {key: known.get(key) if value is None else as_text(value, "args") for key, value in given.items()}
    return {key: value for key, value in filled.items() if value is not None}


def _hosts(given: Mapping[str, Any]) -> dict[str, str]:
    return {
        host: ",".join(map(as_text, address)) if isinstance(address, list) else as_text(address, "extra_hosts")
        for host, address in given.items()
    }


def _records(build: Mapping[str, Any], secrets: Mapping[str, Any]) -> Target:
    found: Target = {}
    for key, name in (("cache_from", "cache-from"), ("cache_to", "cache-to")):
        if build.get(key):
            found[name] = read_entries(name, build[key])
    if build.get("secrets"):
        found["secret"] = [_secret(item, secrets) for item in build["secrets"]]
    if build.get("ssh"):
        ssh = build["ssh"] if isinstance(build["ssh"], dict) else {as_text(build["ssh"]): None}
        found["ssh"] = [
            {"id": key, **({"paths": [as_text(path)]} if path else {})} for key, path in sorted(ssh.items())
        ]
    attests = [_attest(kind, build[kind]) for kind in ("sbom", "provenance") if build.get(kind) not in (None, "")]
    if attests:
        found["attest"] = read_entries("attest", attests)
    return found


def _attest(kind: str, given: Any) -> str:
    text = as_text(given, kind)
    flag = parse_bool(text)
    return f"type={kind},{text}" if flag is None else f"type={kind},disabled={'false' if flag else 'true'}"


def _secret(given: Any, secrets: Mapping[str, Any]) -> dict[str, str]:
    source = as_text(given.get("source") if isinstance(given, dict) else given, "a secret")
    defined = secrets.get(source)
    if not isinstance(defined, dict):
        raise UsageError(f"there is no secret {source!r}")
    if defined.get("external"):
        raise UsageError(f"the secret {source!r} is external, which a build cannot read")
    secret = {"id": source}
    if defined.get("file"):
        secret["src"] = os.path.normpath(as_text(defined["file"]))
    if defined.get("environment"):
        secret["env"] = as_text(defined["environment"])
    return secret


def _size(size: int) -> str:
    """Return a size as docker shows it, in four digits: ``1.5GiB``."""
    number, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.4g}{units[0]}"


def _ulimits(given: Mapping[str, Any]) -> list[str]:
    ulimits = []
    for name, limit in given.items():
        soft, hard = (limit["soft"], limit["hard"]) if isinstance(limit, dict) else (limit, limit)
        ulimits.append(f"{name}={as_text(soft)}:{as_text(hard)}")
    return sorted(ulimits)


def _extend(target: Target, given: Any) -> None:
    """Add what ``x-bake`` says."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise UsageError("x-bake is a table")
    for name, value in given.items():
        if name not in _X_BAKE:
            raise UsageError(f"x-bake has no {name!r}", hint=f"It has {', '.join(_X_BAKE)}.")
        kind = ATTRIBUTES[name].kind
        if value is None:
            continue
        if kind == "flag":
            target[name] = as_bool(value, name)
        elif kind == "map":
            target[name] = {**_contexts(value), **target.get(name, {})}
        else:
            texts = value.split() if isinstance(value, str) else [as_text(item, name) for item in value]
            if name in ENTRIES:
                target[name] = merge_entries(name, target.get(name), read_entries(name, texts))
            else:
                target[name] = list(dict.fromkeys([*target.get(name, ()), *texts]))
    if given.get("ssh"):
        target["ssh"] = sorted(target["ssh"], key=lambda entry: (entry.get("id", ""), entry.get("paths", [])))
