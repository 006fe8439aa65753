"""Names of secrets: segments joined with slashes."""

from __future__ import annotations

__all__ = ["joined", "malformed"]


def joined(prefix: str, key: str) -> str:
    """Return the full name of a key below a prefix; below the empty prefix it is the key itself."""
    return f"{prefix}/{key}" if prefix else key


def malformed(what: str, path: str) -> str | None:
    """Say what is wrong with the shape of a key or prefix; ``None`` if nothing is."""
    if not path:
        return f"the {what} is empty"
    if not all(path.split("/")):
        return f"the {what} begins or ends with a slash, or has two in a row"
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"the {what} is not Unicode text"
    return None
