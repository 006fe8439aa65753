"""Machines of DigitalOcean: libcloud's driver for droplets, with what it has no words for.

libcloud 3.9's driver lists, deletes and reboots. It has no Cloud Firewalls and no tags as things of their own, its
``create_node`` drops without a word what is not on its list (the network, the choice of no public address), and no
listing of its can be asked for one tag, one name or one page: those are calls over its connection here.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from libcloud.compute.drivers.digitalocean import DigitalOcean_v2_NodeDriver

from shiftable_libcloud._digitalocean import DigitalOceanDriver, has_more
from shiftable_libcloud._machines import Calls, Json

__all__ = ["Droplets"]


class Droplets(Calls, DigitalOceanDriver, DigitalOcean_v2_NodeDriver):  # type: ignore[misc]  # libcloud types by its defaults
    """libcloud's driver with more calls."""

    def page(self, path: str, listed: str, number: int, **query: str) -> tuple[list[Json], bool]:
        """Return one page of a listing, 200 at most, and whether more follow."""
        found = self.connection.request(path, params={**query, "page": number}).object
        return found[listed] or [], has_more(found)

    def delete_tag(self, tag: str) -> None:
        """Delete a tag; what bears it stays."""
        self.delete(f"/v2/tags/{quote(tag, safe='')}")

    def bear(self, tag: str, droplet: int, *, bears: bool) -> None:
        """Let a droplet bear a tag that there is, or bear it no more; either way, whatever it did before."""
        body = {"resources": [{"resource_id": str(droplet), "resource_type": "droplet"}]}
        path = f"/v2/tags/{quote(tag, safe='')}/resources"
        self.connection.request(path, data=json.dumps(body), method="POST" if bears else "DELETE")
