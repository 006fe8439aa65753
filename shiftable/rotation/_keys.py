"""Key pairs: of age, which encrypt, and of ssh, which log in."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs

from shiftable.errors import ConfigError
from shiftable.masking import Masked
from shiftable.secrets.rotator import Rotator

__all__ = ["AgeKey", "SshKey"]


@attrs.frozen(kw_only=True)
class _KeyPair(Rotator):
    """What both have in common: the private half is the value, the public halves may be stored beside.

    Args:
        public: key of the same store under which the public halves stand, one on each line, newest first: the new one
            and the old one from the moment of the change, the new one alone after ``grace``. Whatever trusts the key
            reads it there.
    """

    public: str | None = None

    def beside(self, values: Sequence[Masked]) -> Mapping[str, str]:
        """Return the public halves."""
        if self.public is None:
            return {}
        return {self.public: "".join(f"{line}\n" for line in dict.fromkeys(map(self._public_half, values)))}

    def check(self, current: Masked) -> str | None:
        """Say why a value is no private key of this kind."""
        try:
            self._public_half(current)
        except ValueError:
            return "it is no private key of that kind, or it has a passphrase"
        return None

    def test(self, new: Masked) -> None:
        """Read the key as whoever uses it will."""
        self._public_half(new)

    @abstractmethod
    def _public_half(self, value: Masked) -> str:
        """Return the public half on one line; ``ValueError`` if the value is no such key."""


@attrs.frozen(kw_only=True)
class AgeKey(_KeyPair):
    """An age identity (``AGE-SECRET-KEY-1…``), whose public half others encrypt for.

    What was encrypted for the old key stays readable with the previous version until ``grace`` is over; then it must
    have been encrypted anew.
    """

    kind: ClassVar[str] = "age-key"

    def create(self, current: Masked | None) -> Masked:  # noqa: ARG002  a key pair follows from no other
        """Make a key pair."""
        _needs("pyrage")
        from shiftable import sops

        private, _ = sops.generate_identity()
        return private

    def _public_half(self, value: Masked) -> str:
        _needs("pyrage")
        from shiftable import sops

        try:
            found = sops.parse_identities(value).recipients
        except ConfigError:
            found = ()
        lines = [line for line in found if line.startswith("age1")]
        if len(lines) != 1:
            raise ValueError("it is no age identity")
        return lines[0]


@attrs.frozen(kw_only=True)
class SshKey(_KeyPair):
    """An Ed25519 key in OpenSSH's format, without a passphrase: the store is what protects it.

    The public halves have the form of ``authorized_keys``: with both of them there, whoever comes with the old key and
    whoever comes with the new one is let in.

    Args:
        comment: stands at the end of the public line.
    """

    kind: ClassVar[str] = "ssh-key"

    comment: str = attrs.field(default="shiftable")

    @comment.validator
    def _is_one_line(self, _: object, value: str) -> None:
        if not value.isprintable():
            raise ValueError("comment must be one line")

    def create(self, current: Masked | None) -> Masked:  # noqa: ARG002  as above
        """Make a key pair."""
        _needs("cryptography")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        made = Ed25519PrivateKey.generate()
        return Masked(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())

    def _public_half(self, value: Masked) -> str:
        _needs("cryptography")
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

        try:
            key = load_ssh_private_key(value.reveal_bytes(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("it is no ssh key without a passphrase") from None
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return f"{line} {self.comment}".rstrip()


def _needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f'keys need the package {package}; run: pip install "shiftable[sops]"')
