"""A definition: groups and targets by name as the files have them, and what a choice of targets comes to.

Groups stand for their targets, targets inherit from others, and a target may have another one as a named context,
which is then built with it. What comes out is a `Selection`, which is what ``--print`` shows.

Source: docker/buildx bake/bake.go, ReadTargets, ResolveGroup, ResolveTarget and loadLinks.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mobysession import limits
from mobysession.bake.overrides import Override, apply_overrides, matching, parse_overrides
from mobysession.bake.target import ATTRIBUTES, Target, merge_targets, normalize
from mobysession.bake.texts import escape_json
from mobysession.build.contexts import is_remote
from mobysession.errors import BakeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Definition", "Group", "Selection", "Variable", "linked_names", "platforms_of", "valid_name"]

#: What a name stands for: targets, and the groups that they came by.
_Expanded: TypeAlias = "tuple[list[str], list[str]]"


@dataclass
class Group:
    """Targets and groups under one name."""

    targets: list[str]
    description: str = ""


@dataclass(frozen=True)
class Variable:
    """A variable of a definition; ``value`` is None where it is null."""

    name: str
    value: str | None
    type: str = ""
    description: str = ""


@dataclass
class Definition:
    """Groups, targets and variables by name, as read from files; see `mobysession.bake.read.read_definition`."""

    groups: dict[str, Group] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of groups, then of targets, each once."""
        return list(dict.fromkeys([*self.groups, *self.targets]))

    def add(self, name: str, target: Target) -> None:
        """Add what one more place says of a target."""
        earlier = self.targets.get(name)
        self.targets[name] = merge_targets(earlier, target) if earlier is not None else target
        if len(self.targets) > limits.MAX_BAKE_TARGETS:
            raise BakeError(f"there are more than {limits.MAX_BAKE_TARGETS} targets")

    def select(self, names: Sequence[str] = (), sets: Sequence[str] = ()) -> Selection:
        """Return the targets that ``names`` stand for, resolved, and those that they are linked to.

        Args:
            names: targets, groups, or patterns of them; none is ``default``.
            sets: overrides, as ``TARGET.KEY=VALUE``.

        Raises:
            UsageError: there is no such target, or the definition contradicts itself.
        """
        wanted: dict[str, None] = {}
        for name in names or ("default",):
            wanted.update(dict.fromkeys(matching(name.replace(".", "_"), self.names)))
        resolver = _Resolver(self, parse_overrides(sets, self.targets))
        chosen = Selection()
        try:
            for name in wanted:
                self._choose(name, resolver, chosen)
            for name in list(chosen.targets):
                resolver.link(name, chosen, ())
        except RecursionError:
            raise BakeError("groups or targets are nested too deeply") from None
        chosen.groups["default"] = _default_group(chosen.groups.get("default"), wanted)
        for resolved in chosen.targets.values():
            _complete(resolved)
        return chosen

    def _choose(self, name: str, resolver: _Resolver, chosen: Selection) -> None:
        """Add the targets that a name stands for; BakeError where it stands for none."""
        targets, groups = self.expand(name)
        if not targets:
            raise BakeError(f"the group {name!r} has no targets")
        for target in targets:
            resolver.choose(target, chosen)
        for group in groups:
            chosen.groups[group] = self.groups[group]

    def expand(self, name: str, seen: dict[str, _Expanded] | None = None) -> _Expanded:
        """Return the targets and groups that a name stands for, each once.

        Within a group its own name stands for a target, as does that of a group without targets. ``seen`` is what
        groups are known to stand for, nothing yet for those that the name is in.
        """
        seen = {} if seen is None else seen
        group = self.groups.get(name)
        if group is None or name in seen:
            return seen.get(name, ([name], []))
        seen[name] = [], []
        targets: dict[str, None] = {}
        groups = {name: None}
        for inner in group.targets:
            of_inner, below = self.expand(inner, seen)
            targets.update(dict.fromkeys(of_inner or [inner]))
            groups.update(dict.fromkeys(below))
        seen[name] = list(targets), list(groups)
        return seen[name]


def _complete(target: Target) -> None:
    """Give a target the epoch of the environment, and a context as a build takes it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch and "SOURCE_DATE_EPOCH" not in target.get("args", ()):
        target["args"] = {**target.get("args", {}), "SOURCE_DATE_EPOCH": epoch}
    context = target["context"]
    if context.startswith("cwd://") or not is_remote(context):
        target["context"] = posixpath.normpath(context.removeprefix("cwd://") or ".")


def _default_group(group: Group | None, wanted: Mapping[str, None]) -> Group:
    """Return the group that says what was asked for."""
    more = [name for name in wanted if group is None or name != "default"]
    targets = sorted({*(group.targets if group is not None else ()), *more})
    return Group(targets, group.description if group is not None else "")


@dataclass
class Selection:
    """What is to be built: resolved targets by name, the groups they came by, and those only built for others.

    ``overrides`` are those that a target has, and those of the targets that it inherits from.
    """

    groups: dict[str, Group] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    overrides: dict[str, list[Override]] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return it as JSON, letter for letter as ``docker buildx bake --print`` does."""
        import json

        shown: dict[str, Any] = {
            "group": {name: _shown_group(group) for name, group in sorted(self.groups.items())},
            "target": {name: _shown_target(target) for name, target in sorted(self.targets.items())},
        }
        return escape_json(json.dumps(shown, indent=2, ensure_ascii=False))


