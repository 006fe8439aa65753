"""botocore's models of services, read once for all clients of a process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    import botocore.session

__all__ = ["shared_models"]


def shared_models(session: botocore.session.Session) -> None:
    """Have a session share what it reads with all others: S3's model takes 40 ms, EC2's a quarter of a second."""
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))


@functools.cache
def _loader(data_path: str | None) -> Loader:
    return _Models(create_loader(data_path).search_paths, include_default_search_paths=False)


class _Models(Loader):
    """Does not look into the folders of all 400 services, and their versions, for the one that is asked for."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002  the types that a folder has show later
        """Return the services that have a folder."""
        folders = [path for path in map(Path, self.search_paths) if path.is_dir()]
        return sorted({service.name for folder in folders for service in folder.iterdir()})
