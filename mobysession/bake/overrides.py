"""``--set``: what is changed in targets once they are read, as ``TARGET.KEY=VALUE`` with ``*`` in names of targets.

What is said of a list several times is a list; ``+=`` adds to what the target has. An override is applied where the
target is resolved, so that whoever inherits from it inherits that too.

Source: docker/buildx bake/bake.go, newOverrides and AddOverrides.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.bake.entries import ENTRIES, Entry, merge_entries, read_entries
from mobysession.bake.target import ATTRIBUTES, Target
from mobysession.bake.values import parse_flag
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Override", "apply_overrides", "matching", "parse_overrides"]

#: What a key of ``--set`` is called in a target, where that differs.
_NAMES: Final = {"platform": "platforms", "secrets": "secret", "outputs": "output"}
#: Lists to which an override always adds.
_ONLY_ADDED: Final = ("annotations", "entitlements", "attest")
_IN_ENGINE: Final = ("image", "registry", "oci")


class Override(NamedTuple):
    """One change: which attribute, which of its names in a table, whether it adds, and the values given."""

    attribute: str
    name: str
    adds: bool
    values: tuple[str, ...]


def parse_overrides(given: Sequence[str], targets: Collection[str]) -> dict[str, list[Override]]:
    """Return the overrides of each target.

    Raises:
        UsageError: one cannot be read, or matches no target.
    """
    found: dict[str, dict[tuple[str, str], Override]] = {}
    for text in given:
        override = _parse(text)
        if override is None:
            continue
        for target in _targets(text, targets):
            of_target = found.setdefault(target, {})
            key = (override.attribute, override.name)
            earlier = of_target.get(key)
            several = earlier is not None and _takes_several(override.attribute)
            values = (earlier.values if earlier is not None and several else ()) + override.values
            of_target[key] = override._replace(values=values)
    return {target: sorted(changes.values(), key=_order) for target, changes in found.items()}


def _order(override: Override) -> int:
    """Return the place of an override: what depends on the outputs comes after them, and one secret after all."""
    return {"push": 2, "load": 3}.get(override.attribute, 1 if override.attribute == "secret" and override.name else 0)


def _takes_several(attribute: str) -> bool:
    return attribute in ATTRIBUTES and ATTRIBUTES[attribute].kind in ("list", "entries")


def _parse(text: str) -> Override | None:
    key, separator, value = text.partition("=")
    adds = separator == "=" and key.endswith("+")
    target, _, rest = key.removesuffix("+").partition(".")
    attribute, _, name = rest.partition(".")
    if not target or not attribute:
        raise UsageError(f"--set {text!r} is not TARGET.KEY=VALUE")
    if attribute == "secret" and not name:
        raise UsageError(f"--set {text!r}: secret needs the secret's ID", hint="Write TARGET.secret.ID=src=FILE.")
    attribute = _NAMES.get(attribute, attribute)
    if attribute == "inherits" or attribute not in (*ATTRIBUTES, "push", "load"):
        raise UsageError(f"--set {text!r}: a target has no {attribute!r} that could be set")
    if attribute in ATTRIBUTES and ATTRIBUTES[attribute].kind == "map" and not name:
        raise UsageError(f"--set {text!r}: {attribute} needs a name", hint=f"Write TARGET.{attribute}.NAME=VALUE.")
    if not separator:
        if attribute != "args":
            raise UsageError(f"--set {text!r} has no value")
        return Override("args", name, False, (os.environ[name],)) if name in os.environ else None
    return Override(attribute, name, adds, (value,))


def _targets(text: str, targets: Collection[str]) -> list[str]:
    pattern = text.partition("=")[0].partition(".")[0]
    if pattern in targets:
        return [pattern]
    found = [target for target in targets if fnmatchcase(target, pattern)]
    if not found:
        raise UsageError(f"--set {text!r}: there is no target {pattern!r}")
    return found


def matching(pattern: str, names: Collection[str]) -> list[str]:
    """Return the names that a pattern stands for, a plain name for itself; UsageError where it stands for none."""
    if not any(letter in pattern for letter in "*?[]"):
        return [pattern]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(f"no target matches {pattern!r}")
    return found


def apply_overrides(target: Target, overrides: Sequence[Override]) -> Target:
    """Return a target with what was set; the given one is not changed."""
    changed = dict(target)
    for override in overrides:
        _apply(changed, override)
    return changed


def _apply(target: Target, override: Override) -> None:
    attribute, values = override.attribute, list(override.values)
    if attribute in ("push", "load"):
        change = _pushed if attribute == "push" else _loaded
        target["output"] = change(target.get("output") or [], parse_flag(values[-1], attribute))
        return
    if attribute == "secret" and override.name:
        target["secret"] = _one_secret(target.get("secret") or [], override.name, values[-1])
        return
    kind = ATTRIBUTES[attribute].kind
    if kind == "map":
        target[attribute] = {**(target.get(attribute) or {}), override.name: values[-1]}
    elif kind == "flag":
        target[attribute] = parse_flag(values[-1], attribute)
    elif kind == "text":
        target[attribute] = values[-1]
    else:
        _change_list(target, override)


def _change_list(target: Target, override: Override) -> None:
    attribute = override.attribute
    adds = override.adds or attribute in _ONLY_ADDED
    earlier = (target.get(attribute) or []) if adds else []
    if attribute in ENTRIES:
        entries = read_entries(attribute, list(override.values))
        target[attribute] = merge_entries(attribute, earlier, entries) if adds else entries
    else:
        target[attribute] = [*earlier, *override.values]


def _one_secret(secrets: list[Entry], name: str, value: str) -> list[Entry]:
    """Return the secrets with another source for one of them."""
    given = read_entries("secret", [value if "=" in value else f"src={value}"])[0]
    entry = {"id": name, **{key: text for key, text in given.items() if key != "id"}}
    if any(secret.get("id") == name for secret in secrets):
        return [entry if secret.get("id") == name else secret for secret in secrets]
    return [*secrets, entry]


def _pushed(outputs: list[Entry], push: bool) -> list[Entry]:
    """Return the outputs for ``push``: images among them are sent to registries, or just not."""
    changed = [
        {**entry, "push": "true" if push else "false"} if entry["type"] == "image" else entry for entry in outputs
    ]
    changed = [dict(sorted(entry.items())) for entry in changed]
    if not push:
        return [entry for entry in changed if entry["type"] != "registry"]
    if all(entry["type"] == "docker" for entry in outputs):
        changed.append({"push": "true", "type": "image"})
    return changed


def _loaded(outputs: list[Entry], load: bool) -> list[Entry]:
    """Return the outputs for ``load``: with the engine's store as one more, where all of them are images."""
    if not load:
        return outputs
    for entry in outputs:
        if entry["type"] == "docker" and not entry.get("dest"):
            return outputs
        if entry["type"] not in (*_IN_ENGINE, "docker"):
            return outputs
    return [*outputs, {"type": "docker"}]
