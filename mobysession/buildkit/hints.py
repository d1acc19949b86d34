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
_NOT_IN_STAGE = (
    "{name} is not in {tree}: check the path, which counts from the root of that stage, image or named context."
)
_NOT_IN_TREE = (
    "{name} is not in what the step copies from: check the path, which counts from the root of that tree, and where"
    " this is a directory of yours, .dockerignore."
)
_NO_AGENT = (
    'The Dockerfile asks for the SSH agent {name}: pass it with ssh=["{name}"] (--ssh {name}), for the agent of'
    ' SSH_AUTH_SOCK, or ssh=["{name}=KEYFILE"] (--ssh {name}=KEYFILE).'
)
_SYNTAX = "put # syntax=docker/dockerfile:1 on the first line of the Dockerfile."

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
        (
            "There is no {name} where the engine looked for the Dockerfile: name it with file= (--file, -f); in an"
            " archive the path counts from its root."
        ),
    ),
    (
        r"secret (?P<name>\S+): not found|secret (?P<other>\S+) not found",
        (
            'The Dockerfile asks for this secret: pass it with secrets={"{name}": ...} (--secret id={name},src=FILE or'
            " --secret id={name},env=NAME)."
        ),
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
            " not pass upgraded connections through. Try another way to attach, attach='tunnel' (--attach tunnel)."
        ),
    ),
    (
        r"only one connection allowed",
        "Two sessions used one connection or one session ID: open a session for each build.",
    ),
    (
        r"Syntax error - can't find = in \"(?P<name>[^\"]*)",
        (
            "In ENV and LABEL every word is NAME=VALUE: put quotes around a value with spaces, and check {name}. If it"
            f" is in a heredoc, which engines before Docker 23 do not know: {_SYNTAX}"
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
            " (insecure-entitlements in buildkitd.toml), or leave {name} out of allow= (--allow)."
        ),
    ),
    (
        r"network\.host is not (?:allowed|enabled)",
        (
            'The build needs the host\'s network: pass allow=["network.host"] (--allow network.host), and have the'
            " engine's configuration grant it."
        ),
    ),
    (
        r"(?P<name>security\.insecure|device[\w.=/-]*) is not (?:allowed|enabled)",
        (
            'The build needs an entitlement: pass allow=["{name}"] (--allow {name}), and have the engine\'s'
            " configuration grant it."
        ),
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
        r"first record does not look like a TLS handshake|server gave HTTP response to HTTPS client",
        (
            "The registry does not speak TLS: add it to insecure-registries in the engine's daemon.json, or put TLS in"
            " front of it."
        ),
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
        # What is in an image is looked for where the engine has mounted it, and some say so.
        r"lstat (?:\S+/(?:merged|buildkit-mount\d+))?(?P<name>/[^\s:]*): no such file or directory",
        _NOT_IN_STAGE,
    ),
    (
        r"no space left on device",
        "The disk of the engine is full: docker builder prune removes cached steps, docker system prune unused images.",
    ),
    (
        r"requested feature (?:merge|diff)op +has been disabled|unknown API capability (?:merge|diff)op",
        (
            "llb.merge and llb.diff need an engine that keeps images in containerd: enable the containerd image store"
            " in its configuration (Docker 24 and later), or copy the files instead."
        ),
    ),
    (
        r"subdir not supported yet",
        "This engine cannot build a directory of a repository; Docker 23 and later can.",
    ),
    (
        # Frontends that say "on line" have heredocs, and none begins above the second line.
        r"parse error line (?![12]:)\d+: unknown instruction: (?P<name>\S+)(?!\S| \(did you mean)",
        (
            "There is no instruction {name}. If it is in a heredoc, which engines before Docker 23 do not know:"
            f" {_SYNTAX}"
        ),
    ),
    (
        (
            r"[Uu]nknown flag: (?:--)?"
            r"(?P<name>mount|link|network|chmod|checksum|parents|exclude|security|keep-git-dir|unpack|device|start-\S+)"
        ),
        f"The frontend of this engine is too old for --{{name}}: {_SYNTAX}",
    ),
)


def hint_for(text: str, *, step: str | None = None) -> str | None:
    """Return what the reader of ``text``, a message of the engine, can do; None where nothing is known to help.

    ``step`` is the name of the step that failed: no message says where it copies from.
    """
    for pattern, hint in _HINTS:
        found = re.search(pattern, text)
        if found is None:
            continue
        names = found.groupdict()
        name = names.get("name") or names.get("other") or ""
        tree = _tree_of(step or "", name) if hint in (_NOT_IN_CONTEXT, _NOT_IN_STAGE) else ""
        if hint is _NOT_IN_CONTEXT:
            hint = _NOT_IN_TREE if tree is None else _NOT_IN_STAGE if tree else _NOT_IN_CONTEXT
        elif hint is _NOT_IN_STAGE and not tree:
            continue
        return hint.replace("{tree}", printable(tree or "")).replace("{name}", printable(name))
    return None


def _tree_of(step: str, path: str) -> str | None:
    """Return what an instruction reads ``path`` from: a stage, an image or a named context; empty is the build context.

    None where it cannot be told: BuildKit names the steps of a Dockerfile after their instructions, while those of
    graphs and of other frontends have names of any kind.
    """
    found = re.match(r"\[[^\]]*\d+/\d+\] (?P<verb>COPY|ADD|RUN) +(?P<flags>(?:--\S+\s+)*)", step)
    if found is None:
        return None
    flags = found["flags"].split()
    if found["verb"] == "RUN":
        flags = next((fields for fields in map(_mount_flags, flags) if _reads(fields, path)), [])
        if not flags:
            return None
    return next((flag.removeprefix("--from=") for flag in flags if flag.startswith("--from=")), "")


def _mount_flags(flag: str) -> list[str]:
    """Return what a ``--mount`` says as if each of its keys were a flag."""
    return [f"--{field}" for field in flag.removeprefix("--mount=").split(",")] if flag.startswith("--mount=") else []


def _reads(flags: list[str], path: str) -> bool:
    sources = [flag.partition("=")[2] for flag in flags if flag.startswith(("--source=", "--src="))]
    return any(source.strip("/") == path.strip("/") for source in sources)
