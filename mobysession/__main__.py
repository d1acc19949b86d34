"""``python -m mobysession``: the command line."""

import sys

from mobysession.cli import main

sys.exit(main())
