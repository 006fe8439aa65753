"""Where TLS is needed, whom it trusts, and what to change where a certificate keeps a client from a server."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from shiftable.database.driver import Engine
from shiftable.errors import ConfigError

__all__ = ["advised", "check_authorities", "stays_here", "system_certificates"]

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, the BSDs
)


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


def system_certificates(engine: Engine) -> str:
    """Name the file of the system's certificates.

    libpq's own word for them, ``system``, is what the OpenSSL in it was built with: in the wheel of psycopg a folder
    that is on no machine, and before PostgreSQL 16 there is no such word. PyMySQL checks nothing unless it is given a
    file.
    """
    paths = ssl.get_default_verify_paths()
    found = next((path for path in (paths.cafile, *_BUNDLES) if path is not None and Path(path).is_file()), None)
    return found or ("system" if engine == "postgresql" else paths.openssl_cafile)


def advised(message: str, *, authorities: str, without: str, with_tls: str) -> str:
    """Add to what a client library or server says of TLS which setting is to be changed.

    Args:
        authorities: the setting with the file of those whom the client trusts.
        without: what connects without TLS.
        with_tls: what connects with it.
    """
    advice = (
        (("does not match host name", " mismatch, certificate"), "`host` must be a name that the certificate bears"),
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


def check_authorities(setting: str, path: Path) -> None:
    """Fail where a file holds no certificates: PyMySQL and libpq say so in words that name no setting.

    Raises:
        ConfigError: it holds none, or cannot be read.
    """
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:
        raise ConfigError(f"{setting}: {path} is no file of certificates ({exc})") from exc
