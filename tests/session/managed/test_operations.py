"""Middleware, calls from this side, approvals, children and inspection."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mobysession._pb import fsutil_pb2, secrets_pb2
from mobysession.errors import RpcError, RunInterrupted, SessionError, StatusCode, UsageError
from mobysession.rpc.registrar import Cardinality
from mobysession.services.secrets import Secrets
from mobysession.session.managed import ApprovalAsked, ApprovalSettled, SessionManager
from mobysession.session.managed.messages import json_schema, make_message

GET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


async def nothing(session):
    return None


class Tools:
    """Methods for whoever is on this side; the daemon is not told of them."""

    audience = "client"

    def register(self, registrar):
        registrar.unary_unary("/test.Tools/Double", self._double, secrets_pb2.GetSecretRequest)
        registrar.unary_stream("/test.Tools/Spell", self._spell, secrets_pb2.GetSecretRequest)
        registrar.stream("/test.Tools/Join", self._join, Cardinality.STREAM_UNARY)

    async def _double(self, request, call):
        if not request.ID:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "nothing to double")
        return secrets_pb2.GetSecretResponse(data=request.ID.encode() * 2)

    async def _spell(self, request, call):
        await call.send_batch([letter.encode() for letter in request.ID])

    async def _join(self, call):
        parts = []
        while messages := await call.receive_batch():
            parts += messages
        await call.send(b"".join(parts))


async def test_operations_go_through_the_middleware(managed):
    """In the order in which it was added, those of one call innermost; it may change and refuse, with context."""
    went = []

    def through(name):
        async def middleware(operation, context, proceed):
            went.append((name, operation.name, dict(context)))
            return await proceed(operation)

        return middleware

    async def tagging(operation, context, proceed):
        from dataclasses import replace

        return await proceed(replace(operation, options={**operation.options, "tag": "x"}))

    seen = []

    async def note(session):
        seen.append(dict(session.options))

    async with managed() as (manager, _), manager.create([Secrets({"a": b"1"})]) as session:
        session.use(through("outer"))
        session.use(through("inner"))
        await session.queue(nothing, middleware=[through("one")], context={"who": "ada"})
        assert went == [(name, "queue", {"who": "ada"}) for name in ("outer", "inner", "one")]
        went.clear()
        await (await session.send(note, middleware=[tagging])).result()
        await (await session.run()).result()
        await session.dispatch("GetSecret", {"ID": "a"})
        await (await session.spawn(nothing)).result()
        assert [name for _, name, _ in went] == ["send", "send", "run", "run", "dispatch", "dispatch", "spawn", "spawn"]
        assert seen == [{"tag": "x"}]

        async def refusing(operation, context, proceed):
            raise PermissionError("not today")

        with pytest.raises(PermissionError):
            await session.send(nothing, middleware=[refusing])
        assert session.queued == ()


async def test_methods_are_described(managed):
    """Each with name, shortest alias of its own, cardinality, audience and the schema of its request."""
    async with managed() as (manager, daemon), manager.session([Secrets({}), Tools()]) as session:
        methods = {method.name: method for method in session.methods()}
        get = methods[GET]
        assert (get.alias, get.cardinality, get.audience) == ("GetSecret", Cardinality.UNARY_UNARY, "daemon")
        assert get.schema["title"] == "moby.buildkit.secrets.v1.GetSecretRequest"
        assert get.schema["properties"]["ID"] == {"type": "string"}
        assert methods["/test.Tools/Join"].schema is None
        assert methods["/test.Tools/Join"].audience == "client"
        assert "/grpc.health.v1.Health/Check" in methods
        caller = await daemon.wait_session(session.id)
        assert not any("test.tools" in name for name in caller.methods)
        assert caller.supports(GET)


async def test_methods_are_called_from_this_side(managed):
    """By name or alias, with a message, a mapping or bytes, whatever the cardinality; attached first if need be."""
    async with managed() as (manager, daemon), manager.create([Secrets({"a": b"1"}), Tools()]) as session:
        answer = await session.dispatch("GetSecret", {"ID": "a"})
        assert answer == secrets_pb2.GetSecretResponse(data=b"1")
        assert session.id in daemon.sessions
        for name in ("Tools.Double", "test.Tools.Double", "/test.Tools/Double"):
            assert await session.dispatch(name, secrets_pb2.GetSecretRequest(ID="ab")) == b"\n\x04abab"
        assert await session.dispatch("Spell", {"ID": "abc"}) == [b"a", b"b", b"c"]
        assert await session.dispatch("Join", [b"x", b"y"]) == b"xy"
        with pytest.raises(RpcError, match="nothing to double"):
            await session.dispatch("Double")
        # What is called from this side is not the daemon's doing.
        assert session.tally.callbacks == {}


async def test_a_request_that_does_not_fit_is_not_called(managed):
    """An unknown method, an unknown field, another type, another kind of message: before anything is attached."""
    async with managed() as (manager, daemon), manager.create([Secrets({}), Tools()]) as session:
        for method, request, words in (
            ("Nope", {}, "no method 'Nope'"),
            ("GetSecret", {"nope": 1}, "no field named"),
            ("GetSecret", {"ID": ["s3cret"]}, "the field ID has a value of another kind"),
            ("GetSecret", 5, "not a moby.buildkit.secrets.v1.GetSecretRequest"),
            ("GetSecret", b"\xff\xff", "these bytes are no"),
            ("Join", b"x", "takes a list of requests"),
            ("Join", ["x"], "takes raw messages"),
        ):
            with pytest.raises(UsageError) as caught:
                await session.dispatch(method, request)
            assert words in str(caught.value)
            assert "s3cret" not in str(caught.value)
        assert daemon.sessions == {}


def test_schemas_say_what_json_looks_like():
    """Numbers of 64 bits may be text, bytes are base64, maps are objects, and lists are arrays."""
    schema = json_schema(fsutil_pb2.Packet)
    assert schema["properties"]["data"] == {"type": "string", "contentEncoding": "base64"}
    assert schema["properties"]["ID"] == {"type": "integer", "minimum": 0}
    assert "PACKET_REQ" in schema["properties"]["type"]["enum"]
    stat = schema["$defs"][schema["properties"]["stat"]["$ref"].removeprefix("#/$defs/")]
    assert stat["properties"]["size"]["type"] == ["string", "integer"]
    assert stat["properties"]["xattrs"]["type"] == "object"
    made = make_message(fsutil_pb2.Packet, {"ID": 3, "data": b"\x00\x01", "stat": {"path": b"p", "size": 2**40}})
    assert (made.ID, made.data, made.stat.size) == (3, b"\x00\x01", 2**40)
    with pytest.raises(UsageError, match=r"the field stat.size has"):
        make_message(fsutil_pb2.Packet, {"stat": {"size": "s3cret"}})


async def test_approvals_are_given_out_of_band(managed):
    """What is asked for waits until it is granted, replaced or refused; what is not offered never does."""
    services = [Secrets({"a": b"1", "b": b"2"})]
    async with managed(approval="channel") as (manager, daemon), manager.session(services) as session:
        caller = await daemon.wait_session(session.id)
        told = session.channel("approvals").subscribe()

        async def answer(**kwargs):
            asked = await anext(told)
            assert isinstance(asked, ApprovalAsked)
            assert session.inspect().approvals == (asked.request,)
            session.submit_approval(asked.call_id, **kwargs)
            return await anext(told)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: answer(approved=True))
            assert await caller.get_secret("a") == b"1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: answer(approved=True, replacement={"ID": "b"}))
            assert await caller.get_secret("a") == b"2"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: answer(approved=False, reason="no"))
            with pytest.raises(RpcError, match="refused"):
                await caller.get_secret("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: answer(approved=True, replacement={"nope": 1}))
            with pytest.raises(RpcError, match="does not fit"):
                await caller.get_secret("a")
        with pytest.raises(RpcError, match="not found"):
            await caller.get_secret("nobody has it")
        with pytest.raises(UsageError, match="waits for an approval"):
            session.submit_approval(99, True)
        with pytest.raises(UsageError):
            session.approvals.submit(1, False, {"ID": "b"}, None)


async def test_an_approval_that_nobody_gives_is_a_refusal(managed, autojump_clock):
    """After its time; that is told on the channel."""
    options = {"approval": "channel", "approval_timeout": 3.0}
    async with managed(**options) as (manager, daemon), manager.session([Secrets({"a": b"1"})]) as session:
        caller = await daemon.wait_session(session.id)
        told = session.channel("approvals").subscribe()
        began = trio.current_time()
        with pytest.raises(RpcError, match="nobody answered within 3 s"):
            await caller.get_secret("a")
        assert trio.current_time() - began == pytest.approx(3)
        asked, settled = await anext(told), await anext(told)
        assert settled == ApprovalSettled(call_id=asked.call_id, approved=False, reason="nobody answered in time")
        assert session.approvals.pending == ()


async def test_rules_and_refusals_need_nobody(managed):
    """Denied methods are not advertised; with ``refused`` credentials are refused at once."""
    async with managed(approval="refused", deny=("*Health/Watch",)) as (manager, daemon):
        async with manager.session([Secrets({"a": b"1"})]) as session:
            caller = await daemon.wait_session(session.id)
            with pytest.raises(RpcError, match="refused"):
                await caller.get_secret("a")
        async with manager.session([Secrets({"a": b"1"})], deny=["*Secrets/*"]) as session:
            caller = await daemon.wait_session(session.id)
            assert not caller.supports(GET)


async def test_a_child_has_a_connection_of_its_own(managed):
    """It inherits services and options, knows its parent, and is in no registry; its handle is of the same kind."""
    async with managed() as (manager, daemon):
        services = [Secrets({"a": b"1"})]
        async with manager.session(services, options={"pull": True}, metadata={"team": "x"}) as session:

            async def work(child):
                caller = await daemon.wait_session(child.id)
                assert manager.sessions == {session.id: session}
                assert (child.parent, child.parent_session_id) == (session, session.id)
                assert session.children == [child]
                assert (child.options, child.metadata) == ({"pull": True}, {"team": "x"})
                return await caller.get_secret("a")

            handle = await session.spawn(work)
            assert handle.session.id != session.id
            assert await handle.result() == b"1"
            await trio.testing.wait_all_tasks_blocked()
            assert (session.children, handle.session.status) == ([], "closed")
            own = await session.spawn(nothing, services=[], options={"no_cache": True})
            assert (own.session.services, own.session.origin.options) == ((), {"no_cache": True})
            await own.result()
            with pytest.raises(UsageError, match="no option"):
                await session.spawn(nothing, sevices=[])
        assert (manager.counters.opened, manager.counters.active) == (3, 0)


async def test_a_child_is_on_the_daemon_of_its_parent(monkeypatch):
    """What the environment says is not asked again, unless the child is to be reached otherwise than its parent."""

    class Unattached:
        attaches = True

        async def __call__(self, session):
            return session.info.endpoint

    monkeypatch.setenv("DOCKER_HOST", "unix:///one.sock")
    async with SessionManager().create([]) as session:
        monkeypatch.setenv("DOCKER_HOST", "unix:///two.sock")
        assert session.info.endpoint == await (await session.spawn(Unattached(), ready_timeout=5)).result()
        assert "two.sock" in await (await session.spawn(Unattached(), attach="hijack")).result()


async def test_closing_and_interrupting_take_children_along(managed):
    """A closing parent waits for what its children do; an interrupted one interrupts them, and spawns none."""
    async with managed() as (manager, _):
        async with manager.create([]) as session:
            gate = trio.Event()

            async def waiting(child):
                await gate.wait()
                return "done"

            handle = await session.spawn(waiting)
            own = await session.send(waiting)
            await trio.testing.wait_all_tasks_blocked()
            await session.interrupt(reason="all of you")
            for one in (handle, own):
                with pytest.raises(RunInterrupted, match="all of you"):
                    await one.result()
            with pytest.raises(SessionError, match="interrupted"):
                await session.spawn(waiting)
            session.clear_abort()
            handle = await session.spawn(waiting)
            gate.set()
        assert (await handle.result(), handle.session.status) == ("done", "closed")


async def test_generations_are_bounded(managed):
    """The eleventh is refused, in the tenth's own run; a failing child fails its handle, and nobody else."""
    depths = []

    async def deeper(session):
        depths.append(session.origin.depth)
        return await (await session.spawn(deeper)).result()

    async with managed() as (manager, _), manager.create([]) as session:
        handle = await session.send(deeper)
        with pytest.raises(UsageError, match="10 generations"):
            await handle.result()
        assert depths == list(range(1, 11))
        assert session.status == "idle"


