"""One image build: its options, the two ways of asking an engine for it, and what comes out."""

from mobysession.build.build import build
from mobysession.build.options import BuildOptions, Ulimit

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.build.exports import Output
    from mobysession.build.result import BuildResult, ContextTransfer, StepResult

__all__ = ["BuildOptions", "BuildResult", "ContextTransfer", "Output", "StepResult", "Ulimit", "build"]


def __getattr__(name: str) -> object:
    """Load what a build ends in on first use (PEP 562): a build loads it while the engine works."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = "exports" if name == "Output" else "result"
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
