"""One image build: its options, the two ways of asking an engine for it, and what comes out."""

from mobysession.build.build import build
from mobysession.build.options import BuildOptions, Ulimit
from mobysession.build.result import BuildResult, ContextTransfer, StepResult

__all__ = ["BuildOptions", "BuildResult", "ContextTransfer", "StepResult", "Ulimit", "build"]
