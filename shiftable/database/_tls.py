"""The authorities that a database server's certificate is checked by, where nobody names others."""

from __future__ import annotations

import ssl
from pathlib import Path

from shiftable.database.driver import Engine

__all__ = ["system_certificates"]

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, the BSDs
)


def system_certificates(engine: Engine) -> str:
    """Name the file of the system's certificates.

    libpq's own word for them, ``system``, is what the OpenSSL in it was built with: in the wheel of psycopg a folder
    that is on no machine, and before PostgreSQL 16 there is no such word. PyMySQL checks nothing unless it is given a
    file.
    """
    paths = ssl.get_default_verify_paths()
    found = next((path for path in (paths.cafile, *_BUNDLES) if path is not None and Path(path).is_file()), None)
    return found or ("system" if engine == "postgresql" else paths.openssl_cafile)
