"""This side of a build: docker's configuration, the programs it names, the SSH agent, the ID of this user."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final

import trio

from mobysession import dockerconfig, limits
from mobysession.concurrency import open_nursery
from mobysession.doctor.finding import Finding
from mobysession.errors import CredentialError, EndpointError, SshError
from mobysession.services.ssh_agents import SshAgent

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["examine_config", "examine_helpers", "examine_node_id", "examine_ssh_agent"]

_NODE_ID: Final = ".buildNodeID"
_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


async def examine_config() -> list[Finding]:
    """Look at ``config.json``: that it can be read, each login in it, and who else can."""
    return await trio.to_thread.run_sync(_examine_config)


def _examine_config() -> list[Finding]:
    try:
        config = dockerconfig.load()
    except EndpointError as error:
        return [Finding.of_error("config", error)]
    if not config.path.exists():
        return [Finding("config", "ok", f"{config.path} does not exist, which is as if it were empty")]
    found = []
    for host in config.logins:
        try:
            config.auth_entry(host)
        except CredentialError as error:
            found.append(Finding.of_error("config", error))
    if _has_secrets(config) and config.path.stat().st_mode & _OPEN_TO_OTHERS:
        message = f"{config.path} has logins, and others on this machine may read it"
        found.append(Finding("config", "warn", message, f"chmod 600 {config.path}"))
    return found or [Finding("config", "ok", f"{config.path}, {_count(len(config.logins), 'login')}")]


def _has_secrets(config: dockerconfig.DockerConfig) -> bool:
    """Tell whether the file has a login itself; a helper leaves an empty entry behind for each that it keeps."""
    file = dockerconfig.load(config.path.parent, environ={})
    for host in file.logins:
        try:
            if file.auth_entry(host) != dockerconfig.AuthEntry():
                return True
        except CredentialError:
            continue  # told of already
    return False


async def examine_helpers() -> list[Finding]:
    """Ask each credential helper that is configured for one login: whether it is there, runs and answers."""
    try:
        config = await trio.to_thread.run_sync(dockerconfig.load)
    except EndpointError:
        return []  # told of by `examine_config`
    asked: dict[str, str] = {}
    for host, helper in config.cred_helpers.items():
        if helper:
            asked.setdefault(helper, host)
    for store in (config.creds_store, config.helper_for(dockerconfig.DOCKER_HUB_KEY)):
        if store:
            asked.setdefault(store, dockerconfig.DOCKER_HUB_KEY)
    found: dict[str, Finding] = {}

    async def ask(helper: str, host: str) -> None:
        found[helper] = await _examine_helper(config, helper, host)

    async with open_nursery() as nursery:
        for helper, host in asked.items():
            nursery.start_soon(ask, helper, host)
    return [found[helper] for helper in asked] or [Finding("credentials", "ok", "no helper is configured")]


async def _examine_helper(config: dockerconfig.DockerConfig, helper: str, host: str) -> Finding:
    from mobysession.services.credential_helper import ask_helper

    try:
        answer = await ask_helper(helper, host, config=config.path, seconds=limits.CREDENTIAL_HELPER_TIMEOUT)
    except CredentialError as error:
        fix = f"Run: echo {host} | docker-credential-{helper} get"
        return Finding.of_error("credentials", error, fix=fix)
    has = "has no login" if answer is None else "has a login"
    return Finding("credentials", "ok", f"docker-credential-{helper} answers, and {has} for {host}")


async def examine_ssh_agent() -> list[Finding]:
    """Ask the user's agent for its keys, which `--ssh default` forwards."""
    agent = SshAgent()
    try:
        keys = await trio.to_thread.run_sync(agent.check)
    except SshError as error:
        # Without an agent only some builds fail, which name one; one that is named and not there is a mistake.
        return [Finding.of_error("ssh", error, level="fail" if os.environ.get("SSH_AUTH_SOCK") else "warn")]
    if not keys:
        return [Finding("ssh", "warn", f"the agent at {agent.path} has no keys", "Add one with ssh-add.")]
    kinds = ", ".join(sorted({key.kind for key in keys}))
    return [Finding("ssh", "ok", f"the agent at {agent.path} has {_count(len(keys), 'key')}: {kinds}")]


async def examine_node_id() -> list[Finding]:
    """Look at the file by which engines tell this user's directories from others'."""
    return [await trio.to_thread.run_sync(_examine_node_id, dockerconfig.config_dir() / _NODE_ID)]


def _examine_node_id(path: Path) -> Finding:
    again = f"rm -r {path}: the next build makes a new one, and sends directories as a whole once."
    try:
        state = path.stat()
        content = path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return _examine_place(path)
    except UnicodeDecodeError:
        return Finding("node ID", "fail", f"{path} does not hold an ID", again)
    except OSError as error:
        fix = f"chmod 600 {path}" if isinstance(error, PermissionError) else again
        return Finding("node ID", "fail", f"{path} cannot be read: {error.strerror}", fix)
    if not re.fullmatch("[0-9a-f]{64}", content):
        return Finding("node ID", "fail", f"{path} does not hold 32 bytes in hex", again)
    if state.st_mode & _WRITABLE_BY_OTHERS:
        message = f"{path} can be written by others on this machine, who could have their directories taken for yours"
        return Finding("node ID", "fail", message, f"chmod 600 {path}")
    if state.st_mode & _OPEN_TO_OTHERS:
        message = f"{path} can be read by others on this machine, who could ask the engine for your directories"
        return Finding("node ID", "warn", message, f"chmod 600 {path}")
    return Finding("node ID", "ok", str(path))


def _examine_place(path: Path) -> Finding:
    """Judge where the ID will be made: in a folder that is there, or in the first above it that is."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return Finding("node ID", "ok", f"{path} does not exist; the first build makes it")
    message = f"{path} cannot be made: builds are known to the engine by the name of the folder"
    return Finding("node ID", "warn", message, f"Make {folder} writable, or point DOCKER_CONFIG elsewhere.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
