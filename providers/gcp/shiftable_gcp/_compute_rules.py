"""What the double's Compute Engine refuses, by Google's documentation of each field."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from shiftable_gcp._compute_catalogue import DISK_TYPES, LINK
from shiftable_gcp._compute_state import invalid
from shiftable_gcp._state import Refused

__all__ = [
    "check_disk",
    "check_firewall",
    "check_instance",
    "check_labels",
    "check_name",
    "check_request_id",
    "filtered",
    "resolved",
]

Json = dict[str, Any]

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_METADATA_KEY = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_LABELS = 64
_METADATA_VALUE, _METADATA_ALL = 262_144, 524_288
_BOOLEANS = {"block-project-ssh-keys", "serial-port-enable", "enable-oslogin"}


def check_name(name: object) -> str:
    """Return the name of a resource, if it may be one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid("name", name, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    return name


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that cannot be."""
    if len(labels) > _LABELS:
        raise invalid("labels", len(labels), f"At most {_LABELS} labels are allowed")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise invalid("labels", f"{key}={value}", "The label must have lower-case letters, digits, _ and - only.")


def check_request_id(value: str | None) -> None:
    """Refuse what is no UUID."""
    try:
        fine = value is None or uuid.UUID(value).int != 0
    except ValueError:
        fine = False
    if not fine:
        message = f"Invalid value for field 'requestId': '{value}'. Must be a valid UUID."
        raise Refused(400, "invalid", "", message)


def resolved(link: object, project: str, field: str) -> str:
    """Return the path that a reference to a resource means: a whole URL, or a part of one."""
    text = str(link or "").removeprefix(LINK).removeprefix("https://compute.googleapis.com/compute/v1/")
    if text.startswith(("zones/", "regions/", "global/")):
        text = f"projects/{project}/{text}"
    if not re.fullmatch(r"projects/[^/]+/(global|zones/[^/]+|regions/[^/]+)/.+", text):
        raise invalid(field, link, "The URL is malformed.")
    return text


def check_instance(body: Json) -> None:
    """Refuse an instance that could not be, whatever there is else."""
    check_name(body.get("name"))
    check_labels(body.get("labels", {}))
    for tag in body.get("tags", {}).get("items", ()):
        if not _NAME.fullmatch(tag):
            raise invalid("tags.items", tag, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    _check_metadata(body.get("metadata", {}).get("items", ()))
    disks = body.get("disks", ())
    if not disks or not disks[0].get("boot"):
        raise invalid("disks", len(disks), "At least one boot disk must be specified.")
    if not body.get("networkInterfaces"):
        raise invalid("networkInterfaces", "", "At least one network interface is required.")
    for account in body.get("serviceAccounts", ()):
        if "@" not in account.get("email", "") or not account.get("scopes"):
            raise invalid("serviceAccounts", account.get("email"), "The account must be an email with scopes.")
    _check_scheduling(body)
    shielded = body.get("shieldedInstanceConfig", {})
    if shielded.get("enableIntegrityMonitoring") and not shielded.get("enableVtpm"):
        raise invalid("shieldedInstanceConfig", "", "Integrity monitoring requires vTPM.")


def _check_metadata(items: Iterable[Mapping[str, str]]) -> None:
    seen, total = set[str](), 0
    for each in items:
        key, value = each["key"], each.get("value", "")
        if key in seen or not _METADATA_KEY.fullmatch(key):
            raise invalid("metadata.items", key, "Duplicate or invalid metadata key.")
        if len(value) > _METADATA_VALUE:
            why = f"is too large: maximum size {_METADATA_VALUE} character(s); actual size {len(value)}."
            raise Refused(400, "fieldSizeTooLarge", "", f"Value for field 'resource.metadata.items[].value' {why}")
        if key in _BOOLEANS and value.upper() not in {"TRUE", "FALSE"}:
            raise invalid("metadata.items", key, "The metadata must be a boolean.")
        seen.add(key)
        total += len(key) + len(value)
    if total > _METADATA_ALL:
        raise Refused(400, "fieldSizeTooLarge", "", f"The metadata is too large: maximum size {_METADATA_ALL}.")


def _check_scheduling(body: Json) -> None:
    scheduling = body.get("scheduling", {})
    spot = scheduling.get("provisioningModel") == "SPOT"
    if spot and (scheduling.get("automaticRestart") or scheduling.get("onHostMaintenance") == "MIGRATE"):
        raise invalid("scheduling", "SPOT", "Scheduling must have automaticRestart=false and must not migrate.")
    if scheduling.get("instanceTerminationAction") and not spot:
        raise invalid("scheduling.instanceTerminationAction", "", "You can only specify it for Spot VMs.")


def check_disk(kind: str, size: object) -> None:
    """Refuse a disk of a type or size that there is not."""
    if kind not in DISK_TYPES:
        raise invalid("type", kind, "The referenced resource does not exist.")
    if not str(size).isdecimal() or not DISK_TYPES[kind] <= int(str(size)) <= 65_536:
        raise invalid("sizeGb", size, f"Disk size cannot be smaller than {DISK_TYPES[kind]} GB, or larger than 65536.")


def check_firewall(body: Json) -> None:
    """Refuse a firewall rule that could not be."""
    check_name(body.get("name"))
    ranges = body.get("sourceRanges", ())
    try:
        versions = {ip_network(each).version for each in ranges}
    except ValueError as exc:
        raise invalid("sourceRanges", ranges, f"Must be a valid CIDR range: {exc}") from None
    if len(versions) > 1:
        raise invalid("sourceRanges", ranges, "Cannot mix IPv4 and IPv6 ranges in one firewall rule.")
    if bool(body.get("allowed")) is bool(body.get("denied")):
        raise invalid("allowed", "", "Exactly one of allowed and denied must be specified.")
    for each in body.get("allowed", ()):
        for port in each.get("ports", ()):
            low, _, high = str(port).partition("-")
            if not (low.isdecimal() and (high or low).isdecimal() and 0 <= int(low) <= int(high or low) <= 65_535):
                raise invalid("allowed[0].ports[0]", port, "Ports must be numbers or ranges.")
    for tag in body.get("targetTags", ()):
        if not _NAME.fullmatch(tag):
            raise invalid("targetTags", tag, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")


# filters of listings: field=value, field!=value, field:*, field eq "a regular expression"; joined by AND

_TERM = re.compile(r'\(?\s*([\w.-]+)\s*(=|!=|:|\beq\b|\bne\b)\s*(?:"([^"]*)"|([^\s()"]+))\s*\)?')


def filtered(text: str | None) -> Callable[[Json], bool]:
    """Return whether a resource is one that a filter wants."""
    terms, place = list[tuple[str, str, str]](), 0
    text = text or ""
    while place < len(text):
        found = _TERM.match(text, place)
        if found is None:
            raise Refused(
                400, "invalid", "", f"Invalid value for field 'filter': '{text}'. Invalid list filter expression."
            )
        terms.append((found[1], found[2], found[3] if found[3] is not None else found[4]))
        place = found.end()
        joint = re.compile(r"\s*(AND\b\s*)?").match(text, place)
        place = joint.end() if joint else place
    if any(operator in {"eq", "ne"} for _, operator, _ in terms) and len(terms) > 1:
        message = f"Invalid value for field 'filter': '{text}'. Regular expressions cannot be combined."
        raise Refused(400, "invalid", "", message)
    return lambda resource: all(_meets(resource, *term) for term in terms)


def _meets(resource: Json, field: str, operator: str, value: str) -> bool:
    held: Any = resource
    for part in field.split("."):
        held = held.get(part) if isinstance(held, dict) else None
    if operator in {"eq", "ne"}:
        return (re.fullmatch(value, str(held or "")) is not None) is (operator == "eq")
    if value == "*":
        return held is not None
    return (str(held) == value) is (operator != "!=")
