"""The parameter groups of the double of RDS."""

from __future__ import annotations

import re

from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable_aws import _strict_rds_rules as rules
from shiftable_aws._strict_rds_state import Arguments, Data, Group, Region, filters, group_of, page
from shiftable_aws._strict_refused import Refused

__all__ = ["asked", "create", "default", "delete", "describe", "describe_parameters", "modify", "reset"]


def create(region: Region, arguments: Arguments) -> Data:
    """CreateDBParameterGroup."""
    name, family = arguments["DBParameterGroupName"].lower(), arguments["DBParameterGroupFamily"]
    rules.check_name(name, "DBParameterGroupName", 255)
    if family not in rules.PARAMETERS:
        raise Refused("InvalidParameterValue", f"ParameterGroupFamily {family} is not a valid parameter group family")
    if name in region.groups:
        raise Refused("DBParameterGroupAlreadyExists", f"Parameter group {name} already exists")
    made = _add(region, name, family, arguments.get("Tags", []))
    return {"DBParameterGroup": made.data}


def describe(region: Region, arguments: Arguments) -> Data:
    """DescribeDBParameterGroups."""
    name = arguments.get("DBParameterGroupName")
    if name is not None:
        return {"DBParameterGroups": [region.group(name).data]}
    shown, marker = page(sorted(region.groups), arguments)
    return {"DBParameterGroups": [region.groups[found].data for found in shown], **marker}


def describe_parameters(region: Region, arguments: Arguments) -> Data:
    """DescribeDBParameters."""
    group = region.group(arguments["DBParameterGroupName"])
    names, source = filters(arguments).get("parameter-name"), arguments.get("Source")
    kinds = rules.PARAMETERS[group.data["DBParameterGroupFamily"]]
    found = [
        name
        for name in sorted(kinds)
        if (names is None or name in names) and source in {None, "user" if name in group.values else "system"}
    ]
    shown, marker = page(found, arguments)
    return {"Parameters": [_parameter(name, kinds[name], group.values.get(name)) for name in shown], **marker}


def modify(region: Region, arguments: Arguments) -> Data:
    """ModifyDBParameterGroup."""
    group = region.own_group(arguments["DBParameterGroupName"])
    kinds = rules.PARAMETERS[group.data["DBParameterGroupFamily"]]
    if len(arguments["Parameters"]) > 20:
        raise Refused("InvalidParameterValue", "A maximum of 20 parameters can be modified in a single request.")
    for given in arguments["Parameters"]:
        name, value = given["ParameterName"], given["ParameterValue"]
        kind = kinds.get(name)
        if kind is None:
            raise Refused("InvalidParameterValue", f"Could not find parameter with name: {name}")
        if kind.is_static and given["ApplyMethod"] == "immediate":
            raise Refused("InvalidParameterCombination", "cannot use immediate apply method for static parameter")
        if kind.allowed is not None and re.fullmatch(kind.allowed, value) is None:
            raise Refused("InvalidParameterValue", f"Value: {value} is outside of range: {kind.allowed} for {name}")
    for given in arguments["Parameters"]:
        group.values[given["ParameterName"]] = given["ParameterValue"]
    if any(given["ApplyMethod"] == "pending-reboot" for given in arguments["Parameters"]):
        _await_restart(region, arguments["DBParameterGroupName"])
    return {"DBParameterGroupName": arguments["DBParameterGroupName"]}


def reset(region: Region, arguments: Arguments) -> Data:
    """ResetDBParameterGroup, of all parameters."""
    group = region.own_group(arguments["DBParameterGroupName"])
    group.values.clear()
    _await_restart(region, arguments["DBParameterGroupName"])
    return {"DBParameterGroupName": arguments["DBParameterGroupName"]}


def delete(region: Region, arguments: Arguments) -> Data:
    """DeleteDBParameterGroup."""
    name = arguments["DBParameterGroupName"]
    region.own_group(name)
    if any(group_of(server.data) == name for server in region.servers.values()):
        text = f"One or more database instances are still members of this parameter group {name}, so the group cannot"
        raise Refused("InvalidDBParameterGroupState", f"{text} be deleted")
    del region.groups[name]
    return {}


def asked(region: Region, arguments: Arguments, version: str, data: Data) -> str | None:
    """Return the parameter group of a request, if it names one that fits."""
    name = arguments.get("DBParameterGroupName")
    if name is None:
        return None
    found = region.group(name).data["DBParameterGroupFamily"]
    family = rules.family_of(data["Engine"], version)
    if found != family:
        text = f"The parameter group {name} with DBParameterGroupFamily {found} cannot be used for this instance."
        text = f"{text} Please use a parameter group with DBParameterGroupFamily {family}"
        raise Refused("InvalidParameterCombination", text)
    return str(name)


def default(region: Region, family: str) -> str:
    """Return the parameter group of servers that name none."""
    name = f"default.{family}"
    if name not in region.groups:
        _add(region, name, family, [])
    return name


def _add(region: Region, name: str, family: str, tags: list[Data]) -> Group:
    data = {"DBParameterGroupName": name, "DBParameterGroupFamily": family, "Description": name}
    data["DBParameterGroupArn"] = f"arn:aws:rds:{region.name}:{DEFAULT_ACCOUNT_ID}:pg:{name}"
    made = region.groups[name] = Group(data, list(tags))
    return made


def _await_restart(region: Region, group: str) -> None:
    for server in region.servers.values():
        for used in server.data["DBParameterGroups"]:
            if used["DBParameterGroupName"] == group:
                used["ParameterApplyStatus"] = "pending-reboot"


def _parameter(name: str, kind: rules.Kind, value: str | None) -> Data:
    found: Data = {"ParameterName": name, "ApplyType": "static" if kind.is_static else "dynamic", "IsModifiable": True}
    found["Source"] = "system" if value is None else "user"
    chosen = kind.default if value is None else value
    return found if chosen is None else {**found, "ParameterValue": chosen}
