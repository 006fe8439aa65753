"""Names of objects as files below a folder, and never beside it."""

from __future__ import annotations

from pathlib import Path

from shiftable.errors import Conflict, InvalidArgument, OperationError, Resource

__all__ = ["path_below", "refusal_below"]


def path_below(root: Path, name: str, *, operation: str) -> Path:
    """Return the file of a name, which never lies outside the folder. The folder itself may be a link.

    Raises:
        InvalidArgument: the name is no path downwards.
        Conflict: a folder on the way is a symbolic link, which may lead anywhere.
    """
    resource = Resource("file", str(root / name))
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise InvalidArgument("a folder cannot hold this name", operation=operation, resource=resource)
    path = root / name
    for folder in path.relative_to(root).parents:
        if (root / folder).is_symlink() and folder != Path():
            raise Conflict(
                f"{folder}/ is a symbolic link, which is not followed: it may lead out of the folder",
                operation=operation,
                resource=resource,
            )
    return path


def refusal_below(root: Path, name: str, *, operation: str) -> OperationError | None:
    """Return the error with which ``path_below`` would end; ``None`` if the folder can hold the name."""
    try:
        path_below(root, name, operation=operation)
    except OperationError as exc:
        return exc
    return None
