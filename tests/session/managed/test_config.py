"""The defaults of sessions, and the variables they come from."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from mobysession.errors import ConfigError, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session.managed import SessionConfig
from mobysession.session.managed.config import VARIABLES


def read(**variables):
    return SessionConfig.from_env(environ={f"MOBYSESSION_{name}": value for name, value in variables.items()})


def test_without_variables_the_defaults_are_those_of_the_class():
    """An empty variable counts as one that is not set."""
    assert read() == read(HOST="", ATTACH="") == SessionConfig()


def test_every_variable_is_read(tmp_path):
    """Each of the table ends in its field."""
    login = base64.b64encode(b"robot:pass:word").decode()
    config = read(
        HOST="tcp://build.example:2376",
        TLS="true",
        TLS_VERIFY="no",
        TLS_CA="/ca.pem",
        TLS_CERT="/cert.pem",
        TLS_KEY="/key.pem",
        ATTACH="tunnel",
        READY_TIMEOUT="1.5",
        RESUME_TIMEOUT="2",
        APPROVAL="channel",
        APPROVAL_TIMEOUT="3",
        ALLOWED_METHODS="*Secrets/*, *FileSync/*",
        DENIED_METHODS="*SSH/*",
        DIAL_COMMAND="ssh",
        DIAL_ARGS="host,docker,system,dial-stdio",
        DIAL_ENV="A=1,B=x=y",
        REGISTRY_CREDENTIALS=json.dumps(
            {"auths": {"r.example": {"auth": login}, "s.example": {"username": "u", "password": "p"}}}
        ),
    )
    assert config.endpoint.url == "tcp://build.example:2376"
    assert "MOBYSESSION_HOST" in str(config.endpoint)
    assert (str(config.tls.ca), str(config.tls.cert), str(config.tls.key)) == ("/ca.pem", "/cert.pem", "/key.pem")
    assert not config.tls.verify
    assert (config.attach, config.approval) == ("tunnel", "channel")
    assert (config.ready_timeout, config.resume_timeout, config.approval_timeout) == (1.5, 2.0, 3.0)
    assert (config.allow, config.deny) == (("*Secrets/*", "*FileSync/*"), ("*SSH/*",))
    assert (config.dial_command, config.dial_args) == ("ssh", ("host", "docker", "system", "dial-stdio"))
    assert config.dial_env == {"A": "1", "B": "x=y"}
    assert config.credentials == {"r.example": ("robot", "pass:word"), "s.example": ("u", "p")}
    assert "pass:word" not in repr(config)
    assert len(VARIABLES) == 17


def test_the_prefix_is_the_programs():
    """Another one reads other variables."""
    environ = {"CI_ATTACH": "hijack", "MOBYSESSION_ATTACH": "tunnel"}
    assert SessionConfig.from_env("CI_", environ).attach == "hijack"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HOST", "gopher://x", "gopher"),
        ("TLS", "perhaps", "neither true nor false"),
        ("TLS_CERT", "/cert.pem", "goes with MOBYSESSION_TLS_KEY"),
        ("TLS_KEY", "/key.pem", "goes with MOBYSESSION_TLS_CERT"),
        ("ATTACH", "teleport", "'teleport'"),
        ("READY_TIMEOUT", "soon", "no number of seconds"),
        ("RESUME_TIMEOUT", "0", "no number of seconds"),
        ("APPROVAL_TIMEOUT", "inf", "no number of seconds"),
        ("APPROVAL", "maybe", "'maybe'"),
        ("DIAL_ARGS", "x", "goes with MOBYSESSION_DIAL_COMMAND"),
        ("DIAL_ENV", "s3cret", "not NAME=VALUE"),
        ("REGISTRY_CREDENTIALS", "{s3cret", "is not JSON"),
        ("REGISTRY_CREDENTIALS", "[]", '"auths"'),
        ("REGISTRY_CREDENTIALS", '{"auths": {"r": {"auth": "s3cret"}}}', "no login that can be read for r"),
        ("SERVICES", "secrets", "chosen for each session"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_variable(name, value, words):
    """And says what is wrong with it, without showing what may be secret."""
    with pytest.raises(ConfigError) as caught:
        read(**{name: value})
    assert caught.value.variable == f"MOBYSESSION_{name}"
    assert f"MOBYSESSION_{name}" in caught.value.message
    assert words in caught.value.message + (caught.value.hint or "")
    assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__)


def test_services_are_refused_with_the_reason():
    """However they are given: a default would expose something to every session."""
    for services in ([], [Secrets({"a": b"1"})], "secrets"):
        with pytest.raises(UsageError, match="chosen for each session") as caught:
            SessionConfig(services=services)
        assert "create(services=[...])" in (caught.value.hint or "")
    assert not hasattr(SessionConfig(), "secrets")


@pytest.mark.parametrize(
    "wrong",
    [
        {"attach": "teleport"},
        {"approval": "maybe"},
        {"allow": "*"},
        {"ready_timeout": 0},
        {"approval_timeout": float("nan")},
        {"dial_args": ["x"]},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    """When the configuration is made, and when it is overridden."""
    with pytest.raises(UsageError):
        SessionConfig(**wrong)
    with pytest.raises(UsageError):
        SessionConfig().with_overrides(wrong)


def test_the_document_has_every_variable():
    """The table of docs/sessions.md is the table of the code."""
    text = (Path(__file__).parents[3] / "docs/sessions.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `MOBYSESSION_(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert {name: has.replace("`", "") for name, has in rows.items()} == VARIABLES
