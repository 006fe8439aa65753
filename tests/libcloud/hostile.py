"""What the hostile tests share: refusals with their real bodies, faults on the way, and looks at the log of calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

from shiftable.testing.harness import Call, Injection, Kind
from shiftable_libcloud.double import DigitalOceanDouble, HosterDouble, LinodeDouble, VultrDouble

__all__ = [
    "FAULTS",
    "FAULT_IDS",
    "LIMITED",
    "counted",
    "inject",
    "machines",
    "names",
    "of",
    "quickly",
    "refusal",
    "walls",
]


def quickly(examples: int, steps: int) -> settings:
    """Return the settings of a state machine that goes the same way each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def of(operation: str) -> Callable[[Call], bool]:
    """Match one kind of call."""
    return lambda call: call.operation == operation


def counted(double: HosterDouble) -> Counter[str]:
    """Return how often each kind of call was made."""
    return Counter(call.operation for call in double.calls)


def machines(double: HosterDouble) -> dict[int, dict[str, Any]]:
    """Return the machines that the account really has, by id."""
    assert isinstance(double, DigitalOceanDouble | LinodeDouble)
    return double.machines.droplets if isinstance(double, DigitalOceanDouble) else double.machines.linodes


def walls(double: HosterDouble) -> dict[Any, dict[str, Any]]:
    """Return the firewalls that the account really has, by id."""
    assert isinstance(double, DigitalOceanDouble | LinodeDouble)
    held: dict[Any, dict[str, Any]] = {**double.machines.firewalls}
    return held


def names(double: HosterDouble) -> list[str]:
    """Return the names of the machines that the account really has."""
    return sorted(row.get("name") or row["label"] for row in machines(double).values())


def refusal(status: int, id: str, message: str, **headers: str) -> dict[str, Any]:
    """Return a fault that answers as DigitalOcean does."""
    body = json.dumps({"id": id, "message": message, "request_id": "r-9"}).encode()
    sent = [("Content-Type", "application/json"), ("x-request-id", "r-9"), *headers.items()]
    return {"status": status, "headers": sent, "body": body}


def inject(double: HosterDouble, kind: Kind, **more: Any) -> Injection:
    """Have the next calls go wrong, in the words of the double's hoster: Linode and Vultr give reasons, and no more."""
    if isinstance(double, LinodeDouble | VultrDouble) and more.get("body", b"").startswith(b"{"):
        reason = json.loads(more["body"])["message"]
        told = {"errors": [{"reason": reason}]} if isinstance(double, LinodeDouble) else {"error": reason}
        more["body"] = json.dumps(told).encode()
        more["headers"] = [header for header in more["headers"] if header[0] != "x-request-id"]
    return double.inject(kind, **more)


LIMITED = refusal(429, "too_many_requests", "API Rate limit exceeded.", **{"Retry-After": "0"})
FAULTS: list[tuple[Kind, dict[str, Any]]] = [
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("status", LIMITED),
    ("status", refusal(500, "server_error", "Unexpected server-side error")),
    ("status", {"status": 502, "body": b"<html><title>502 Bad Gateway</title></html>"}),
    ("status", {"status": 503, "headers": [("Retry-After", "soon")]}),
]
FAULT_IDS = ["before", "after", "truncated", "429", "500", "502-page", "503-odd"]
