"""Where TLS is needed, whom it trusts, and what to change where a certificate keeps a client from a server."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from shiftable.errors import ConfigError

__all__ = ["advised", "authorities_problem", "check_authorities", "stays_here"]


def stays_here(host: str | None) -> bool:
    """Tell whether what is sent to a host stays on this machine: it is a socket's path, or a loopback address.

    Of several, as libpq takes them, all must be such; nobody at all is a socket of the client's own choice.
    """
    return all(map(_is_loopback, host.split(","))) if host else True


def _is_loopback(host: str) -> bool:
    if host.startswith(("/", "@")) or host.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_authorities(setting: str, path: Path) -> None:
    """Fail where a file holds no certificates: clients say so late, and in words that name no setting.

    Raises:
        ConfigError: it holds none, or cannot be read.
    """
    why = authorities_problem(path)
    if why is not None:
        raise ConfigError(f"{setting}: {why}")


def authorities_problem(path: Path) -> str | None:
    """Say why nobody can be trusted by a file; ``None`` if it holds certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:
        return f"{path} is no file of certificates ({exc})"
    return None


def advised(message: str, *, authorities: str, name: str = "`host`", without: str = "", with_tls: str = "") -> str:
    """Add to what a client library or server says of TLS which setting is to be changed.

    Args:
        authorities: the setting with the file of those whom the client trusts.
        name: where the server's name is written.
        without: what connects without TLS, where that can be.
        with_tls: what connects with it.
    """
    advice = (
        (
            ("does not match host name", " mismatch, certificate", "doesn't match"),  # libpq, OpenSSL, urllib3
            f"{name} must be a name that the certificate bears",
        ),
        (("certificate has expired",), "the server needs a new certificate"),
        (
            ("certificate verify failed", "root certificate file"),
            f"`{authorities}` names the authorities that are trusted, and an expired certificate never is",
        ),
        (("server does not support SSL", "server doesn't support it"), f"the server has no TLS, and {without}"),
        (("no encryption", "insecure transport"), f"the server wants TLS: {with_tls}"),
    )
    found = next((what for words, what in advice if any(each in message for each in words)), "")
    return f"{message}; {found}" if found else message
