"""Where file systems come from: images, directories of this machine, git repositories, files on the web."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb.state import State
from mobysession.llb.vertex import Output, Vertex, check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["git", "http", "image", "local", "normalized_reference"]

_RESOLVE_MODES = ("default", "pull", "local")
#: git's own way of naming a repository over ssh.
_SCP_LIKE = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+):(?P<path>[^/].*)")
#: The secrets that BuildKit's own clients ask for when a repository needs a login.
_TOKEN_SECRET, _HEADER_SECRET = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"


def image(
    reference: str, *, platform: str | None = None, resolve_mode: str = "default", checksum: str = "", name: str = ""
) -> State:
    """Start from an image.

    Args:
        reference: as docker takes it: ``busybox`` is ``docker.io/library/busybox:latest``.
        platform: of which the image is wanted; None: that of the whole definition.
        resolve_mode: ``default``, ``pull`` (ask the registry in any case) or ``local`` (use what the engine has).
        checksum: the digest that its manifest must have.
        name: what progress calls it.

    Raises:
        UsageError: one of them makes no sense.
    """
    check_texts(reference=reference, checksum=checksum, name=name)
    if resolve_mode not in _RESOLVE_MODES:
        raise UsageError(f"there is no resolve mode {resolve_mode!r}", hint=f"Choose {', '.join(_RESOLVE_MODES)}.")
    attrs, caps = {}, ["source.image"]
    if resolve_mode != "default":
        attrs["image.resolvemode"] = resolve_mode
    if resolve_mode == "pull":
        caps.append("source.image.resolvemode")
    if checksum:
        attrs["image.checksum"] = checksum
        caps.append("source.image.checksum")
    state = _source(f"docker-image://{normalized_reference(reference)}", attrs, caps, name, takes_platform=True)
    return state.with_platform(platform) if platform is not None else state


def local(
    directory: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow: Sequence[str] = (),
    name: str = "",
) -> State:
    """Start from a tree that this side sends, which the solve is given under the name ``directory``.

    Args:
        directory: the name.
        include: patterns of what is wanted; none is everything.
        exclude: patterns of what is not, as in a .dockerignore.
        follow: paths of which, where they are links, what they lead to is wanted too.
        name: what progress calls it.

    Raises:
        UsageError: one of them makes no sense.
    """
    check_texts(directory=directory, name=name)
    attrs, caps = {"local.sharedkeyhint": directory}, ["source.local", "source.local.sharedkeyhint"]
    for key, cap, patterns in (
        ("local.includepattern", "source.local.includepatterns", include),
        ("local.excludepatterns", "source.local.excludepatterns", exclude),
        ("local.followpaths", "source.local.followpaths", follow),
    ):
        if isinstance(patterns, str):
            raise UsageError("include, exclude and follow take lists, not one string")
        if patterns:
            attrs[key] = json.dumps(list(patterns))
            caps.append(cap)
    return _source(f"local://{directory}", attrs, caps, name)


def git(
    url: str,
    ref: str = "",
    *,
    subdir: str = "",
    keep_git_dir: bool = False,
    checksum: str = "",
    skip_submodules: bool = False,
    known_hosts: str = "",
    name: str = "",
) -> State:
    """Start from a git repository, which the engine fetches.

    Args:
        url: ``https://...``, ``ssh://...`` or ``git@host:path``; over ssh the agent that the build was given is used,
            and over https the secrets ``GIT_AUTH_TOKEN`` and ``GIT_AUTH_HEADER`` where it was given them.
        ref: branch, tag or commit; empty is the repository's own default.
        subdir: directory of it that is the root.
        keep_git_dir: keep ``.git``.
        checksum: the commit, or the beginning of it, that ``ref`` must be.
        skip_submodules: leave them out.
        known_hosts: lines as in ssh's file of that name.
        name: what progress calls it.

    Raises:
        UsageError: ``url`` is none.
    """
    check_texts(url=url, ref=ref, subdir=subdir, checksum=checksum, known_hosts=known_hosts, name=name)
    host, path, ssh_user = _repository(url)
    identifier = f"git://{host}/{path}"
    if ref or subdir:
        identifier += f"#{ref}" + (f":{subdir.strip('/')}" if subdir.strip("/") else "")
    attrs = {"git.fullurl": url, "git.authtokensecret": _TOKEN_SECRET, "git.authheadersecret": _HEADER_SECRET}
    caps = ["source.git", "source.git.fullurl"]
    if ssh_user is not None:
        attrs["git.mountsshsock"] = "default"
        caps.append("source.git.mountsshsock")
    for key, cap, value in (
        ("git.keepgitdir", "source.git.keepgitdir", "true" if keep_git_dir else ""),
        ("git.checksum", "source.git.checksum", checksum),
        ("git.skipsubmodules", "source.git.skipsubmodules", "true" if skip_submodules else ""),
        ("git.knownsshhosts", "source.git.knownsshhosts", known_hosts),
    ):
        if value:
            attrs[key] = value
            caps.append(cap)
    return _source(identifier, attrs, caps, name)


def _repository(url: str) -> tuple[str, str, str | None]:
    """Return the host and the path of a repository, and whom to log in as where that is over ssh."""
    if "://" not in url:
        match = _SCP_LIKE.fullmatch(url)
        if match is None:
            raise UsageError(f"{url!r} is no git repository", hint="Write it as https://host/path or git@host:path.")
        return match["host"], match["path"].strip("/"), match["user"] or ""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "ssh", "git") or not parts.netloc:
        raise UsageError(f"{url!r} is no git repository", hint="Write it as https://host/path or git@host:path.")
    host = parts.netloc.rpartition("@")[2]
    return host, parts.path.strip("/"), (parts.username or "") if parts.scheme == "ssh" else None


def http(
    url: str,
    *,
    checksum: str = "",
    filename: str = "",
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    name: str = "",
) -> State:
    """Start from one file, which the engine fetches.

    Args:
        url: ``http://...`` or ``https://...``.
        checksum: the digest that it must have, ``sha256:...``.
        filename: what it is called; empty is what the server calls it.
        mode: its permissions.
        owner: its user's and its group's number.
        name: what progress calls it.

    Raises:
        UsageError: ``url`` is none.
    """
    check_texts(url=url, checksum=checksum, filename=filename, name=name)
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no address of a file on the web")
    attrs, caps = {}, ["source.http"]
    if checksum:
        attrs["http.checksum"] = checksum
        caps.append("source.http.checksum")
    if filename:
        attrs["http.filename"] = filename
    if mode is not None:
        attrs["http.perm"] = f"0{mode:o}"
        caps.append("source.http.perm")
    if owner is not None:
        attrs["http.uid"], attrs["http.gid"] = map(str, owner)
        # Misspelt in BuildKit, and so on the wire.
        caps.append("soruce.http.uidgid")
    return _source(url, attrs, caps, name)


def _source(
    identifier: str, attrs: dict[str, str], caps: Sequence[str], name: str, *, takes_platform: bool = False
) -> State:
    op = ops_pb2.Op(source=ops_pb2.SourceOp(identifier=identifier, attrs=attrs))
    return State(Output(Vertex(op, caps=caps, name=name, takes_platform=takes_platform)))


def normalized_reference(reference: str) -> str:
    """Return an image's name in full: with its registry, its repository and a tag or a digest.

    Source: distribution/reference normalize.go.

    Raises:
        UsageError: it is empty or in capitals.
    """
    head, _, rest = reference.partition("/")
    if not rest or not (any(mark in head for mark in ".:") or head == "localhost" or head != head.lower()):
        head, rest = "docker.io", reference
    if head == "index.docker.io":
        head = "docker.io"
    if head == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    path = rest.partition("@")[0].partition(":")[0]
    if not path.rpartition("/")[2] or path != path.lower():
        raise UsageError(f"{reference!r} is no name of an image", hint="Repository names must be lower case.")
    has_tag = "@" in rest or ":" in rest.rpartition("/")[2]
    return f"{head}/{rest}" if has_tag else f"{head}/{rest}:latest"
