from __future__ import annotations

import pytest
import trio

from mobysession._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse
from mobysession.errors import RpcError, StatusCode
from mobysession.services.health import Health

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
LIST = "/grpc.health.v1.Health/List"


async def test_the_session_as_a_whole_serves(open_service):
    """Check of the empty name, the daemon's keep-alive, is SERVING."""
    async with open_service(Health()) as channel:
        answer = await channel.unary(CHECK, HealthCheckRequest(), HealthCheckResponse)
    assert answer.status == HealthCheckResponse.SERVING


async def test_check_of_an_unknown_service(open_service):
    """Check of any other name is NOT_FOUND, in the reference's words."""
    async with open_service(Health()) as channel:
        with pytest.raises(RpcError) as caught:
            await channel.unary(CHECK, HealthCheckRequest(service="other"), HealthCheckResponse)
    assert (caught.value.code, caught.value.message) == (StatusCode.NOT_FOUND, "unknown service")


@pytest.mark.parametrize(
    ("service", "status"), [("", HealthCheckResponse.SERVING), ("other", HealthCheckResponse.SERVICE_UNKNOWN)]
)
async def test_watch_answers_and_stays_open(open_service, autojump_clock, service, status):
    """Watch sends one status at once and then says nothing more, without ending the call."""
    async with open_service(Health()) as channel, channel.open_call(WATCH) as call:
        await call.end(HealthCheckRequest(service=service).SerializeToString())
        message = await call.receive()
        assert message is not None
        assert HealthCheckResponse.FromString(message).status == status
        with trio.move_on_after(3600) as scope:
            await call.receive()
        assert scope.cancelled_caught


async def test_a_cancelled_watch_ends(open_service, ended):
    """A Watch that the caller gave up leaves nothing behind and disturbs no later call."""
    async with open_service(Health()) as channel:
        async with channel.open_call(WATCH) as call:
            await call.end(HealthCheckRequest().SerializeToString())
            assert await call.receive() is not None
        await channel.unary(CHECK, HealthCheckRequest(), HealthCheckResponse)
    # A call that waits for nothing may be answered before one that is cancelled has ended.
    assert sorted(code for code, _, _ in ended) == [StatusCode.OK, StatusCode.CANCELLED]


async def test_list_names_the_whole_session(open_service):
    """List knows the empty name, and that it serves."""
    async with open_service(Health()) as channel:
        answer = await channel.unary(LIST, HealthListRequest(), HealthListResponse)
    assert {name: item.status for name, item in answer.statuses.items()} == {"": HealthCheckResponse.SERVING}
