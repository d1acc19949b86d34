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
    from mobysession.build.keywords import BuildKeywords, CommonKeywords, ManyKeywords
    from mobysession.build.managed import BuildRequest, as_request
    from mobysession.build.many import Many, build_many, open_many
    from mobysession.build.nodes import Builder, Node, NodeResult, NodesResult, build_on
    from mobysession.build.result import BuildResult, ContextTransfer, StepResult
    from mobysession.build.running import RunningBuild, open_build

__all__ = [
    "Annotation",
    "Attest",
    "BuildKeywords",
    "BuildOptions",
    "BuildRequest",
    "BuildResult",
    "Builder",
    "CacheEntry",
    "Call",
    "CallAnswer",
    "CommonKeywords",
    "ContextTransfer",
    "Many",
    "ManyKeywords",
    "Node",
    "NodeResult",
    "NodesResult",
    "Output",
    "RunningBuild",
    "StepResult",
    "Ulimit",
    "as_request",
    "build",
    "build_many",
    "build_on",
    "open_build",
    "open_many",
]
#: Where those live that load on first use; all others in ``result``.
_HOMES = {
    "Annotation": "annotations",
    "Attest": "attests",
    "BuildKeywords": "keywords",
    "BuildRequest": "managed",
    "Builder": "nodes",
    "CacheEntry": "cache",
    "Call": "calls",
    "CallAnswer": "calls",
    "CommonKeywords": "keywords",
    "Many": "many",
    "ManyKeywords": "keywords",
    "Node": "nodes",
    "NodeResult": "nodes",
    "NodesResult": "nodes",
    "Output": "exports",
    "RunningBuild": "running",
    "as_request": "managed",
    "build_many": "many",
    "build_on": "nodes",
    "open_build": "running",
    "open_many": "many",
}


def __getattr__(name: str) -> object:
    """Load what a build ends in on first use (PEP 562): a build loads it while the engine works."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'result')}"), name)
    globals()[name] = value
    return value
