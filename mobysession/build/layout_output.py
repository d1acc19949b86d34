"""An image as a directory: ``type=oci,tar=false,dest=DIR``, and ``type=docker`` likewise.

Nothing is sent then. The engine copies the blobs of the image, those that are not there yet, into a store of the
session that it knows as ``export``; there is one of them, so a build has one such output. When the build is done, the
image is put into the directory's index under the names that the engine says it has, or else as ``latest``.

Source: moby/buildkit client/solve.go, exporter/oci/export.go.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.build.cache_stores import make_layout
from mobysession.errors import ContextError, OutputError
from mobysession.jsontext import parse_json
from mobysession.services.filesend import ReceivedOutput
from mobysession.services.oci_layout_index import parse_descriptor, put_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.build.exports import Output
    from mobysession.services.oci_layout import OciLayout
    from mobysession.services.oci_layout_index import Descriptor

__all__ = ["EXPORT_STORE", "LayoutOutput", "open_layout"]

#: How the daemon calls the store that an image is exported to.
EXPORT_STORE: Final = "export"
_DESCRIPTOR: Final = "containerimage.descriptor"
_NAMES: Final = "image.name"


class LayoutOutput(NamedTuple):
    """The directory that takes an image.

    Attributes:
        exporter: the index of its exporter in the solve.
        path: as it was given.
        layout: the store.
        before: the bytes that were in it.
    """

    exporter: int
    path: str
    layout: OciLayout
    before: int

    def complete(self, response: Mapping[str, str]) -> ReceivedOutput:
        """Put the image into the index and return what came; blocking.

        Raises:
            OutputError: it did not come, or the index cannot be written.
        """
        descriptor = self._descriptor(response)
        names = [name for name in response.get(_NAMES, "").split(",") if name]
        for name in names:
            put_descriptor(self.layout, descriptor, name=name)
        if not names:
            put_descriptor(self.layout, descriptor, tag="latest")
        return ReceivedOutput(
            exporter=self.exporter,
            path=self.path,
            size=max(0, _size(self.layout) - self.before),
            metadata=dict(response),
            complete=True,
        )

    def _descriptor(self, response: Mapping[str, str]) -> Descriptor:
        try:
            document = parse_json(base64.b64decode(response.get(_DESCRIPTOR, ""), validate=True))
            descriptor = parse_descriptor(document)
            if self.layout.has(descriptor.digest):
                return descriptor
        except (ValueError, binascii.Error, ContextError):
            pass
        raise OutputError(
            f"the engine has finished the build and not written its image to {self.path!r}",
            path=self.path,
            hint="Its log may say why.",
        )


def open_layout(outputs: Sequence[Output]) -> LayoutOutput | None:
    """Make the directory of the output that is an image in one; None where there is no such output; blocking.

    Raises:
        OutputError: it cannot be written.
    """
    for number, output in enumerate(output for output in outputs if output.type != "cacheonly"):
        if output.is_layout and isinstance(output.dest, str | os.PathLike):
            path = os.fspath(output.dest)
            layout = make_layout(path)
            return LayoutOutput(number, path, layout, _size(layout))
    return None


def _size(layout: OciLayout) -> int:
    return sum(blob.size for blob in layout.walk())
