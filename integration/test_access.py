"""Access control on real engines: what a session refuses fails the build, in our words, and what it grants builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.images import build_image
from mobysession.errors import BuildFailed
from mobysession.session.access import Access, AccessRequest

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness

DOCKERFILE = "FROM mobysession-base\nRUN --mount=type=secret,id=token tr a-z A-Z < /run/secrets/token > /loud\n"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_an_approval_decides(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """The function hears of the secret and of nothing else; with its yes the step gets it, without the build fails."""
    context = make_context(tmp_path / "shop", DOCKERFILE)
    asked: list[AccessRequest] = []
    granted = True

    def approve(request: AccessRequest) -> bool:
        asked.append(request)
        return granted

    def build() -> str:
        options = {"secrets": {"token": "quiet"}, "no_cache": True, "driver": driver}
        return build_image(engine, context, access=Access(approve=approve), **options).image_id

    assert witness.text(build(), "/loud") == "QUIET"
    granted = False
    with pytest.raises(BuildFailed, match="secret token is refused by the client: refused"):
        build()
    assert {(str(request), request.session_name) for request in asked} == {("secret token", "shop")}
    assert len({request.session_id for request in asked}) == 2


def test_a_method_that_is_denied(engine: Engine, tmp_path: Path) -> None:
    """Secrets that a rule denies are not there for the engine."""
    context = make_context(tmp_path / "shop", DOCKERFILE.replace("id=token", "id=token,required=true"))
    access = Access(deny=["*Secrets/*"])
    with pytest.raises(BuildFailed, match=r"token|denied"):
        build_image(engine, context, secrets={"token": "quiet"}, access=access, no_cache=True)


def test_rules_that_let_through_what_a_build_needs(engine: Engine, witness: Witness, tmp_path: Path) -> None:
    """A build of a directory needs its files, and nothing more."""
    context = make_context(tmp_path / "shop", "FROM scratch\nCOPY Dockerfile /copy\n")
    built = build_image(engine, context, access=Access(allow=["/moby.filesync.v1.FileSync/*"]), no_cache=True)
    assert witness.text(built.image_id, "/copy") == "FROM scratch\nCOPY Dockerfile /copy\n"
