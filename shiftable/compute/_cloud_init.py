"""What cloud-init of a machine gets where the provider makes no users, keys and host names itself.

Rules: cloud-init's documentation, "User data formats" and "Merging user data sections".
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib

from shiftable.compute.driver import FleetSpec

__all__ = ["cloud_init"]

_TYPES = {
    b"#!": "text/x-shellscript",
    b"#cloud-boothook": "text/cloud-boothook",
    b"#cloud-config": "text/cloud-config",
    b"#cloud-config-archive": "text/cloud-config-archive",
    b"#cloud-config-jsonp": "text/cloud-config-jsonp",
    b"#include": "text/x-include-url",
    b"#include-once": "text/x-include-once-url",
    b"#part-handler": "text/part-handler",
    b"## template: jinja": "text/jinja2",
}
_LONGEST_FIRST = sorted(_TYPES, key=len, reverse=True)
_GZIP = b"\x1f\x8b"
_MIME_WITHIN = 4096  # bytes in which cloud-init looks for the header

_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_PLAIN = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))


def cloud_init(spec: FleetSpec, name: str, user_data: bytes | None) -> bytes:
    """Return the user data of one machine: its host name, its user with keys and no password, and what the user gave.

    Ours is the last part, since the part that comes later says how it is merged: our user is added to those that the
    user's own cloud-config names, whatever that says of merging, and what it sets itself (``hostname``, ``ssh_pwauth``)
    stays as it says. The image's default user is made only if the user's own ``users`` names ``default``.
    The same arguments give the same bytes. Data that came compressed goes compressed.

    Raises:
        ValueError: cloud-init would not know what the data is, and ignore it.
    """
    if user_data is not None and user_data.startswith(_GZIP):
        return gzip.compress(cloud_init(spec, name, _decompressed(user_data)), mtime=0)
    ours = _part("text/cloud-config", _our_config(spec, name), "shiftable.cfg", merge=_MERGE)
    parts = [ours] if not user_data else [_users_part(user_data), ours]
    boundary = f"shiftable-{hashlib.sha256(b''.join(parts)).hexdigest()[:32]}".encode()
    head = b'Content-Type: multipart/mixed; boundary="%b"\nMIME-Version: 1.0\n\n' % boundary
    return head + b"".join(b"--%b\n%b\n" % (boundary, part) for part in parts) + b"--%b--\n" % boundary


def _our_config(spec: FleetSpec, name: str) -> bytes:
    user = {
        "name": spec.user,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": True,
        "ssh_authorized_keys": list(spec.ssh_keys),
    }
    config = {
        "hostname": name,
        "manage_etc_hosts": "localhost",  # or sudo warns, slowly, that it cannot resolve the host's name
        "ssh_pwauth": False,
        "disable_root": spec.user != "root",
        "users": [user],
    }
    text = json.dumps(config, indent=1, ensure_ascii=False)  # JSON is YAML, but for its pairs of surrogates
    return f"#cloud-config\n{text}\n".encode()


def _users_part(data: bytes) -> bytes:
    if b"mime-version:" in data[:_MIME_WITHIN].lower():
        return data  # with its own headers: a part of the whole
    start = data.lstrip()[:32].lower()
    for prefix in _LONGEST_FIRST:
        if start.startswith(prefix):
            return _part(_TYPES[prefix], data)
    first = ", ".join(sorted(prefix.decode() for prefix in _TYPES))
    raise ValueError(f"cloud-init knows no user data that begins so; it must begin with one of: {first}; or be MIME")


def _part(content_type: str, body: bytes, filename: str | None = None, *, merge: str | None = None) -> bytes:
    plain = _PLAIN.issuperset(body)
    headers = [
        f'Content-Type: {content_type}; charset="utf-8"',
        "MIME-Version: 1.0",
        f"Content-Transfer-Encoding: {'7bit' if plain else 'base64'}",
    ]
    headers += [f'Content-Disposition: attachment; filename="{filename}"'] if filename else []
    headers += [f"Merge-Type: {merge}"] if merge else []
    return "\n".join([*headers, "", ""]).encode() + (body if plain else base64.encodebytes(body))


def _decompressed(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        raise ValueError("the user data begins as gzip does, and cannot be decompressed") from None
