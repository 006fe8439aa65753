"""The values of database users: a password alone, or a document with everything that a client needs."""

from __future__ import annotations

import json
from typing import Any

import attrs

from shiftable.config import Credential
from shiftable.errors import ConfigError, Conflict
from shiftable.masking import Masked
from shiftable.rotation._token import password

__all__ = [
    "Account",
    "account_of",
    "admin_account",
    "document_problem",
    "next_turn",
    "read_account",
    "whose_turn",
]


@attrs.frozen
class Account:
    """Who logs in, with what, and where.

    Args:
        document: the value as JSON, where it is a document; its other names are kept.
    """

    username: str
    password: Masked
    host: str | None = None
    port: int | None = None
    dbname: str | None = None
    document: Masked | None = attrs.field(default=None, repr=False)

    def following(self, username: str, password: str) -> Masked:
        """Return the value of another user or password, in the same form."""
        if self.document is None:
            return Masked(password)
        content: dict[str, Any] = json.loads(self.document.reveal())
        return Masked(json.dumps(content | {"username": username, "password": password}, ensure_ascii=False))


def read_account(value: Masked, username: str | None) -> Account | str:
    """Return what a value says, or why it says nothing; the reason shows nothing of the value.

    A JSON object is a document with ``username`` and ``password``, and if it likes ``host``, ``port`` and ``dbname``,
    as AWS writes them. Everything else is a password.

    Args:
        username: of a password alone.
    """
    try:
        text = value.reveal()
    except ValueError:
        return "it is not text"
    content = _document(text)
    if content is None:
        return Account(username, value) if username else "it is no JSON document, and `user` is not given"
    facts = {name: content.get(name) for name in ("username", "password", "host", "dbname")}
    wrong = [name for name, fact in facts.items() if not isinstance(fact, str | None) or fact == ""]
    missing = [name for name in ("username", "password") if facts[name] is None]
    port = content.get("port")
    port = int(port) if isinstance(port, str) and port.isascii() and port.isdigit() else port
    if wrong or missing or not (port is None or type(port) is int):
        names = ", ".join(dict.fromkeys([*wrong, *missing])) or "port"
        return f"it is a JSON document in which {names} is not right: username and password must be text"
    return Account(
        str(facts["username"]), Masked(str(facts["password"])), facts["host"], port, facts["dbname"], Masked(text)
    )


def account_of(value: Masked, username: str | None) -> Account:
    """Return what a value says.

    Raises:
        Conflict: nothing.
    """
    found = read_account(value, username)
    if isinstance(found, str):
        raise Conflict(f"the value is no credential: {found}")
    return found


def admin_account(credential: Credential, username: str | None) -> Account:
    """Read the administrator's credential: a password, or such a document.

    Raises:
        ConfigError: it is neither, or is a password without a name.
    """
    found = read_account(Masked(credential.reveal()), username)
    if isinstance(found, str):
        raise ConfigError(f"the credential `admin`: {found.replace('`user`', '`admin_user`')}")
    return found


def document_problem(value: Masked) -> str | None:
    """Say why a value is no document with a user; ``None`` if it is one."""
    found = read_account(value, None)
    return "it is no JSON document with username and password" if isinstance(found, str) else None


def next_turn(current: Masked, users: tuple[str, ...]) -> Masked:
    """Make a password for the one of two users who is not current."""
    account = account_of(current, None)
    first, second = users
    return account.following(second if account.username == first else first, password())


def whose_turn(new: Masked, old: Masked, users: tuple[str, ...]) -> Account:
    """Return the account of a new value.

    Raises:
        Conflict: it is neither user's, or that of the current one.
    """
    wanted = account_of(new, None)
    if wanted.username not in users or wanted.username == account_of(old, None).username:
        raise Conflict(f"the pending value belongs to {wanted.username!r}, whose turn it is not; replace it")
    return wanted


def _document(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
