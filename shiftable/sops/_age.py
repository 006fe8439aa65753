"""Who can open a file: age recipients and identities."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import ConfigError, InvalidArgument, Unauthenticated
from shiftable.masking import Masked

__all__ = ["Identities", "find_identities", "generate_identity", "needed", "parse_identities", "unwrapped", "wrapped"]


@attrs.frozen
class Identities:
    """Private keys that may open a file, none of which ever shows itself.

    Args:
        sources: where they come from.
        recipients: what to encrypt for so that one of them opens it; ssh keys are not listed.
        unusable: sentences about keys that were found where keys usually are, and cannot be used.
    """

    _keys: tuple[Any, ...] = attrs.field(repr=False)
    sources: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    def __add__(self, other: Identities) -> Identities:
        return Identities(
            self._keys + other._keys,
            self.sources + other.sources,
            self.recipients + other.recipients,
            self.unusable + other.unusable,
        )

    def open(self, armored: str) -> bytes | None:
        """Decrypt one age file; ``None`` if no key fits or it is damaged: age does not tell which."""
        pyrage = needed("pyrage")
        try:
            return bytes(pyrage.decrypt(armored.encode(), list(self._keys)))
        except pyrage.DecryptError:
            return None


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
        return Identities((_ssh_identity(content, source),), (source,))
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


def _ssh_identity(content: bytes, source: str) -> Any:  # noqa: ANN401  pyrage is untyped
    pyrage = needed("pyrage")
    try:
        return pyrage.ssh.Identity.from_buffer(content)
    except pyrage.IdentityError as exc:
        if "decrypted first" in str(exc):
            why = "is protected by a passphrase; use a key without one, or an age key"
        else:
            why = "is no ssh key of the kind ed25519 or rsa"
    raise ConfigError(f"the ssh key {source} {why}")


def find_identities(
    file: Path | None = None, *, environ: Mapping[str, str] | None = None, home: Path | None = None
) -> Identities:
    """Collect the private keys of this user, in the order in which they are tried.

    ``SHIFTABLE_AGE_KEY`` (the key itself), ``SHIFTABLE_AGE_KEY_FILE``, ``SOPS_AGE_KEY``, ``SOPS_AGE_KEY_FILE``, then
    ``~/.config/shiftable/age.key``, ``~/.config/sops/age/keys.txt`` and ``~/.ssh/id_ed25519``.

    Args:
        file: used in place of ``~/.config/shiftable/age.key``.

    Raises:
        ConfigError: a variable names a key that cannot be used. A file in its usual place that cannot be used is
            only reported when nothing else opens a document.
    """
    environ, home = os.environ if environ is None else environ, home or Path.home()
    found = Identities(())
    for owner in ("SHIFTABLE", "SOPS"):
        if text := environ.get(f"{owner}_AGE_KEY"):
            found += parse_identities(Masked(text), source=f"{owner}_AGE_KEY")
        if name := environ.get(f"{owner}_AGE_KEY_FILE"):
            found += _from_file(Path(name), f"{name} ({owner}_AGE_KEY_FILE)")
    usual = (file or home / ".config/shiftable/age.key", home / ".config/sops/age/keys.txt", home / ".ssh/id_ed25519")
    for path in usual:
        if path.exists():
            try:
                found += _from_file(path, str(path))
            except ConfigError as exc:
                found += Identities((), unusable=(str(exc),))
    return found


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
    for _, armored in wraps:
        key = identities.open(armored)
        if key is not None and len(key) == 32:
            return key
    readers = ", ".join(recipient for recipient, _ in wraps) or "nobody that age knows"
    tried = f"tried the keys of {', '.join(identities.sources)}" if identities.sources else "there is no key"
    hint = "".join(f"; {sentence}" for sentence in identities.unusable)
    raise Unauthenticated(
        f"no key opens it: it is encrypted for {readers}; {tried}{hint} (SHIFTABLE_AGE_KEY_FILE names another one)"
    )
