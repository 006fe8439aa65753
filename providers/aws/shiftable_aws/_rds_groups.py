"""What a server on RDS is made with and takes along when it goes: its security group and its parameter groups.

Each is named after the server and carries its name in the tag ``shiftable-server``; what does not is somebody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import attrs
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_rds import RDSClient

    from shiftable_aws._session import Session

__all__ = ["SERVER_TAG", "Groups", "Parameter", "code_of", "failure", "tags_of"]

logger = logging.getLogger(__name__)

SERVER_TAG = "shiftable-server"
_PARAMETERS_OF_ONE_CALL = 20  # RDS API reference, ModifyDBParameterGroup
_IN_USE = {"DependencyViolation", "InvalidDBParameterGroupState"}
_GONE = {"InvalidGroup.NotFound", "DBParameterGroupNotFound"}

# The stubs type each argument of the clients; these are filled step by step.
_Arguments = dict[str, Any]


@attrs.frozen
class Parameter:
    """A parameter of a group.

    Args:
        is_static: it counts after a restart only.
    """

    name: str
    value: str | None
    is_static: bool


@attrs.frozen(eq=False)
class Groups:
    """The groups of all servers of an account in a region."""

    _session: Session

    # security groups

    def firewall(self, server: str, port: int, networks: Iterable[str], vpc: str) -> tuple[str, bool]:
        """Make the security group of a server, or take it over from an earlier one of the name.

        Returns:
            Its id, and whether it was made.
        """
        name = f"shiftable-{server}"
        filters: Any = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
        found = self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        if found and tags_of(found[0].get("Tags")).get(SERVER_TAG) != server:
            raise failure("InvalidGroup.Duplicate", f"there is a security group {name} that is not of shiftable")
        if found:
            group = found[0]["GroupId"]
        else:
            tags: Any = [{"ResourceType": "security-group", "Tags": [{"Key": SERVER_TAG, "Value": server}]}]
            about = f"Who may connect to the database server {server}"
            group = self._created_firewall(GroupName=name, Description=about, VpcId=vpc, TagSpecifications=tags)
        try:
            self.set_networks(group, port, networks)
        except ClientError:
            if not found:
                self._ec2.delete_security_group(GroupId=group)
            raise
        return group, not found

    def networks(self, group: str) -> tuple[str, ...]:
        """Return who may connect, in order."""
        found = self._ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        return tuple(sorted({network for rule in found[0]["IpPermissions"] for network in _networks(rule)}))

    def set_networks(self, group: str, port: int, networks: Iterable[str]) -> None:
        """Let these networks connect to that port, and no others; who may already is never cut off meanwhile."""
        (found,) = self._ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        wanted = {str(ip_network(network)) for network in networks}
        right = [rule for rule in found["IpPermissions"] if (rule.get("FromPort"), rule.get("ToPort")) == (port, port)]
        has = {network for rule in right for network in _networks(rule)}
        if wanted - has:
            try:
                rules = [_rule(port, wanted - has)]
                self._ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
            except ClientError as exc:  # by the first attempt, whose answer was lost
                if code_of(exc) != "InvalidPermission.Duplicate":
                    raise
        surplus: list[Any] = [rule for rule in found["IpPermissions"] if rule not in right]
        if has - wanted:
            surplus.append(_rule(port, has - wanted))
        if surplus:
            self._ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=surplus)

    def vpc(self, subnet_group: str | None) -> str:
        """Return the VPC of a group of subnets, or the default one."""
        if subnet_group is not None:
            return self._rds.describe_db_subnet_groups(DBSubnetGroupName=subnet_group)["DBSubnetGroups"][0]["VpcId"]
        found = self._ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not found:
            text = "there is no default VPC; name a subnet_group in [database.x.aws]"
            raise failure("InvalidVPCNetworkStateFault", text)
        return found[0]["VpcId"]

    # parameter groups

    def parameter_group(self, server: str, family: str, parameters: Mapping[str, str]) -> tuple[str, bool]:
        """Make the parameter group of a server, or take it over from an earlier one of the name.

        Returns:
            Its name, and whether it was made.
        """
        name = parameter_group_name(server, family)
        made = self._create_parameter_group(server, name, family)
        try:
            if not made:
                self._rds.reset_db_parameter_group(DBParameterGroupName=name, ResetAllParameters=True)
            self.set_parameters(name, parameters)
        except ClientError:
            if made:
                self._rds.delete_db_parameter_group(DBParameterGroupName=name)
            raise
        return name, made

    def owns(self, server: str, parameter_group: str) -> bool:
        """Tell whether a parameter group is a server's own."""
        if not parameter_group.startswith(f"shiftable-{server}-"):
            return False
        return self._is_ours(server, parameter_group)

    def parameters(self, group: str) -> dict[str, str]:
        """Return what somebody set in a group."""
        if group.startswith("default."):
            return {}
        found = self._parameters(group, Source="user")
        return {parameter.name: parameter.value for parameter in found if parameter.value is not None}

    def parameter(self, group: str, name: str) -> Parameter | None:
        """Return one parameter of a group, also one that nobody set."""
        return next(self._parameters(group, Filters=[{"Name": "parameter-name", "Values": [name]}]), None)

    def set_parameters(self, group: str, parameters: Mapping[str, str]) -> None:
        """Set parameters: the dynamic ones count at once, the static ones after a restart."""
        entries: list[Any] = []
        for name, value in parameters.items():
            known = self.parameter(group, name)
            if known is None:
                raise failure("InvalidParameterValue", f"the engine has no parameter {name!r}")
            how = "pending-reboot" if known.is_static else "immediate"
            entries.append({"ParameterName": name, "ParameterValue": value, "ApplyMethod": how})
        for start in range(0, len(entries), _PARAMETERS_OF_ONE_CALL):
            some = entries[start : start + _PARAMETERS_OF_ONE_CALL]
            self._rds.modify_db_parameter_group(DBParameterGroupName=group, Parameters=some)

    # when the server is gone

    def sweep(self, server: str, *, firewall: bool, parameters: bool) -> None:
        """Delete the groups of a server that is gone. What is still in use stays."""
        if firewall:
            filters: Any = [{"Name": f"tag:{SERVER_TAG}", "Values": [server]}]
            for group in self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"]:
                self.delete_firewall(group["GroupId"])
        if parameters:
            pages = self._rds.get_paginator("describe_db_parameter_groups").paginate()
            for name in [group["DBParameterGroupName"] for page in pages for group in page["DBParameterGroups"]]:
                if self.owns(server, name):
                    self.delete_parameter_group(name)

    def delete_firewall(self, group: str) -> None:
        """Delete a security group, unless it is in use."""
        try:
            self._ec2.delete_security_group(GroupId=group)
        except ClientError as exc:
            _let_be(exc, group)

    def delete_parameter_group(self, name: str) -> None:
        """Delete a parameter group, unless it is in use."""
        try:
            self._rds.delete_db_parameter_group(DBParameterGroupName=name)
        except ClientError as exc:
            _let_be(exc, name)

    # below

    @property
    def _rds(self) -> RDSClient:
        return self._session.client("rds")

    @property
    def _ec2(self) -> EC2Client:
        return self._session.client("ec2")

    def _created_firewall(self, **arguments: Any) -> str:  # noqa: ANN401  of the client
        try:
            return self._ec2.create_security_group(**arguments)["GroupId"]
        except ClientError as exc:
            if code_of(exc) != "InvalidGroup.Duplicate":
                raise
            # There was none a moment ago: made by the first attempt, whose answer was lost.
            names = {"group-name": arguments["GroupName"], "vpc-id": arguments["VpcId"]}
            filters: Any = [{"Name": name, "Values": [value]} for name, value in names.items()]
            return self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"][0]["GroupId"]

    def _create_parameter_group(self, server: str, name: str, family: str) -> bool:
        try:
            self._rds.create_db_parameter_group(
                DBParameterGroupName=name,
                DBParameterGroupFamily=family,
                Description=f"Parameters of the database server {server}",
                Tags=[{"Key": SERVER_TAG, "Value": server}],
            )
        except ClientError as exc:
            if code_of(exc) != "DBParameterGroupAlreadyExists":
                raise
            if not self._is_ours(server, name):
                text = f"there is a parameter group {name} that is not of shiftable"
                raise failure("DBParameterGroupAlreadyExists", text) from exc
            return False
        return True

    def _is_ours(self, server: str, parameter_group: str) -> bool:
        (found,) = self._rds.describe_db_parameter_groups(DBParameterGroupName=parameter_group)["DBParameterGroups"]
        answer = self._rds.list_tags_for_resource(ResourceName=found["DBParameterGroupArn"])
        return tags_of(answer["TagList"]).get(SERVER_TAG) == server

    def _parameters(self, group: str, **which: Any) -> Iterator[Parameter]:  # noqa: ANN401  of the client
        pages = self._rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group, **which)
        for page in pages:
            for found in page["Parameters"]:
                static = found.get("ApplyType") == "static"
                yield Parameter(found["ParameterName"], found.get("ParameterValue"), static)


