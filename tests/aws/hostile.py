"""What tests of a hostile AWS share: faults, errors as AWS writes them, and what the double has seen."""

from __future__ import annotations

from collections.abc import Callable

from shiftable.testing.harness import Call
from shiftable_aws.double import AwsDouble

__all__ = ["FAULTS", "body_of", "calls_of", "firewalls", "is_"]

FAULTS = ["drop_before", "drop_after", "truncate"]


def is_(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == operation


def calls_of(double: AwsDouble, operation: str) -> list[Call]:
    return [call for call in double.calls if call.operation == operation]


def body_of(code: str, message: str = "said") -> bytes:
    """Return an error of the query protocol, and of Route 53."""
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<ErrorResponse>{error}<RequestId>r1</RequestId></ErrorResponse>".encode()


def firewalls(double: AwsDouble) -> list[str]:
    """Name the security groups that are ours."""
    groups = [group for of_vpc in double.backend("ec2").groups.values() for group in of_vpc.values()]
    return sorted(group.name for group in groups if group.name.startswith("shiftable-"))
