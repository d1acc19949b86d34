"""``du``, ``prune``, ``workers`` and ``history``: what they print, ask and change."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from mobysession import sync
from mobysession._pb import control_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing import BlockingFakeDaemon
    from mobysession.testing.records import Records
    from tests.cli.conftest import Cli, Spawned


@pytest.fixture
def records(fake_docker_host: BlockingFakeDaemon) -> Records:
    return fake_docker_host.daemon.solver.records


@pytest.fixture
def cache(records: Records) -> Records:
    """Give records of a cache: one shared, one in use."""
    for name, size in (("one", 1000), ("two", 2_000_000)):
        record = control_pb2.UsageRecord(ID=name, Size=size, RecordType="regular", Description=f"made \x1b[31m{name}")
        record.LastUsedAt.GetCurrentTime()
        record.CreatedAt.FromSeconds(1)
        records.cache.append(record)
    records.cache[0].Shared = records.cache[1].InUse = records.cache[1].Mutable = True
    return records


@pytest.fixture
def built(fake_docker_host: BlockingFakeDaemon, tmp_path: Path) -> str:
    """Give the ref of a build that is remembered."""
    return sync.build({"Dockerfile": b"FROM scratch\n"}, build_args={"A": "b"}, target="").ref


@pytest.mark.usefixtures("cache")
def test_usage_is_a_table_with_sums(cli: Cli) -> None:
    """A star for what may change and for what an image shares, as docker has it."""
    ran = cli("du")
    assert ran.status == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"],
        ["one", "true", "1.00kB*", "0", "seconds", "ago"],
        ["two*", "false", "2.00MB", "0", "seconds", "ago"],
        [],
        ["Shared:", "1.00kB"],
        ["Private:", "2.00MB"],
        ["Reclaimable:", "1.00kB"],
        ["Total:", "2.00MB"],
    ]


@pytest.mark.usefixtures("cache")
def test_usage_is_json_or_told_whole(cli: Cli) -> None:
    """Nothing that a daemon says speaks to the terminal."""
    values = json.loads(cli("du", "--format", "json").out)
    assert [(value["id"], value["size"], value["shared"]) for value in values] == [
        ("one", 1000, True),
        ("two", 2_000_000, False),
    ]
    assert values[0]["created"] == "1970-01-01T00:00:01Z"
    whole = cli("du", "--verbose").out
    assert "Created at:   1970-01-01 00:00:01 UTC" in whole
    assert "\x1b" not in whole


@pytest.mark.usefixtures("cache")
def test_usage_by_age_is_filtered_here(cli: Cli) -> None:
    """The Control API has no such filter; no sums are told of a part."""
    assert [value["id"] for value in json.loads(cli("du", "--filter", "until=1h", "--format", "json").out)] == []
    assert "Total:" not in cli("du", "--filter", "until=1h").out
    assert cli("du", "--filter", "until=x").status == 2


def test_pruning_asks_and_says_what_went(cli: Cli, cache: Records) -> None:
    """With everything that was said about what is to stay."""
    ran = cli("prune", "-f", "-a", "--filter", "until=24h", "--filter", "type=regular", "--reserved-space", "1g")
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == "Total: 1.00kB"
    (request,) = cache.prunes
    assert request.all
    assert list(request.filter) == ["type==regular"]
    assert (request.keepDuration, request.reservedSpace) == (86400 * 10**9, 1024**3)
    assert json.loads(cli("prune", "-f", "--format", "json").out) == []
    assert cli("prune", "-f", "--max-used-space", "5m", "--min-free-space", "1k").status == 0
    assert (cache.prunes[-1].maxUsedSpace, cache.prunes[-1].minFreeSpace) == (5 * 1024**2, 1024)


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("", 1)])
def test_pruning_needs_a_yes(
    cli: Cli, cache: Records, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """Nothing goes without."""
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True  # type: ignore[method-assign]  # a terminal, as far as it is asked
    monkeypatch.setattr("sys.stdin", stdin)
    ran = cli("prune")
    assert ran.status == status
    assert "WARNING! This will remove all dangling build cache." in ran.err
    assert len(cache.prunes) == (status == 0)


def test_pruning_without_a_terminal_needs_force(cli: Cli, cache: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """For nobody can be asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    ran = cli("prune")
    assert (ran.status, cache.prunes) == (2, [])
    assert "hint: Use --force." in ran.err


