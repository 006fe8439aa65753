"""URLs that let whoever has them read, write or delete one object for a while: an HMAC over all that they say.

``http://127.0.0.1:8759/<bucket>/<key>?method=PUT&expires=1763700000&size=12&signature=…``. The key of the HMAC lies in
``<root>/.shiftable/signing.key`` and is made at the first signature; removing it makes all URLs worthless.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

import attrs

from shiftable_baremetal._area import Area, write_all
from shiftable_baremetal._faults import damaged, denied

__all__ = ["Grant", "Signer"]

_KEY_SIZE = 32


@attrs.frozen(kw_only=True)
class Grant:
    """What a URL allows.

    Args:
        method: ``GET``, which is also for ``HEAD``, ``PUT`` or ``DELETE``.
        expires: seconds since 1970, after which it is worthless.
        type: of PUT: the content type that must come with it.
        md5: of PUT: in hex, of the only content.
        size: of PUT: in bytes, of the content.
        answer_type: of GET: in place of the object's own.
        answer_disposition: of GET: in place of the object's own.
    """

    bucket: str
    key: str
    method: str
    expires: int
    type: str | None = None
    md5: str | None = None
    size: int | None = None
    answer_type: str | None = None
    answer_disposition: str | None = None

    def query(self) -> dict[str, str]:
        """Return what stands in the URL besides bucket and key."""
        told = attrs.asdict(self, filter=lambda field, value: value is not None and field.name not in {"bucket", "key"})
        return {name: str(value) for name, value in told.items()}

    def signature(self, key: bytes) -> str:
        """Return the HMAC over all of it; JSON keeps apart what lies side by side."""
        return hmac.new(key, json.dumps(attrs.astuple(self)).encode(), hashlib.sha256).hexdigest()


@attrs.define(eq=False)
class Signer:
    """Makes and checks the URLs of one root.

    Args:
        clock: nanoseconds since 1970.
    """

    area: Area = attrs.field(repr=False)
    clock: Callable[[], int] = attrs.field(repr=False)

    def url(self, base: str, grant: Grant) -> str:
        """Return the URL of a grant, on the server at ``base``."""
        signed = urlencode({**grant.query(), "signature": grant.signature(self._key(make=True))}, quote_via=quote)
        return f"{base.rstrip('/')}/{quote(grant.bucket, safe='')}/{quote(grant.key)}?{signed}"

    def grant(self, target: str, method: str) -> Grant:
        """Return what the target of a request, path and query, allows.

        Raises:
            FilesError: nothing of that method: it is not signed by us, for another method, or too old.
        """
        try:
            found, signature = _parsed(target)
        except ValueError:  # also text that is no UTF-8
            raise denied("the URL is not signed") from None
        # Compared before anything is believed, in a time that does not depend on where the two differ.
        if not hmac.compare_digest(found.signature(self._key(make=False)).encode(), signature.encode()):
            raise denied("the signature does not belong to this URL")
        if method != found.method and (method, found.method) != ("HEAD", "GET"):
            raise denied(f"the URL is for {found.method}, not for {method}")
        if self.clock() >= found.expires * 10**9:
            raise denied("the URL has expired")
        return found

    def _key(self, *, make: bool) -> bytes:
        path = self.area.own / "signing.key"
        for _ in range(2):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                if not make:
                    raise denied("nothing was ever signed here") from None
                self._make_key()
                continue
            try:
                if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
                    raise damaged(f"{path} may be read by others: remove it, which makes all signed URLs worthless")
                key = os.read(fd, _KEY_SIZE + 1)
            finally:
                os.close(fd)
            if len(key) != _KEY_SIZE:
                raise damaged(f"{path} is damaged: remove it, which makes all signed URLs worthless")
            return key
        raise damaged(f"{path} cannot be made")

    def _make_key(self) -> None:
        self.area.make(self.area.own)
        with self.area.staged() as staged:
            os.fchmod(staged.fd, 0o600)
            write_all(staged.fd, secrets.token_bytes(_KEY_SIZE), 0)
            self.area.sync(staged.fd)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(staged.path, self.area.own / "signing.key")
        self.area.sync_folder(self.area.own)


def _parsed(target: str) -> tuple[Grant, str]:
    """Read a target into what it claims to allow, and its signature.

    Raises:
        ValueError: it claims nothing, or something twice, or what we do not know.
    """
    path, _, query = target.partition("?")
    bucket, slash, key = path.removeprefix("/").partition("/")
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    told = dict(pairs)
    signature = told.pop("signature", "")
    names = {field.name for field in attrs.fields(Grant)} - {"bucket", "key"}
    if len(told) + 1 != len(pairs) or not signature or not slash or not {"method", "expires"} <= told.keys() <= names:
        raise ValueError("no signed URL")
    return (
        Grant(
            bucket=unquote_to_bytes(bucket).decode(),
            key=unquote_to_bytes(key).decode(),
            method=told["method"],
            expires=int(told["expires"]),
            type=told.get("type"),
            md5=told.get("md5"),
            size=int(told["size"]) if "size" in told else None,
            answer_type=told.get("answer_type"),
            answer_disposition=told.get("answer_disposition"),
        ),
        signature,
    )
