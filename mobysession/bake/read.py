"""Reading definitions: which files there are, of what kind each is, and all of them as one `Definition`.

Without names it is those that are there of the usual ones, compose's first and bake's overrides last. Compose files
are merged among themselves; then come HCL and JSON files, whose blocks add to what there is, in order; then what is
given as dictionaries, which are what a JSON file holds.

Source: docker/buildx bake/bake.go, ReadLocalFiles and ParseFiles.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, Union

from mobysession import limits
from mobysession.bake.definition import Definition
from mobysession.bake.syntax import body_of, parse_hcl, parse_json_body
from mobysession.build.fields import parse_bool
from mobysession.errors import BakeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mobysession.bake.syntax import Body

__all__ = ["FileLike", "read_definition"]

_COMPOSE: Final = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_BAKE: Final = ("docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl")
_STDIN: Final = "-"
#: A path, ``-`` for stdin, or what a JSON file would hold.
FileLike = Union[str, "os.PathLike[str]", "Mapping[str, Any]"]


def read_definition(
    files: Iterable[FileLike] = (),
    *,
    variables: Mapping[str, str] | None = None,
) -> Definition:
    """Return what bake files, compose files and dictionaries say together; blocking.

    Args:
        files: paths, ``-`` for stdin, and dictionaries; none are those of the working directory that have the usual
            names, or that ``BUILDX_BAKE_FILE`` names.
        variables: what overrides variables, over the environment.

    Raises:
        BakeError: there is none, or one cannot be read, or makes no sense; names file and line.
    """
    given = list(files) or _from_environment()
    texts = [(_name(file), _content(file)) for file in given] if given else _usual()
    if not texts:
        hint = f"Name one, or write {_BAKE[1]}, {_BAKE[0]} or {_COMPOSE[0]}."
        raise BakeError(f"there is no bake file in {os.getcwd()}", hint=hint)
    environment = {**(_environment()), **(variables or {})}
    composed: list[tuple[str, str]] = []
    bodies: list[Body] = []
    for name, content in texts:
        body = body_of(content, name) if not isinstance(content, str) else _body(name, content)
        if body is None:
            composed.append((name, str(content)))
        else:
            bodies.append(body)
    definition = _composed(composed, environment) if composed else Definition()
    if bodies:
        from mobysession.bake.scope import Files

        Files(bodies, environment, _constants()).define(definition)
    return definition


def _composed(files: Sequence[tuple[str, str]], environment: Mapping[str, str]) -> Definition:
    from mobysession.bake.compose import read_compose
    from mobysession.bake.interpolation import with_env_file

    return read_compose(files, with_env_file(environment))


def _body(name: str, text: str) -> Body | None:
    """Return the body of a file of HCL or JSON; None for a compose file."""
    ending = os.path.splitext(name)[1].lower()
    if ending in (".yml", ".yaml"):
        return None
    if ending == ".json":
        return parse_json_body(text, name)
    if ending == ".hcl":
        return parse_hcl(text, name)
    if text.lstrip().startswith("{"):
        return parse_json_body(text, name)
    return None if _looks_composed(name, text) else parse_hcl(text, name)


def _looks_composed(name: str, text: str) -> bool:
    from mobysession.bake.compose import is_compose
    from mobysession.bake.yamltext import parse_yaml

    try:
        return is_compose(parse_yaml(text, name))
    except BakeError:
        return False


def _environment() -> Mapping[str, str]:
    disabled = parse_bool(os.environ.get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", ""))
    return {} if disabled else os.environ


def _constants() -> dict[str, str]:
    from mobysession.build.platforms import normal_platform

    return {"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": normal_platform("local")}


def _from_environment() -> list[str]:
    named = os.environ.get("BUILDX_BAKE_FILE", "")
    parts = named.split(os.environ.get("BUILDX_BAKE_PATH_SEPARATOR") or os.pathsep)
    return [part.strip() for part in parts if part.strip()]


def _usual() -> list[tuple[str, str]]:
    return [(name, _read(name)) for name in (*_COMPOSE, *_BAKE) if os.path.exists(name)]


def _name(file: FileLike) -> str:
    return os.fspath(file).removeprefix("cwd://") if isinstance(file, str | os.PathLike) else ""


def _content(file: FileLike) -> str | Mapping[str, Any]:
    if not isinstance(file, str | os.PathLike):
        return file
    return _read(_name(file))


def _read(name: str) -> str:
    try:
        if name == _STDIN:
            content = sys.stdin.buffer.read(limits.MAX_BAKE_FILE + 1)
        else:
            with open(name, "rb") as file:
                content = file.read(limits.MAX_BAKE_FILE + 1)
    except OSError as error:
        raise BakeError(f"cannot be read: {error.strerror}", file=name) from error
    if len(content) > limits.MAX_BAKE_FILE:
        raise BakeError(f"is larger than {limits.MAX_BAKE_FILE} bytes", file=name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BakeError("is not UTF-8", file=name) from None
