from __future__ import annotations

from typing import Any

import pytest

from mobysession._pb.auth_pb2 import CredentialsRequest, CredentialsResponse
from mobysession.errors import CredentialError, RpcError, StatusCode, UsageError
from mobysession.redaction import Redactor
from mobysession.rpc.registrar import Registrar
from mobysession.services.auth import Auth

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"


@pytest.fixture
def ask(open_service):
    """Ask an `Auth` for one host over the wire."""

    async def ask(auth, host):
        async with open_service(auth) as channel:
            answer = await channel.unary(CREDENTIALS, CredentialsRequest(Host=host), CredentialsResponse)
            return answer.Username, answer.Secret

    return ask


async def test_credentials_are_given(ask):
    """The daemon gets user name and secret of the host it names."""
    assert await ask(Auth({"registry.example": ("user", "pass")}), "registry.example") == ("user", "pass")


async def test_the_docker_configuration_is_the_default(ask, docker_config):
    """Without a source the user's docker configuration is read."""
    (docker_config / "config.json").write_text('{"auths": {"registry.example": {"identitytoken": "id"}}}')
    assert await ask(Auth(), "registry.example") == ("", "id")


async def test_no_credentials_are_an_answer(ask):
    """A host without credentials gets OK with two empty fields, not an error."""
    assert await ask(Auth({}), "registry.example") == ("", "")


async def test_a_failed_lookup_reaches_the_daemon(ask, ended):
    """A failure is UNKNOWN in our words, and the session hears the failure itself."""

    def give_number(host: str) -> Any:
        return 7

    with pytest.raises(RpcError) as caught:
        await ask(Auth(give_number), "registry.example")
    assert caught.value.code is StatusCode.UNKNOWN
    assert caught.value.message == "the function for credentials of registry.example returned an object of type int"
    assert isinstance(ended[0][2], CredentialError)


@pytest.mark.parametrize("host", ["", "a b", "a\nb", "a\0b", "a" * 261])
async def test_what_is_no_host_is_not_looked_up(ask, host):
    """A name that no registry can have reaches no source and no helper."""
    asked: list[str] = []
    with pytest.raises(RpcError, match="which is no registry"):
        await ask(Auth(asked.append), host)
    assert asked == []


@pytest.mark.parametrize(
    "host",
    [
        "ghcr.io/zzz",
        "https://ghcr.io",
        "http://ghcr.io/x",
        "index.docker.io/evil",
        "x@ghcr.io",
        "ghcr.io?",
        "ghcr.io\\x",
    ],
)
async def test_more_than_a_host_gets_no_login(ask, docker_config, caplog, host):
    """A path or a scheme cannot fetch a host's login: the answer is anonymous, no source is asked, the log says so."""
    asked: list[str] = []
    assert await ask(Auth(asked.append), host) == ("", "")
    assert asked == []
    assert f"the login of {host}, which is no bare host" in caplog.text


@pytest.mark.parametrize("host", ["https://index.docker.io/v1/", "registry-1.docker.io", "docker.io"])
async def test_docker_hub_may_be_asked_for_by_its_key(ask, host):
    """Docker Hub's names are one registry, with docker's own key among them."""
    assert await ask(Auth({"docker.io": ("user", "pass")}), host) == ("user", "pass")


def test_all_four_methods_are_served():
    """The daemon finds the login and the three methods by which the login can stay here."""
    registrar = Registrar()
    Auth({}).register(registrar)
    names = [name.rpartition("/")[2] for name in registrar.methods]
    assert names == ["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"]


async def test_secrets_are_hidden_before_they_leave(ask):
    """The redactor knows a password once it was given, also inside a basic authorization."""
    redactor = Redactor()
    await ask(Auth({"registry.example": ("user", "correct horse")}, redactor=redactor), "registry.example")
    assert redactor.redact("Basic dXNlcjpjb3JyZWN0IGhvcnNl") == "Basic dXNlcjp***"


def test_a_wrong_source_is_refused_at_once():
    """What can give no credentials is refused where it is given."""
    with pytest.raises(UsageError, match="credentials cannot come from an object of type int"):
        Auth(7)  # type: ignore[arg-type]  # the mistake in question
