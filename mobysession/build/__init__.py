"""One image build: its options, the two ways of asking an engine for it, and what comes out."""

from mobysession.build.build import build
from mobysession.build.options import BuildOptions, Ulimit

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.build.annotations import Annotation
    from mobysession.build.attests import Attest
    from mobysession.build.cache import CacheEntry
    from mobysession.build.calls import Call, CallAnswer
    from mobysession.build.exports import Output
    from mobysession.build.managed import BuildRequest, as_request
    from mobysession.build.result import BuildResult, ContextTransfer, StepResult

__all__ = [
    "Annotation",
    "Attest",
    "BuildOptions",
    "BuildRequest",
    "BuildResult",
    "CacheEntry",
    "Call",
    "CallAnswer",
    "ContextTransfer",
    "Output",
    "StepResult",
    "Ulimit",
    "as_request",
    "build",
]
#: Where those live that load on first use; all others in ``result``.
_HOMES = {
    "Annotation": "annotations",
    "Attest": "attests",
    "BuildRequest": "managed",
    "CacheEntry": "cache",
    "Call": "calls",
    "CallAnswer": "calls",
    "Output": "exports",
    "as_request": "managed",
}


def __getattr__(name: str) -> object:
    """Load what a build ends in on first use (PEP 562): a build loads it while the engine works."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'result')}"), name)
    globals()[name] = value
    return value
