"""What to do about failures that many builds meet, by the words in which BuildKit reports them.

The words are stable enough across versions to look for, and a hint that is missing costs nothing; so only phrases that
can mean one thing are listed. The first that is found counts.
"""

from __future__ import annotations

import re

from mobysession.buildkit.printable import printable

__all__ = ["hint_for"]

_NOT_IN_CONTEXT = (
    "{name} is not in the build context: check the path, which counts from the context's directory, and .dockerignore."
)
_NO_AGENT = (
    "The Dockerfile asks for the SSH agent {name}: pass it with --ssh {name}, for the agent of SSH_AUTH_SOCK, or"
    " --ssh {name}=KEYFILE."
)

_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"no active session",
        (
            "The engine lost the session of this build: keep it open until the build has ended, and give builds that"
            " run at the same time a session each."
        ),
    ),
    (
        r"failed to read dockerfile: open (?:\S*/)?(?P<name>[^/\s:]+): no such file or directory",
        "There is no {name} in the Dockerfile's directory: name the file with --file (-f).",
    ),
    (
        r"secret (?P<name>\S+): not found|secret (?P<other>\S+) not found",
        "The Dockerfile asks for this secret: pass it with --secret id={name},src=FILE or --secret id={name},env=NAME.",
    ),
    (
        r"no SSH key \"(?P<name>[^\"]+)\" forwarded|no ssh handler for id (?P<other>\S+)",
        _NO_AGENT,
    ),
    (
        r"no SSH key \"\" forwarded",
        _NO_AGENT.replace("{name}", "default"),
    ),
    (
        r"could not parse ssh: .*(?:All pipe instances are busy|open //\./pipe)",
        "The SSH agent of Windows did not answer: see that its service runs (Get-Service ssh-agent), and try again.",
    ),
    (
        r"error getting credentials.*?\"(?P<name>docker-credential-[\w.-]+)\": executable file not found",
        (
            "docker's configuration names the credential helper {name}, which is not installed: remove credsStore and"
            " credHelpers from ~/.docker/config.json, or install it."
        ),
    ),
    (
        r"changes out of order|invalid link \S+ to unknown path",
        (
            "The list of files that was sent is not in the order that the engine wants. mobysession sorts it as the"
            " engine does: if it was sent by mobysession, report this with the names in the message."
        ),
    ),
    (
        r"http2: frame too large",
        (
            "Something between here and the engine answered in another protocol than HTTP/2: mostly a proxy that does"
            " not pass upgraded connections through. Try another way to attach (--attach tunnel)."
        ),
    ),
    (
        r"only one connection allowed",
        "Two sessions used one connection or one session ID: open a session for each build.",
    ),
    (
        r"Syntax error - can't find = in \"(?P<name>[^\"]*)",
        (
            "In ENV and LABEL every word is NAME=VALUE: put quotes around a value with spaces, and check {name}. In a"
            " heredoc this means that the frontend is too old for it."
        ),
    ),
    (
        r"the --(?P<name>mount|chmod|link|ssh|secret) option requires BuildKit",
        (
            "An engine's old builder answered, which has no --{name}. mobysession asks for BuildKit: see that no other"
            " client ran this build (docker-py's images.build is the old builder)."
        ),
    ),
    (
        r"granting entitlement (?P<name>\S+) is not allowed by build daemon configuration",
        (
            "The engine does not grant {name}: add it to builder.entitlements in the engine's daemon.json"
            " (insecure-entitlements in buildkitd.toml), or leave --allow {name} out."
        ),
    ),
    (
        r"network\.host is not (?:allowed|enabled)",
        "The build needs the host's network: pass --allow network.host, and have the engine's configuration grant it.",
    ),
    (
        r"(?P<name>security\.insecure|device[\w.=/-]*) is not (?:allowed|enabled)",
        "The build needs an entitlement: pass --allow {name}, and have the engine's configuration grant it.",
    ),
    (
        (
            r"pull access denied|insufficient_scope|unauthorized: authentication required|"
            r"requested access to the resource is denied|authorization failed|401 Unauthorized|"
            r"no basic auth credentials|"
            r"failed to fetch (?:oauth|anonymous) token: (?:unauthorized|unexpected status[^\n]*40[13])"
        ),
        "The registry refused: check the name of the image, and log in with docker login if it is private.",
    ),
    (
        r"lookup \S+ on \S+|lookup [^\s:]+: (?:Temporary failure|server misbehaving|i/o timeout)|no such host",
        "The engine, not this machine, looks the name up: check its DNS and proxy settings.",
    ),
    (
        r"connect: connection refused|i/o timeout|network is unreachable|TLS handshake timeout",
        "The engine, not this machine, opens this connection: check its network and proxy settings.",
    ),
    (
        r"x509: certificate signed by unknown authority",
        "The engine does not trust the registry's certificate: install its authority where the engine runs.",
    ),
    (
        r"(?P<name>[\w.-]+(?::\d+)?/[\w./-]+(?:[:@][\w.:-]+)?): not found",
        "The registry has no {name}: check the name and the tag.",
    ),
    (
        r"failed to (?:compute cache key|calculate checksum)[^\n]*?\"(?P<name>/[^\"]*)\":? not found",
        _NOT_IN_CONTEXT,
    ),
    (
        # Engines up to 26 say where they looked, in a directory of their own, when a source's directory is missing.
        r"failed to walk \S*/buildkit-mount\d+/(?P<name>[^\s:]+): lstat",
        _NOT_IN_CONTEXT,
    ),
    (
        r"no space left on device",
        "The disk of the engine is full: docker builder prune removes cached steps, docker system prune unused images.",
    ),
    (
        r"subdir not supported yet",
        "This engine cannot build a directory of a repository; Docker 23 and later can.",
    ),
    (
        r"unknown instruction: (?P<name>\S+)",
        (
            "There is no instruction {name}. Where it stands in a heredoc, the frontend of this engine is too old for"
            " those: put # syntax=docker/dockerfile:1 on the first line of the Dockerfile."
        ),
    ),
    (
        (
            r"[Uu]nknown flag: (?:--)?"
            r"(?P<name>mount|link|network|chmod|checksum|parents|exclude|security|keep-git-dir|unpack|device|start-\S+)"
        ),
        (
            "The frontend of this engine is too old for --{name}: put # syntax=docker/dockerfile:1 on the first line of"
            " the Dockerfile."
        ),
    ),
)


def hint_for(text: str) -> str | None:
    """Return what the reader of ``text``, a message of the engine, can do; None where nothing is known to help."""
    for pattern, hint in _HINTS:
        found = re.search(pattern, text)
        if found is not None:
            names = found.groupdict()
            return hint.replace("{name}", printable(names.get("name") or names.get("other") or ""))
    return None
