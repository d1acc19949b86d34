"""Showing how a build goes: views of one status model.

:func:`open_view` chooses the view, the build feeds it, :func:`render_failure` says where a failed build failed. What
comes from the engine is stripped of control characters before it is shown.
"""

from mobysession.progress.failure import render_failure
from mobysession.progress.view import View, ViewKind, keep_ticking, open_view

__all__ = ["View", "ViewKind", "keep_ticking", "open_view", "render_failure"]
