"""What instances of the double's Compute Engine share: firewall rules, and policies that place them."""

from __future__ import annotations

from typing import Any

import attrs

from shiftable_gcp._calls import Call
from shiftable_gcp._compute_catalogue import LINK
from shiftable_gcp._compute_held import Held
from shiftable_gcp._compute_rules import check_firewall, check_name, resolved
from shiftable_gcp._compute_state import exists, in_use, invalid, told_time

__all__ = ["Shared"]

Json = dict[str, Any]


@attrs.frozen(eq=False)
class Shared:
    """Answers for firewall rules and policies."""

    held: Held

    def insert_policy(self, call: Call) -> Json:
        """Answer resourcePolicies.insert."""
        (project, region), body = call.names, call.body
        path = f"projects/{project}/regions/{region}/resourcePolicies/{check_name(body.get('name'))}"
        if path in self.held.resources:
            raise exists(path)
        group = body.get("groupPlacementPolicy", {})
        if not 1 <= group.get("availabilityDomainCount", 1) <= 8:
            raise invalid("groupPlacementPolicy.availabilityDomainCount", group, "Must be between 1 and 8.")
        if "availabilityDomainCount" in group and "collocation" in group:
            raise invalid("groupPlacementPolicy", group, "Collocation and availability domains cannot be combined.")
        made = {
            **body,
            "kind": "compute#resourcePolicy",
            "id": str(self.held.number()),
            "creationTimestamp": told_time(self.held.now()),
            "region": f"{LINK}projects/{project}/regions/{region}",
            "status": "READY",
            "selfLink": LINK + path,
        }
        return self.held.begin("insert", path, lambda: self.held.resources.update({path: made}))

    def delete_policy(self, call: Call) -> Json:
        """Answer resourcePolicies.delete."""
        path, _ = self.held.idle(call)
        for where, each in self.held.resources.items():
            if LINK + path in each.get("resourcePolicies", ()):
                raise in_use(path, where)
        return self.held.begin("delete", path, lambda: self.held.drop(path))

    def insert_firewall(self, call: Call) -> Json:
        """Answer firewalls.insert."""
        (project,), body = call.names, call.body
        check_firewall(body)
        path = f"projects/{project}/global/firewalls/{body['name']}"
        if path in self.held.resources:
            raise exists(path)
        network = resolved(body.get("network", "global/networks/default"), project, "network")
        self.held.check_network(network)
        made = {
            "direction": "INGRESS",
            "priority": 1000,
            "disabled": False,
            **body,
            "kind": "compute#firewall",
            "id": str(self.held.number()),
            "creationTimestamp": told_time(self.held.now()),
            "network": LINK + network,
            "selfLink": LINK + path,
        }
        if not {"sourceRanges", "sourceTags", "sourceServiceAccounts"} & made.keys():
            made["sourceRanges"] = ["0.0.0.0/0"]
        return self.held.begin("insert", path, lambda: self.held.resources.update({path: made}))

    def patch_firewall(self, call: Call) -> Json:
        """Answer firewalls.patch."""
        path, found = self.held.idle(call)
        changed = found | call.body
        check_firewall(changed)
        if changed["name"] != found["name"]:
            raise invalid("name", changed["name"], "The name cannot be changed.")
        return self.held.begin("patch", path, lambda: found.update(call.body))
