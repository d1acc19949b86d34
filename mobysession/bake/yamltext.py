"""Reading YAML as compose files mean it: YAML 1.2's plain values, and nothing that makes objects.

Of what PyYAML reads by default, ``yes`` and ``on`` are no truth values here, ``1:30`` is no number, dates are texts.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from mobysession import limits
from mobysession.errors import BakeError

if TYPE_CHECKING:
    import yaml

__all__ = ["parse_yaml"]


def parse_yaml(text: str, file: str) -> object:
    """Return the value of a YAML document; BakeError where it is none, or its aliases make too much of it."""
    try:
        import yaml
    except ImportError:
        hint = "Install mobysession[bake]."
        raise BakeError("compose files need the package PyYAML, which is not installed", hint=hint, file=file) from None
    try:
        document: object = yaml.load(text, Loader=_loader())  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise BakeError(f"this is no YAML: {error.problem}", file=file, line=line) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BakeError(f"this is no YAML: {error}", file=file) from None
    except RecursionError:
        raise BakeError("nested too deeply", file=file) from None
    _Count(file).see(document, 0)
    return document


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's, with the plain values of YAML 1.2."""

    Loader.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    add: Any = Loader.add_implicit_resolver
    add("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    add("tag:yaml.org,2002:int", re.compile("^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
    decimal = r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?)$"
    add("tag:yaml.org,2002:float", re.compile(decimal), list("-+0123456789."))
    return Loader


class _Count:
    """Counts the nodes of a document, those of an alias as often as it stands there."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = limits.MAX_BAKE_VALUES

    def see(self, node: object, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > limits.MAX_BAKE_DEPTH:
            raise BakeError("its aliases make too much of it, or it is nested too deeply", file=self._file)
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            self.see(inner, depth + 1)
