"""What executes the steps of a build.

Source: moby/buildkit api/types/worker.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobysession._pb import ops_pb2, worker_pb2

__all__ = ["GarbagePolicy", "Worker", "worker"]


class GarbagePolicy(NamedTuple):
    """One rule by which a worker prunes by itself: sizes in bytes, duration in seconds, 0 where there is none."""

    all: bool
    filters: tuple[str, ...]
    keep_duration: float
    reserved_space: int
    max_used_space: int
    min_free_space: int


class Worker(NamedTuple):
    """What executes steps: its platforms as ``linux/arm64/v8``, its BuildKit's version, devices that steps may ask for.

    The version is empty where the daemon does not tell.
    """

    id: str
    platforms: tuple[str, ...]
    version: str
    labels: dict[str, str]
    policies: tuple[GarbagePolicy, ...]
    devices: tuple[str, ...]


def worker(message: worker_pb2.WorkerRecord) -> Worker:
    """Return a worker as a value."""
    return Worker(
        id=message.ID,
        platforms=tuple(map(_platform, message.platforms)),
        version=message.BuildkitVersion.version,
        labels=dict(message.Labels),
        policies=tuple(
            GarbagePolicy(
                all=policy.all,
                filters=tuple(policy.filters),
                keep_duration=policy.keepDuration / 10**9,
                reserved_space=policy.reservedSpace,
                max_used_space=policy.maxUsedSpace,
                min_free_space=policy.minFreeSpace,
            )
            for policy in message.GCPolicy
        ),
        devices=tuple(device.Name for device in message.CDIDevices),
    )


def _platform(platform: ops_pb2.Platform) -> str:
    return "/".join(filter(None, (platform.OS, platform.Architecture, platform.Variant)))
