"""The values of database users: a password alone, or a document with everything that a client needs."""

from __future__ import annotations

from typing import ClassVar

from shiftable.accounts import Account, account_of, password, read_account
from shiftable.config import Credential
from shiftable.errors import ConfigError, Conflict
from shiftable.masking import Masked
from shiftable.secrets.rotator import Rotator, needs_a_first

__all__ = [
    "OneUser",
    "admin_account",
    "document_problem",
    "next_turn",
    "whose_turn",
]


class OneUser(Rotator):
    """A user who keeps the name: the value is the password, or a JSON document with ``username`` and ``password``."""

    begins: ClassVar[bool] = False

    user: str | None
    """The user's name, where the value is a password alone."""

    def check(self, current: Masked) -> str | None:
        """Say why a value is no credential."""
        found = read_account(current, self.user)
        return found if isinstance(found, str) else None

    def parts(self, value: Masked) -> tuple[Masked, ...]:
        """Return the value and the password in it."""
        return value, account_of(value, self.user).password

    def create(self, current: Masked | None) -> Masked:
        """Make a password, in a document if the current value is one."""
        if current is None:
            raise needs_a_first(self.kind)
        account = account_of(current, self.user)
        return account.following(account.username, password())


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
