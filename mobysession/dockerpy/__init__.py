"""The front door for docker-py code: its arguments, its results, its errors, and BuildKit behind them.

::

    from mobysession.dockerpy import build

    image, logs = build(client, path=".", tag="demo", secrets={"token": fetch_token})

`build` takes what ``client.images.build`` takes, and every option of `mobysession.BuildOptions` besides. `patch` makes
the clients of docker-py build in this way themselves, for code that cannot be changed.
"""

from mobysession.dockerpy.collection import build
from mobysession.dockerpy.patching import patch
from mobysession.dockerpy.stream import BuildStream, start_build

__all__ = ["BuildStream", "build", "patch", "start_build"]
