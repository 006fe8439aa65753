"""What libvirt's errors mean.

Its codes are those of ``virErrorNumber`` in libvirt/virterror.h, which never change; what has only the codes for
"internal", "failed" or "system" is known by its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from shiftable_baremetal._faults import classify as classify_files

__all__ = ["NO_DOMAIN", "NO_POOL", "NO_SUPPORT", "NO_VOLUME", "classify", "code_of", "not_active"]

NO_SUPPORT, NO_DOMAIN, NO_POOL, NO_VOLUME = 3, 42, 49, 50

_CODES: Mapping[int, tuple[str, type[OperationError]]] = {
    2: ("NO_MEMORY", QuotaExceeded),
    NO_SUPPORT: ("NO_SUPPORT", Unsupported),
    4: ("UNKNOWN_HOST", Unavailable),
    5: ("NO_CONNECT", Unavailable),
    6: ("INVALID_CONN", Unavailable),
    7: ("INVALID_DOMAIN", NotFound),
    8: ("INVALID_ARG", InvalidArgument),
    16: ("OS_TYPE", InvalidArgument),
    27: ("XML_ERROR", InvalidArgument),
    28: ("DOM_EXIST", AlreadyExists),
    29: ("OPERATION_DENIED", PermissionDenied),
    35: ("XML_DETAIL", InvalidArgument),
    39: ("RPC", Unavailable),
    40: ("GNUTLS_ERROR", Unavailable),
    NO_DOMAIN: ("NO_DOMAIN", NotFound),
    43: ("NO_NETWORK", NotFound),
    45: ("AUTH_FAILED", Unauthenticated),
    NO_POOL: ("NO_STORAGE_POOL", NotFound),
    NO_VOLUME: ("NO_STORAGE_VOL", NotFound),
    55: ("OPERATION_INVALID", Conflict),
    67: ("CONFIG_UNSUPPORTED", InvalidArgument),
    68: ("OPERATION_TIMEOUT", Timeout),
    73: ("INVALID_STREAM", Unavailable),
    74: ("ARGUMENT_UNSUPPORTED", Unsupported),
    78: ("OPERATION_ABORTED", Conflict),
    79: ("AUTH_CANCELLED", Unauthenticated),
    80: ("NO_DOMAIN_METADATA", NotFound),
    83: ("BLOCK_COPY_ACTIVE", Conflict),
    84: ("OPERATION_UNSUPPORTED", Unsupported),
    86: ("AGENT_UNRESPONSIVE", Unavailable),
    87: ("RESOURCE_BUSY", Conflict),
    88: ("ACCESS_DENIED", PermissionDenied),
    90: ("STORAGE_VOL_EXIST", AlreadyExists),
    91: ("CPU_INCOMPATIBLE", InvalidArgument),
    92: ("XML_INVALID_SCHEMA", InvalidArgument),
    94: ("AUTH_UNAVAILABLE", Unauthenticated),
    95: ("NO_SERVER", Unavailable),
    96: ("NO_CLIENT", Unavailable),
    99: ("DEVICE_MISSING", NotFound),
}

_AGENT = 86
_VAGUE: Mapping[int, str] = {1: "INTERNAL_ERROR", 9: "OPERATION_FAILED", 38: "SYSTEM_ERROR", 98: "LIBSSH"}
_REFUSED = r"Host key verification failed|Permission denied \(|authentication failed"  # by ssh
_LOST = (
    r"[Cc]onnection (reset|refused|closed)|End of file|Broken pipe|client socket is closed|keepalive|Cannot recv|"
    r"[Ff]ailed to connect (?!.*Permission denied)"
)

_RAN = re.compile(r"Child process \(.*\) unexpected (exit status|fatal signal) \d+: (?P<said>.*\S)", re.DOTALL)
_IDLE = re.compile(r"(?P<kind>storage pool|network) '(?P<name>[^']+)' is not active")
_START = {"storage pool": "pool-start", "network": "net-start"}

# by text, the first that fits
_SAID: tuple[tuple[str, type[OperationError]], ...] = (
    (r"already exists|already active|already in use by|volume name .* already in use", AlreadyExists),
    (r"No space left on device|Not enough free space|Disk quota exceeded|File too large", QuotaExceeded),
    (r"Cannot allocate memory|cannot set up guest memory|Too many open files", QuotaExceeded),
    (_REFUSED, Unauthenticated),
    (r"Permission denied|Operation not permitted|Could not access KVM", PermissionDenied),
    (
        r"Failed to get .*lock|Is another process using|[Dd]uplicate|target .* exists|asynchronous jobs running",
        Conflict,
    ),
    (r"Could not set up host forwarding rule|[Nn]etwork .* is not active|is not active|is not running", Conflict),
    (r"No such file or directory|[Nn]ot found|no target device", NotFound),
    (r"not supported|too large for|Image does not contain|Image is not in|Could not open backing", InvalidArgument),
    (r"[Tt]imed out", Timeout),
)


def classify(exc: Exception) -> Fault | None:
    """Claim libvirt's errors, the driver's own and those of the operating system."""
    if not code_of(exc):
        return classify_files(exc)
    native: Any = exc
    code, text = native.get_error_code(), _plain(str(native.get_error_message() or native))
    lost = re.search(_LOST, text) and not re.search(_REFUSED, text)
    if lost and code != _AGENT:  # whatever failed: the daemon has ended, or the way to it
        return Fault(Unavailable, text, _VAGUE.get(code) or _CODES.get(code, ("CONNECTION",))[0])
    if code in _CODES:
        name, error = _CODES[code]
        return Fault(error, text, name)
    error = next((error for said, error in _SAID if re.search(said, text)), Unavailable)
    return Fault(error, text, _VAGUE.get(code, str(code)))


def _plain(text: str) -> str:
    """Return what libvirt says without what stands around it, and with what starts what is not active."""
    ran = _RAN.search(text)
    if ran is not None:
        *before, last = ran["said"].strip().splitlines()
        errors = [line for line in before if line.startswith("qemu-img: ")]  # why comes first, and what it was for last
        return "; ".join([*errors, last])
    idle = _IDLE.search(text)
    return text if idle is None else not_active(idle["kind"], idle["name"])


def not_active(kind: str, name: str) -> str:
    """Say that a storage pool or a network is not active, and what starts it."""
    return f"the {kind} {name!r} is not active; `virsh {_START[kind]} {name}` starts it"


def code_of(exc: BaseException) -> int:
    """Return libvirt's code of an error; 0 if it is none of libvirt's, which need not be installed to be asked."""
    native: Any = exc
    if type(exc).__name__ != "libvirtError" or not type(exc).__module__.startswith("libvirt"):
        return 0
    code = native.get_error_code()
    return code if isinstance(code, int) and code else 1
