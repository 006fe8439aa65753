"""What to change where a certificate, or the lack of one, keeps a client from a server."""

from __future__ import annotations

import ssl
from pathlib import Path

from shiftable.errors import ConfigError

__all__ = ["advised", "check_authorities"]


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