async def test_an_inspection_shows_what_goes_on(managed):
    """Status, connection, open calls, totals, services with their calls; as JSON too; no secret is in it."""
    release = trio.Event()

    async def slow():
        await release.wait()
        return b"s3cret"

    async with managed() as (manager, daemon), manager.create([Secrets({"a": slow})]) as session:
        assert session.inspect().connection is None
        await session.mount()
        caller = await daemon.wait_session(session.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.get_secret, "a")
            await trio.testing.wait_all_tasks_blocked()
            seen = session.inspect()
            assert [call.method.lower() for call in seen.calls] == [GET.lower()]
            release.set()
        seen = session.inspect()
        assert (seen.info.status, seen.calls, seen.totals["calls"]) == ("ready", (), 1)
        (service,) = seen.services
        assert (service.name, service.methods, service.calls) == ("Secrets", (GET,), {GET: 1})
        assert seen.to_json()["services"][0]["calls"] == {GET: 1}
        assert "s3cret" not in repr(seen) + str(seen.to_json())


async def test_snapshots_are_kept_after_each_run(managed):
    """Plain and asynchronous functions get them, before the block ends; one that fails is only told in the log."""
    kept = []

    async def slowly(snapshot):
        await trio.lowlevel.checkpoint()
        kept.append(snapshot.runs)

    def broken(snapshot):
        raise OSError("disk")

    async with managed() as (manager, _):
        async with manager.create([], options={"pull": True, "view": object()}) as session:
            session.on_persist(broken)
            session.on_persist(slowly)
            session.on_persist(lambda snapshot: kept.append(snapshot.options))
            await (await session.send(nothing)).result()
            await session.send(nothing)
        assert kept == [1, {"pull": True}, 2, {"pull": True}]


