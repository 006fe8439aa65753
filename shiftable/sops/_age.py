"""Who can open a file: age recipients and identities."""

from __future__ import annotations

import binascii
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import ConfigError, InvalidArgument, Unauthenticated
from shiftable.masking import Masked

__all__ = ["Identities", "find_identities", "generate_identity", "needed", "parse_identities", "unwrapped", "wrapped"]


Ask = Callable[[str], Masked]
"""Asks a person for the passphrase of a key; gets the name of its file."""

_TRIES = 3


@attrs.frozen
class _Protected:
    """An ssh key with a passphrase. Whose it is stands in clear, so that nobody is asked in vain."""

    source: str
    recipient: str
    _content: Masked = attrs.field(repr=False)

    def opened(self, passphrase: Masked) -> Any | None:  # noqa: ANN401  pyrage is untyped
        """Return the key; ``None`` if the passphrase is wrong."""
        serialization = needed("cryptography.hazmat.primitives.serialization")
        needed("bcrypt")
        try:
            key = serialization.load_ssh_private_key(self._content.reveal_bytes(), passphrase.reveal_bytes())
        except ValueError:
            return None
        bare = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        return needed("pyrage").ssh.Identity.from_buffer(bare)


@attrs.frozen
class Identities:
    """Private keys that may open a file, none of which ever shows itself.

    Args:
        sources: where they come from, in the order in which they are tried.
        recipients: what to encrypt for so that one of them opens it; ssh keys are not listed.
        unusable: sentences about keys that were found where keys usually are, and cannot be used.
        looked: where keys were looked for and are none.
    """

    _keys: tuple[Any, ...] = attrs.field(repr=False)
    sources: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    looked: tuple[str, ...] = ()
    _protected: tuple[_Protected, ...] = attrs.field(default=(), repr=False)
    _ask: Ask | None = attrs.field(default=None, repr=False)
    _opened: dict[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

    def __add__(self, other: Identities) -> Identities:
        return Identities(
            self._keys + other._keys,
            self.sources + other.sources,
            self.recipients + other.recipients,
            self.unusable + other.unusable,
            self.looked + other.looked,
            self._protected + other._protected,
            self._ask or other._ask,
            self._opened | other._opened,
        )

    def __bool__(self) -> bool:
        """Whether there is any key that may be used."""
        return bool(self._keys or (self._protected and self._ask))

    def open(self, armored: str) -> bytes | None:
        """Decrypt one age file; ``None`` if no key fits or it is damaged: age does not tell which."""
        pyrage = needed("pyrage")
        try:
            return bytes(pyrage.decrypt(armored.encode(), [*self._keys, *self._opened.values()]))
        except pyrage.DecryptError:
            return None

    def unlock(self, recipient: str) -> bool:
        """Ask for the passphrase of the key that belongs to a recipient; tell whether there is a key more now."""
        for key in self._protected:
            if key.recipient.split()[:2] == recipient.split()[:2] and key.source not in self._opened and self._ask:
                for _ in range(_TRIES):
                    opened = key.opened(self._ask(key.source))
                    if opened is not None:
                        self._opened[key.source] = opened
                        return True
        return False

    def said(self) -> str:
        """Say which keys were tried, in order, and which could not be."""
        tried = f"tried the keys of {', '.join(self.sources)}" if self.sources else "there is no key"
        locked = (
            f"; the ssh key {key.source} is protected by a passphrase, "
            "for which only the commands for files ask, on a terminal"
            for key in self._protected
            if key.source not in self._opened
        )
        nothing = f"; looked in {', '.join(self.looked)}" if self.looked and not self.sources else ""
        return tried + nothing + "".join(locked) + "".join(f"; {sentence}" for sentence in self.unusable)


def needed(module: str) -> Any:  # noqa: ANN401  none of these modules but yaml is typed
    """Import a package of the extra ``sops`` where it is first used."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        name = module.partition(".")[0]
        raise ConfigError(f'SOPS files need the package {name}; run: pip install "shiftable[sops]"') from exc


def generate_identity() -> tuple[Masked, str]:
    """Make a key pair: the private key, and the recipient ``age1…`` that others encrypt for."""
    identity = needed("pyrage").x25519.Identity.generate()
    return Masked(str(identity)), str(identity.to_public())


def parse_identities(text: Masked, *, source: str = "the key") -> Identities:
    """Read private keys: the lines of an age key file, or one OpenSSH or PEM private key.

    Raises:
        ConfigError: names the source and the line, never the content.
    """
    content = text.reveal_bytes()
    if b"PRIVATE KEY-----" in content:
        return _ssh_identities(content, source)
    keys = [_age_identity(line, source, number) for number, line in _lines(content.decode(errors="replace"))]
    if not keys:
        raise ConfigError(f"{source} holds no key")
    return Identities(tuple(keys), (source,), tuple(str(key.to_public()) for key in keys))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are neither empty nor comments, with their numbers."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return ((number, line) for number, line in lines if line and not line.startswith("#"))


def _age_identity(line: str, source: str, number: int) -> Any:  # noqa: ANN401  pyrage is untyped
    pyrage = needed("pyrage")
    try:
        return pyrage.x25519.Identity.from_str(line)
    except pyrage.IdentityError:
        pass
    raise ConfigError(f"{source}, line {number}: this is no identity of the kind AGE-SECRET-KEY-1…")


def _ssh_identities(content: bytes, source: str) -> Identities:
    pyrage = needed("pyrage")
    why = "is no ssh key of the kind ed25519 or rsa"
    try:
        return Identities((pyrage.ssh.Identity.from_buffer(content),), (source,))
    except pyrage.IdentityError as exc:
        protected = "decrypted first" in str(exc)
    if protected:
        recipient = _public_of(content)
        if recipient:
            return Identities((), protected=(_Protected(source, recipient, Masked(content)),))
        why = "is protected by a passphrase in an old form; renew it with `ssh-keygen -p`, or use an age key"
    raise ConfigError(f"the ssh key {source} {why}")


def _public_of(content: bytes) -> str:
    """Return the public key that an OpenSSH private key begins with; empty if it is in another form."""
    try:
        raw = binascii.a2b_base64(b"".join(content.split(b"-----")[2].split()))
        fields, rest = [], raw.removeprefix(b"openssh-key-v1\0")
        for name in ("cipher", "kdf", "options", "count", "key"):
            size = 1 if name == "count" else int.from_bytes(rest[:4], "big")
            fields.append(rest[4 : 4 + size])
            rest = rest[4 + size :] if name != "count" else rest[4:]
        blob = fields[-1]
        kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode()
    except (IndexError, ValueError):
        return ""
    known = raw.startswith(b"openssh-key-v1\0") and kind in {"ssh-ed25519", "ssh-rsa"}
    return f"{kind} {binascii.b2a_base64(blob, newline=False).decode()}" if known else ""


def find_identities(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    ask: Ask | None = None,
) -> Identities:
    """Collect the private keys of this user, in the order in which they are tried.

    From the environment: ``SHIFTABLE_AGE_KEY`` (the key itself), ``SHIFTABLE_AGE_KEY_FILE``, ``SOPS_AGE_KEY``,
    ``SOPS_AGE_KEY_FILE``, ``SOPS_AGE_SSH_PRIVATE_KEY_FILE``; from files: ``~/.config/shiftable/age.key`` and
    ``~/.config/sops/age/keys.txt``; then the ssh keys ``~/.ssh/id_ed25519`` and ``~/.ssh/id_rsa``.

    Args:
        file: used in place of ``~/.config/shiftable/age.key``.
        ask: asks for the passphrase of an ssh key that a document is encrypted for, and only then.

    Raises:
        ConfigError: a variable names a key that cannot be used. A file in its usual place that cannot be used is
            only reported when nothing else opens a document.
    """
    environ, home = os.environ if environ is None else environ, home or Path.home()
    found = Identities((), ask=ask)
    for name in ("SHIFTABLE_AGE_KEY", "SOPS_AGE_KEY"):
        if text := environ.get(name):
            found += parse_identities(Masked(text), source=name)
        else:
            found += Identities((), looked=(name,))
        found += _named(f"{name}_FILE", environ)
    found += _named("SOPS_AGE_SSH_PRIVATE_KEY_FILE", environ)
    ssh = (home / ".ssh/id_ed25519", home / ".ssh/id_rsa")
    for path in (file or home / ".config/shiftable/age.key", home / ".config/sops/age/keys.txt", *ssh):
        if not path.exists():
            found += Identities((), looked=(str(path),))
            continue
        try:
            found += _from_file(path, str(path))
        except ConfigError as exc:
            found += Identities((), unusable=(str(exc),))
    return found


def _named(variable: str, environ: Mapping[str, str]) -> Identities:
    """Return the keys of the file that a variable names."""
    name = environ.get(variable)
    if name:
        return _from_file(Path(name), f"{name} ({variable})")
    return Identities((), looked=(variable,))


def _from_file(path: Path, source: str) -> Identities:
    try:
        content = Masked(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{source} cannot be read: {exc.strerror}") from exc
    return parse_identities(content, source=source)


def wrapped(key: bytes, recipient: str) -> str:
    """Encrypt the data key for one recipient.

    Raises:
        InvalidArgument: it is no public key that age knows.
    """
    pyrage = needed("pyrage")
    kind = pyrage.ssh if recipient.startswith("ssh-") else pyrage.x25519
    try:
        parsed = kind.Recipient.from_str(recipient)
    except pyrage.RecipientError as exc:
        start = recipient[:12]  # not more: it may be a private key, in the wrong place
        why = f"'{start}…' is no recipient; give a public key of the kind age1…, ssh-ed25519 or ssh-rsa"
        raise InvalidArgument(why) from exc
    return str(pyrage.encrypt(key, [parsed], armored=True), "ascii")


def unwrapped(wraps: Iterable[tuple[str, str]], identities: Identities) -> bytes:
    """Decrypt the data key from any of its (recipient, armored age file).

    Raises:
        Unauthenticated: says for whom the file is and which keys were tried.
    """
    wraps = tuple(wraps)
    for asking in (False, True):
        for recipient, armored in wraps:
            if asking and not identities.unlock(recipient):
                continue
            key = identities.open(armored)
            if key is not None and len(key) == 32:
                return key
    readers = ", ".join(recipient for recipient, _ in wraps) or "nobody that age knows"
    hint = "(SHIFTABLE_AGE_KEY_FILE names another one)"
    raise Unauthenticated(f"no key opens it: it is encrypted for {readers}; {identities.said()} {hint}")
