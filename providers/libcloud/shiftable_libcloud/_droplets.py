"""Machines of DigitalOcean: libcloud's driver for droplets, with what it has no words for.

libcloud 3.9's driver lists, deletes and reboots. It has no Cloud Firewalls and no tags as things of their own, its
``create_node`` drops without a word what is not on its list (the network, the choice of no public address), and no
listing of its can be asked for one tag, one name or one page: those are calls over its connection here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from libcloud.compute.drivers.digitalocean import DigitalOcean_v2_NodeDriver

from shiftable_libcloud._digitalocean import DigitalOceanDriver, has_more

__all__ = ["Droplets", "Json"]

Json = Mapping[str, Any]


class Droplets(DigitalOceanDriver, DigitalOcean_v2_NodeDriver):  # type: ignore[misc]  # libcloud types by its defaults
    """libcloud's driver with more calls."""

    def page(self, path: str, listed: str, number: int, **query: str) -> tuple[list[Json], bool]:
        """Return one page of a listing, 200 at most, and whether more follow."""
        found = self.connection.request(path, params={**query, "page": number}).object
        return found[listed] or [], has_more(found)

    def all(self, path: str, listed: str, **query: str) -> list[Json]:
        """Return all pages of a listing, each thing once."""
        found, number, more = list[Json](), 1, True
        while more:
            rows, more = self.page(path, listed, number, **query)
            found += (row for row in rows if row not in found)
            number += 1
        return found

    def get(self, path: str, told: str) -> Json:
        """Return one thing."""
        found: Json = self.connection.request(path).object[told]
        return found

    def post(self, path: str, body: Json) -> Any:  # noqa: ANN401  JSON
        """Send something new, once, unless the hoster says that it came too fast."""
        return self.connection.request(path, data=json.dumps(body), method="POST").object

    def put(self, path: str, body: Json) -> None:
        """Replace something."""
        self.connection.request(path, data=json.dumps(body), method="PUT")

    def delete(self, path: str) -> None:
        """Delete something."""
        self.connection.request(path, method="DELETE")

    def delete_tag(self, tag: str) -> None:
        """Delete a tag; what bears it stays."""
        self.delete(f"/v2/tags/{quote(tag, safe='')}")