def parameter_group_name(server: str, family: str) -> str:
    """Name the parameter group of a server; a major version has its own, and dots cannot be in names."""
    return f"shiftable-{server}-{family.replace('.', '-')}"


def tags_of(tags: Iterable[Any] | None) -> dict[str, str]:
    """Return tags as a dictionary."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}


def code_of(exc: ClientError) -> str:
    """Return the code of an error."""
    return str(exc.response.get("Error", {}).get("Code"))


def failure(code: str, message: str) -> ClientError:
    """Return what the service would answer."""
    return ClientError({"Error": {"Code": code, "Message": message}}, "shiftable")


def _let_be(exc: ClientError, what: str) -> None:
    """Pass over what is gone, and what something else still uses."""
    code = code_of(exc)
    if code not in _GONE | _IN_USE:
        raise exc
    if code in _IN_USE:
        logger.warning("%s is still in use and stays (%s)", what, code)


def _networks(rule: Any) -> Iterator[str]:  # noqa: ANN401  one of many types of the stubs
    yield from (entry["CidrIp"] for entry in rule.get("IpRanges", ()))
    yield from (entry["CidrIpv6"] for entry in rule.get("Ipv6Ranges", ()))


def _rule(port: int, networks: Iterable[str]) -> Any:  # noqa: ANN401
    ordered = sorted(networks)
    rule: _Arguments = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
    rule["IpRanges"] = [{"CidrIp": network} for network in ordered if ip_network(network).version == 4]
    rule["Ipv6Ranges"] = [{"CidrIpv6": network} for network in ordered if ip_network(network).version == 6]
    return {key: value for key, value in rule.items() if value != []}
