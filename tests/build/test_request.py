"""What the engine is asked for: the solve request and the query of the classic build, against what buildx sends."""

from __future__ import annotations

from mobysession._pb import control_pb2
from mobysession.build.options import BuildOptions
from mobysession.build.request import build_query, frontend_attributes, solve_request

EVERYTHING = BuildOptions(
    tags=["a:1", "b"],
    target="final",
    build_args={"A": "1"},
    labels={"l": "v"},
    no_cache_filter=["one", "two"],
    pull=True,
    platforms=["linux/amd64", "linux/arm64"],
    add_hosts=["db:10.0.0.1", "gw:host-gateway"],
    network="none",
    shm_size="64m",
    ulimits=["nofile=1024:2048", "core=0"],
)


def test_a_plain_request_is_what_buildx_sends() -> None:
    """Apart from its IDs the request equals the one recorded from buildx 0.36 on an engine 28.5.2."""
    recorded = control_pb2.SolveRequest(
        Ref="ref",
        Session="session",
        ExporterDeprecated="moby",
        ExporterAttrsDeprecated={"name": "rec:1"},
        FrontendAttrs={"image-resolve-mode": "local", "filename": "Dockerfile"},
        Exporters=[control_pb2.Exporter(Type="moby", Attrs={"name": "rec:1"})],
        Cache=control_pb2.CacheOptions(),
        # buildx calls the frontend itself, through the gateway; here the daemon does.
        Frontend="dockerfile.v0",
    )
    request = solve_request(BuildOptions(tags=["rec:1"]), ref="ref", session_id="session", dockerfile="Dockerfile")
    assert request == recorded


def test_the_cache_options_are_always_present() -> None:
    """An engine of BuildKit 0.17 to 0.21 crashes on a request without them, even empty ones."""
    request = solve_request(BuildOptions(), ref="r", session_id="s", dockerfile="Dockerfile")
    assert b"\x42\x00" in request.SerializeToString()


def test_an_image_without_a_name_is_exported_all_the_same() -> None:
    """Without tags the exporter gets no name."""
    request = solve_request(BuildOptions(), ref="r", session_id="s", dockerfile="Dockerfile")
    assert dict(request.Exporters[0].Attrs) == {}
    assert request.ExporterDeprecated == "moby"


def test_every_option_becomes_an_attribute() -> None:
    """The attributes carry the frontend's names; a list is CSV."""
    assert frontend_attributes(EVERYTHING, dockerfile="D", gateway="172.17.0.1") == {
        "filename": "D",
        "image-resolve-mode": "pull",
        "target": "final",
        "platform": "linux/amd64,linux/arm64",
        "no-cache": "one,two",
        "force-network-mode": "none",
        "add-hosts": "db=10.0.0.1,gw=172.17.0.1",
        "shm-size": "67108864",
        "ulimit": "nofile=1024:2048,core=0:0",
        "build-arg:A": "1",
        "label:l": "v",
    }


def test_no_cache_is_an_empty_attribute() -> None:
    """A value would be taken for the name of a stage."""
    assert frontend_attributes(BuildOptions(no_cache=True), dockerfile="D")["no-cache"] == ""


def test_a_size_of_nothing_is_not_asked_for() -> None:
    """As for docker's clients, 0 leaves /dev/shm to the engine, whichever way it is asked."""
    options = BuildOptions(shm_size="0")
    assert "shm-size" not in frontend_attributes(options, dockerfile="D")
    assert "shmsize" not in dict(build_query(options, build_id="b", session_id="s", dockerfile="D"))


def test_a_gateway_with_two_addresses_makes_two_entries() -> None:
    """An engine with IPv6 names both of its addresses."""
    options = BuildOptions(add_hosts=["gw:host-gateway"])
    attributes = frontend_attributes(options, dockerfile="D", gateway="172.17.0.1,fd00::1")
    assert attributes["add-hosts"] == "gw=172.17.0.1,gw=fd00::1"


def test_the_host_network_asks_for_its_entitlement() -> None:
    """The engine refuses force-network-mode=host without it."""
    request = solve_request(BuildOptions(network="host"), ref="r", session_id="s", dockerfile="D")
    assert list(request.Entitlements) == ["network.host"]


def test_every_option_becomes_a_parameter_of_the_classic_build() -> None:
    """The query carries the Engine API's names; maps and lists are JSON."""
    query = build_query(EVERYTHING, build_id="b", session_id="s", dockerfile="D")
    assert query == [
        ("version", "2"),
        ("session", "s"),
        ("remote", "client-session"),
        ("buildid", "b"),
        ("dockerfile", "D"),
        ("rm", "1"),
        ("t", "a:1"),
        ("t", "b"),
        ("extrahosts", "db:10.0.0.1"),
        ("extrahosts", "gw:host-gateway"),
        ("target", "final"),
        ("platform", "linux/amd64,linux/arm64"),
        ("pull", "1"),
        ("networkmode", "none"),
        ("shmsize", "67108864"),
        ("ulimits", '[{"Name": "nofile", "Soft": 1024, "Hard": 2048}, {"Name": "core", "Soft": 0, "Hard": 0}]'),
        ("buildargs", '{"A": "1"}'),
        ("labels", '{"l": "v"}'),
    ]


def test_no_cache_is_a_flag_of_the_classic_build() -> None:
    """The classic build knows no cache, or all of it."""
    assert ("nocache", "1") in build_query(BuildOptions(no_cache=True), build_id="b", session_id="s", dockerfile="D")
