"""A recorded build as one page: nothing else is loaded, so that it can be kept, sent and read offline.

The page holds the build as JSON, which ``timeline.js`` draws. Nothing that an engine said can become markup or a
script: within the JSON each ``<`` is an escape, the script puts texts in place as texts only, and the page's own policy
forbids every script and style but the two that were written here, by their hashes, and every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import pkgutil
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobysession._version import __version__

if TYPE_CHECKING:
    from mobysession.progress.timeline import Recorded

__all__ = ["render_page"]

_MARKUP = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&"})
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="mobysession {version}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="timeline"><noscript>This page needs JavaScript, which it brings along.</noscript></main>
<script type="application/json" id="recorded">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def render_page(recorded: Recorded) -> str:
    """Return the text of an HTML page."""
    script, style = _asset("timeline.js"), _asset("timeline.css")
    return _PAGE.format(
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'",
        version=__version__,
        title=html.escape(f"{recorded.title}: {recorded.outcome}"),
        style=style,
        data=json.dumps(asdict(recorded), separators=(",", ":")).translate(_MARKUP),
        script=script,
    )


def _asset(name: str) -> str:
    data = pkgutil.get_data(__package__, name)
    assert data is not None  # it is a file of this package
    return data.decode("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