@pytest.mark.usefixtures("fake_docker_host")
def test_workers_are_listed(cli: Cli) -> None:
    """With their platforms."""
    assert [line.split() for line in cli("workers").out.splitlines()][1] == ["fake", "v0.25.1", "linux/amd64"]
    assert json.loads(cli("workers", "--format", "json").out)[0]["platforms"] == ["linux/amd64"]


def test_builds_are_listed(cli: Cli, built: str) -> None:
    """As a table and as JSON; filters are looked at here too."""
    ran = cli("history", "ls")
    assert ran.out.splitlines()[1].split()[:2] == [built, "completed"]
    (value,) = json.loads(cli("history", "ls", "--format", "json").out)
    assert (value["ref"], value["status"]) == (built, "completed")
    assert json.loads(cli("history", "ls", "--filter", "status=error", "--format", "json").out) == []
    assert json.loads(cli("history", "ls", "--active", "--format", "json").out) == []
    assert cli("history", "ls", "--limit", "0").status == 2


def test_a_build_is_inspected(cli: Cli, built: str) -> None:
    """What was asked for and how it went; a file of it instead, as it is."""
    ran = cli("history", "inspect", built)
    assert f"Ref:         {built}\n" in ran.out
    assert "Build arguments:\n  A=b\n" in ran.out
    value = json.loads(cli("history", "inspect", "--format", "json").out)
    assert value["attributes"]["build-arg:A"] == "b"
    missing = cli("history", "inspect", "--attachment", "nosuch")
    assert missing.status == 1
    assert "has no file 'nosuch'" in missing.err


def test_a_file_of_a_build_is_printed_as_it_is(cli: Cli, records: Records, built: str) -> None:
    """By its digest or by its type."""
    image = records.add_blob("application/image", b'{"image": 1}')
    records.builds[built].Result.Results[0].CopyFrom(image)
    assert cli("history", "inspect", "--attachment", "application/image").out == '{"image": 1}'
    assert cli("history", "inspect", "--attachment", image.digest).out == '{"image": 1}'


def test_the_log_of_a_build_is_printed(cli: Cli, built: str) -> None:
    """As its progress was."""
    ran = cli("history", "logs", built)
    assert ran.status == 0
    assert "[internal] load build definition from Dockerfile" in ran.out


def test_builds_are_forgotten(cli: Cli, records: Records, built: str) -> None:
    """By name, or all; not without saying which."""
    assert cli("history", "rm").status == 2
    assert cli("history", "rm", "--all", built).status == 2
    assert cli("history", "rm", built).out == f"{built}\n"
    assert records.builds == {}
    assert cli("history", "rm", built).status == 1
    assert cli("history", "rm", "--all").status == 0


def test_builds_are_exported(cli: Cli, built: str, tmp_path: Path) -> None:
    """Into a file; what is there stays where that fails."""
    path = tmp_path / "a.dockerbuild"
    assert cli("history", "export", built, "--finalize", "-o", path).status == 0
    with tarfile.open(path) as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())
    path.write_text("before")
    assert cli("history", "export", "nosuch", "-o", path).status == 1
    assert path.read_text() == "before"
    ran = cli("history", "export", "-o", tmp_path / "none" / "a")
    assert ran.status == 1
    assert "cannot be written: no such file or directory" in ran.err
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")] == []


@pytest.mark.parametrize("output", [[], ["-o", "-"]])
def test_an_archive_goes_to_stdout(
    cli: Cli, spawned: Spawned, built: str, monkeypatch: pytest.MonkeyPatch, output: list[str]
) -> None:
    """As it is, to whatever reads it; a terminal reads nothing of the kind."""
    with spawned("history", "export", built, *output) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert {"oci-layout", "index.json"} <= set(archive.getnames())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ran = cli("history", "export", built)
    assert (ran.status, ran.out) == (2, "")
    assert "hint: Name a file with --output." in ran.err


@pytest.mark.usefixtures("fake_docker_host")
def test_nothing_to_export_is_an_error(cli: Cli, tmp_path: Path) -> None:
    """An empty archive would be no archive."""
    ran = cli("history", "export", "--all", "-o", tmp_path / "a")
    assert ran.status == 1
    assert "there are no records of builds" in ran.err
