"""Many builds from one call: targets and groups of bake files, compose files or dictionaries, built side by side."""

from mobysession.bake.bake import bake

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.bake.definition import Definition
    from mobysession.bake.read import read_definition

__all__ = ["Definition", "bake", "read_definition"]

_HOMES = {"Definition": "definition", "read_definition": "read"}


def __getattr__(name: str) -> object:
    """Load what only some need on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