async def test_a_slow_snapshot_is_not_overtaken(managed, autojump_clock):
    """The snapshot of the latest run is the last one that is kept, also where keeping an earlier one took longer."""
    kept = []

    async def slower_at_first(snapshot):
        await trio.sleep(3 - snapshot.runs)
        kept.append(snapshot.runs)

    async with managed() as (manager, _):
        async with manager.create([]) as session:
            session.on_persist(slower_at_first)
            for _ in range(2):
                await (await session.send(nothing)).result()
        assert kept == [1, 2]


async def test_hosting_is_for_a_block(managed, autojump_clock):
    """More services are served inside of it and no others after it; a request may do it for itself."""

    async def hosting(session):
        async with session.hosting(Secrets({"mine": b"2"}), name="n", shared_key="k") as bare:
            assert bare.id == session.id
            caller = await daemon.wait_session(session.id)
            assert (caller.name, caller.shared_key) == ("n", "k")
            assert [method.alias for method in session.methods()][-1] == "GetSecret"
            return await caller.get_secret("mine")

    class Hosting:
        attaches = True

        async def __call__(self, session):
            return await hosting(session)

    async with managed() as (manager, daemon), manager.create([]) as session:
        assert await (await session.send(Hosting())).result() == b"2"
        caller = daemon.sessions[session.id]
        with pytest.raises(RpcError) as caught:
            await caller.get_secret("mine")
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        async with session.hosting(Secrets({"mine": b"3"})):
            assert await caller.get_secret("mine") == b"3"
        with pytest.raises(UsageError, match="served already"):
            async with session.hosting(Secrets({}), Secrets({})):
                pytest.fail("hosted")
        assert session.status == "idle"
        with pytest.raises(SessionError, match="the daemon was told"), session.bare.hosting(Tools()):
            pytest.fail("hosted")
