"""The security groups of fleets: who may connect to their machines.

A group is named after its fleet and carries its name in the tag ``shiftable-fleet``; one without the tag is somebody
else's, and never touched.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shiftable.compute.driver import FLEET_LABEL, FleetSpec, Rule
from shiftable_aws._rds_groups import code_of, failure

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

__all__ = ["create", "delete", "group_name", "of_fleet", "set_rules", "walls"]

logger = logging.getLogger(__name__)

_IN_USE = {"DependencyViolation", "InvalidGroup.InUse"}
_PAGE = 1000  # EC2 API reference, DescribeSecurityGroups
_VALUES = 200  # of one filter; Amazon EC2 user guide, "Filtering considerations"
_LAST_PORT = 65535
_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp"}
_EVERYTHING = "-1"

_Entry = tuple[str, int, int, str]  # protocol, first and last port, network


def group_name(fleet: str) -> str:
    """Name the group of a fleet. No database is called so, whose groups begin alike."""
    return f"shiftable-fleet/{fleet}"


def of_fleet(client: EC2Client, fleet: str, vpc: str | None = None) -> list[Any]:
    """Return the groups of a fleet: one in each network that it ever was in."""
    filters: Any = [{"Name": f"tag:{FLEET_LABEL}", "Values": [fleet]}]
    filters += [{"Name": "vpc-id", "Values": [vpc]}] if vpc else []
    found = client.describe_security_groups(Filters=filters)["SecurityGroups"]
    return [group for group in found if group.get("GroupName") == group_name(fleet)]


def create(client: EC2Client, spec: FleetSpec, vpc: str) -> str:
    """Make the group of a fleet, or take over the one that there is, and let in who is declared. Return its id."""
    found = of_fleet(client, spec.name, vpc)
    if not found:
        _create(client, spec.name, vpc)
        found = of_fleet(client, spec.name, vpc)
        if not found:
            text = f"there is a security group {group_name(spec.name)} that is not of shiftable; rename or delete it"
            raise failure("InvalidGroup.Duplicate", text)
    set_rules(client, found[0], spec)
    return str(found[0]["GroupId"])


def _create(client: EC2Client, fleet: str, vpc: str) -> None:
    tags = [{"Key": FLEET_LABEL, "Value": fleet}, {"Key": "Name", "Value": group_name(fleet)}]
    kinds: Any = [{"ResourceType": "security-group", "Tags": tags}]
    about = f"Who may connect to the machines of the fleet {fleet}"
    try:
        made = client.create_security_group(
            GroupName=group_name(fleet), Description=about, VpcId=vpc, TagSpecifications=kinds
        )
    except ClientError as exc:
        if code_of(exc) != "InvalidGroup.Duplicate":  # by the first attempt, whose answer was lost; or somebody else's
            raise
    else:
        client.get_waiter("security_group_exists").wait(GroupIds=[made["GroupId"]])  # EC2 knows it a moment later


def set_rules(client: EC2Client, group: Any, spec: FleetSpec) -> None:  # noqa: ANN401  one of the stubs' many types
    """Let in who is declared and no other network; who may already is never cut off meanwhile.

    Rules of other protocols than TCP and UDP, and those that let in other groups or prefix lists, are somebody else's
    and stay.
    """
    has = {entry for rule in group["IpPermissions"] for entry in _entries(rule)}
    wanted = {(rule.protocol, rule.port, rule.last, network) for rule in spec.firewall for network in rule.allow_from}
    ids: Any = {"GroupId": group["GroupId"]}
    if wanted - has:
        try:
            client.authorize_security_group_ingress(**ids, IpPermissions=_rules(wanted - has))
        except ClientError as exc:
            if code_of(exc) != "InvalidPermission.Duplicate":  # by the first attempt, whose answer was lost
                raise
    if has - wanted:
        try:
            client.revoke_security_group_ingress(**ids, IpPermissions=_rules(has - wanted))
        except ClientError as exc:
            if code_of(exc) != "InvalidPermission.NotFound":  # the same
                raise


def walls(client: EC2Client, groups: Collection[str]) -> dict[str, tuple[Rule, ...]]:
    """Return what groups let in, by id, in one call for two hundred of them."""
    found: list[Any] = []
    ids = sorted(groups)
    for start in range(0, len(ids), _VALUES):
        filters: Any = [{"Name": "group-id", "Values": ids[start : start + _VALUES]}]
        found += client.describe_security_groups(Filters=filters, MaxResults=_PAGE)["SecurityGroups"]
    return {group["GroupId"]: tuple(_told(group)) for group in found}


def delete(client: EC2Client, fleet: str) -> None:
    """Delete the groups of a fleet that has no machines any more. One that something else uses stays."""
    for group in of_fleet(client, fleet):
        try:
            client.delete_security_group(GroupId=group["GroupId"])
        except ClientError as exc:
            code = code_of(exc)
            if code in _IN_USE:
                logger.warning("%s is still in use and stays (%s)", group["GroupId"], code)
            elif code != "InvalidGroup.NotFound":
                raise


def _told(group: Mapping[str, Any]) -> Iterator[Rule]:
    for rule in group["IpPermissions"]:
        for protocol, first, last, network in _entries(rule):
            for known in ("tcp", "udp") if protocol == _EVERYTHING else (_PROTOCOLS[protocol],):
                port, end = max(1, first), max(1, last)
                yield Rule(port=port, last_port=None if end == port else end, protocol=known, allow_from=(network,))


def _entries(rule: Any) -> Iterator[_Entry]:  # noqa: ANN401
    """Yield what a rule lets in over TCP and UDP, a network each."""
    protocol = rule["IpProtocol"]
    if protocol != _EVERYTHING and protocol not in _PROTOCOLS:
        return
    first, last = (1, _LAST_PORT) if protocol == _EVERYTHING else (rule["FromPort"], rule["ToPort"])
    for kind, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
        yield from ((protocol, first, last, entry[key]) for entry in rule.get(kind, ()))


def _rules(entries: Iterable[_Entry]) -> Any:  # noqa: ANN401
    rules: dict[tuple[str, int, int], dict[str, Any]] = {}
    for protocol, first, last, network in sorted(entries):
        rule = rules.setdefault((protocol, first, last), {"IpProtocol": protocol})
        if protocol != _EVERYTHING:
            rule |= {"FromPort": first, "ToPort": last}
        kind, key = ("IpRanges", "CidrIp") if ip_network(network).version == 4 else ("Ipv6Ranges", "CidrIpv6")
        rule.setdefault(kind, []).append({key: network})
    return list(rules.values())
