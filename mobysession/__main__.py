"""``python -m mobysession``: the command line."""

from mobysession.cli import entry

entry()
