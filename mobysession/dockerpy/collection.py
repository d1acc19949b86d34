"""``client.images.build``: an image and its log, or an error of docker-py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from docker.errors import BuildError

from mobysession.dockerpy.stream import start_build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient
    from docker.models.images import Image

    from mobysession.dockerpy.messages import Chunk

__all__ = ["build"]


def build(client: DockerClient, **arguments: Any) -> tuple[Image | None, Iterator[Chunk]]:
    """Build an image as ``client.images.build`` does, by BuildKit and with its options.

    Args:
        client: of docker-py; its daemon and its logins are used.
        **arguments: those of ``client.images.build``, and the fields of `mobysession.BuildOptions`: ``secrets``,
            ``ssh``, ``cache_to``, ``build_contexts``, ``outputs``, ``platforms`` and others.

    Returns:
        The image, None where the build put none into the engine's store, and the log's messages.

    Raises:
        docker.errors.BuildError: the build failed; ``build_log`` has the messages, ``__cause__`` our error.
        docker.errors.APIError: the engine refused.
        docker.errors.DockerException, TypeError: the arguments are wrong, or BuildKit has no such thing.
        requests.exceptions.ConnectionError: the daemon cannot be reached.
    """
    stream = start_build(client.api, **{**arguments, "decode": True})
    try:
        # With decode there is nothing else in it.
        chunks = cast("list[Chunk]", list(stream))
    except BaseException:
        stream.close()
        raise
    if (result := stream.result) is None:
        last = chunks[-1] if chunks else {}
        raise BuildError(last.get("error", "Unknown"), iter(chunks)) from stream.failure
    image = client.images.get(result.image_id) if result.image_id else None
    return image, iter(chunks)