def _shown_group(group: Group) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": group.description} if group.description else {}
    return {**shown, "targets": group.targets}


def _shown_target(target: Target) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, attribute in ATTRIBUTES.items():
        value: Any = target.get(name)
        if value is None or (not value and (attribute.kind not in ("text", "flag") or name == "description")):
            continue
        if attribute.kind == "map":
            value = dict(sorted(value.items()))
        if name in ("labels", "args", "extra-hosts"):
            value = {key: _escaped(text) for key, text in value.items()}
        elif name == "annotations":
            value = [_escaped(text) for text in value]
        elif name == "dockerfile-inline":
            value = _escaped(value)
        shown[name] = value
    return shown


def _escaped(text: str) -> str:
    """Return a text that a bake file has to hold for this one to come out."""
    return text.replace("${", "$${").replace("%{", "%%{")


class _Resolver:
    """Resolves targets, each once."""

    def __init__(self, definition: Definition, overrides: Mapping[str, Sequence[Override]]) -> None:
        self._definition = definition
        self._overrides = overrides

    def choose(self, name: str, chosen: Selection) -> None:
        """Add a target with all that it inherits; BakeError where it cannot be."""
        done: dict[str, Target] = {}
        target = dict(self._inherited(name, done, ()))
        target.pop("inherits", None)
        target.setdefault("context", ".")
        if not target.get("dockerfile"):
            target["dockerfile"] = "Dockerfile"
        chosen.targets[name] = target
        chosen.overrides[name] = [override for each in done for override in self._overrides.get(each, ())]

    def _inherited(self, name: str, done: dict[str, Target], above: tuple[str, ...]) -> Target:
        if name in done:
            return done[name]
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise BakeError(f"targets inherit from each other in a circle: {circle}")
        own = self._definition.targets.get(name)
        if own is None:
            by = f", which {above[-1]!r} inherits from" if above else ""
            if name in self._definition.groups:
                by += ", only a group of that name"
            raise BakeError(f"there is no target {name!r}{by}", hint=self._hint())
        whole: Target = {}
        for parent in own.get("inherits", ()):
            whole = merge_targets(whole, self._inherited(parent, done, (*above, name)))
        whole = apply_overrides(merge_targets(whole, own), self._overrides.get(name, ()))
        done[name] = normalize(whole)
        return done[name]

    def _hint(self) -> str | None:
        names = self._definition.names
        return f"There is {', '.join(sorted(names)[:20])}." if names else "The files have no targets."

    def link(self, name: str, chosen: Selection, above: tuple[str, ...]) -> None:
        """Add the targets that a target has as contexts, and what those need."""
        target = chosen.targets[name]
        for other in linked_names(target):
            if other in (*above, name):
                circle = " -> ".join([*above, name, other])
                raise BakeError(f"targets have each other as contexts in a circle: {circle}")
            if other not in chosen.targets:
                self.choose(other, chosen)
                chosen.targets[other]["output"] = [{"type": "cacheonly"}]
                chosen.linked.add(other)
            self.link(other, chosen, (*above, name))
            _inherit_needs(name, target, other, chosen.targets[other])


def _inherit_needs(name: str, target: Target, other: str, linked: Target) -> None:
    """Give a target the entitlements of one that it is built on, and see that their platforms agree."""
    needed = dict.fromkeys([*target.get("entitlements", ()), *linked.get("entitlements", ())])
    if needed:
        target["entitlements"] = list(needed)
    mine, theirs = platforms_of(target), platforms_of(linked)
    if len(mine) > 1 and len(theirs) > 1 and not set(mine) <= set(theirs):
        raise BakeError(f"target {other!r} is not built for all platforms of {name!r}, which has it as a context")


def platforms_of(target: Target) -> list[str]:
    """Return the platforms of a target, each once; one text may name several, with commas between them."""
    return list(dict.fromkeys(platform for text in target.get("platforms", ()) for platform in text.split(",")))


def linked_names(target: Target) -> list[str]:
    """Return the targets that a target has as contexts, each once."""
    named = target.get("contexts") or {}
    return list(dict.fromkeys(v.removeprefix("target:") for v in named.values() if v.startswith("target:")))


def valid_name(name: str) -> str:
    """Return the name of a target or group; BakeError where no target may be called that."""
    if re.fullmatch(r"[a-zA-Z0-9_-]+", name) is None:
        raise BakeError(f"{name!r} is no name of a target", hint="Letters, digits, _ and - are allowed.")
    return name
