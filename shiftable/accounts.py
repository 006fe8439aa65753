"""What database users log in with: a password alone, or a document with everything that a client needs."""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

import attrs

from shiftable.errors import Conflict
from shiftable.masking import Masked

__all__ = ["Account", "account_of", "password", "read_account"]


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


def password() -> str:
    """Make a password that servers with rules for passwords take too, and URLs without escaping: 240 bits."""
    while True:
        made = "".join(secrets.choice(_ALPHABET) for _ in range(40))
        if all(set(made) & set(wanted) for wanted in _CLASSES):
            return made


_MARKS = "._~"
_ALPHABET = string.ascii_letters + string.digits + _MARKS
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, _MARKS)


def _document(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
