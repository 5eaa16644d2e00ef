"""Keep secrets out of everything that is saved, shown or sent: recipes, command lines, addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

SECRET_NAME = re.compile(
    r"(^|[_.-])(token|passw(or)?d|pwd|secret|(api|access|auth|private)[_-]?key|credentials?)($|[_.-])", re.IGNORECASE
)
# Token prefixes of Hugging Face, GitHub, GitLab, OpenAI, AWS, Slack, Google, and JSON web tokens.
PREFIXES = (
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-(?:proj-|ant-)?[A-Za-z0-9]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
)
# The user part of an address: `user@`, `user:password@`, and S3 keys, which can contain a slash.
USER = r"(?<=://)(?:[^/\s@]+(?=@)|[^/\s@]*:(?![0-9]+(?:[/?#\s]|$))[^\s@]*(?=@))"
QUERY = (
    r"(?<=[?&#;])(?i:(?:[\w-]*[-_])?(?:auth|access)?_?-?(?:token|signature|secret|passw(?:or)?d|pwd|credentials?"
    r"|(?:api|access)_?-?key|key|sig|auth|jwt|code))=[^&#\s]+"
    # Parameters with other names, if their values are long and look random.
    r"|(?<=[?&#;])[\w.-]+=(?=[\w%+/=.~-]*[0-9])(?=[\w%+/=.~-]*[A-Za-z])[\w%+/=.~-]{24,}"
)
SECRET_TEXT = re.compile("|".join((PREFIXES, USER, QUERY)))
SECRET_HINT = "put the token in HF_TOKEN: export HF_TOKEN=... in the shell; recipes are saved and shared"
OPTION = re.compile(r"--?([\w.-]+?)(=.*)?", re.DOTALL)

_command: list[str] | None = None


def is_secret_name(name: str) -> bool:
    return bool(SECRET_NAME.search(name))


def holds_secret(value: object) -> bool:
    """Whether a value contains a token, or an address with a password or signature, at any depth."""
    if isinstance(value, str):
        return bool(SECRET_TEXT.search(value))
    if isinstance(value, dict):
        return any(holds_secret(key) or holds_secret(item) for key, item in value.items())
    return isinstance(value, (list, tuple)) and any(holds_secret(item) for item in value)


def without_secrets(text: str) -> str:
    return SECRET_TEXT.sub("***", text)


def public_address(address: str) -> str:
    """The scheme, host, port and path of an address, without user and query."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else without_secrets(address)


def note_command(arguments: Sequence[str]) -> None:
    """Remember the fasttune command line, without secrets. The command line of a program that imports fasttune is not
    recorded: it may contain anything.
    """
    global _command
    words, hide = [], False
    for word in arguments:
        option = OPTION.fullmatch(word)
        is_secret = option is not None and is_secret_name(option.group(1))
        has_value = option is not None and option.group(2) is not None
        shown = f"{word.partition('=')[0]}=***" if is_secret and has_value else without_secrets(word)
        words.append("***" if hide else shown)
        hide = is_secret and not has_value
    _command = ["fasttune", *words]


def noted_command() -> list[str] | None:
    return _command
