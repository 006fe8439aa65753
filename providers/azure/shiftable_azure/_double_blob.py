"""The Blob service in memory: containers, block blobs, their versions, listings, batches and copies."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from email import policy
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree as ET

import attrs
from werkzeug.datastructures import Headers

from shiftable.testing.harness import Clock, Response
from shiftable_azure._double_auth import Keys, authorize
from shiftable_azure._double_wire import (
    Asked,
    Refusal,
    answer,
    base64_bytes,
    crc64,
    element,
    http_date,
    refused,
    xml_name,
)

__all__ = ["Blob", "BlobService", "Container"]

_PAGE = 5_000
_HEADERS = ("Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control")
_OVERRIDES = dict(zip(("rsct", "rsce", "rscl", "rscd", "rscc"), _HEADERS, strict=True))
_SCOPE = "$account-encryption-key"
_TIERS = {"Hot", "Cool", "Cold", "Archive"}
_CONTAINER = re.compile(r"\$(?:root|web|logs)|[a-z0-9](?:-?[a-z0-9])+")
_META_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG_TEXT = re.compile(r"[A-Za-z0-9 +\-./:=_]*")
_BAD_KEY = re.compile("[\x00-\x1f\x7f-\x9f]")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_INCLUDES = {"metadata", "tags", "versions", "snapshots", "uncommittedblobs", "copy", "deleted", "deletedwithversions"}
_Route = tuple[str, str, Callable[[Asked], Response]]
"""Name of an operation, the permissions of which one is needed, and what executes it."""

_MAX_PUT = 5_000 * 1024**2
_MAX_BLOCK = 4_000 * 1024**2


T = TypeVar("T")


@attrs.define
class Blob:
    """A block blob, or an older version of it."""

    content: bytes = attrs.field(repr=False)
    headers: dict[str, str]
    metadata: dict[str, str]
    tags: dict[str, str]
    md5: bytes | None
    etag: str
    modified: datetime
    version: str
    tier: str | None = None
    blocks: tuple[tuple[str, int], ...] = ()
    policy: tuple[str, datetime] | None = None
    hold: bool = False


@attrs.define
class Container:
    """A container: current blobs, older versions (oldest first) and uncommitted blocks, by key.

    Attributes:
        public: ``blob`` or ``container`` where the public may read.
        policies: its stored access policies, as XML.
        immutable: whether it has version-level immutability.
    """

    etag: str
    modified: datetime
    public: str | None = None
    policies: str = ""
    immutable: bool = False
    blobs: dict[str, Blob] = attrs.field(factory=dict)
    older: dict[str, list[Blob]] = attrs.field(factory=dict)
    blocks: dict[str, dict[str, bytes]] = attrs.field(factory=dict)

    def history(self, key: str) -> list[Blob]:
        """Return all versions, oldest first."""
        current = self.blobs.get(key)
        return [*self.older.get(key, ()), *([current] if current else ())]


class BlobService:
    """Executes requests, one at a time.

    Attributes:
        containers: by name.
        versioning: whether the account keeps versions.
        immutable: whether new containers of the account have version-level immutability.
        page_size: the most that a listing has in one page, whatever is asked for.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._numbers = itertools.count(1)
        self.containers: dict[str, Container] = {}
        self.versioning = False
        self.immutable = False
        self.page_size = _PAGE

    def reset(self) -> None:
        """Forget all containers; keep no versions."""
        self.containers.clear()
        self.versioning = False
        self.immutable = False
        self.page_size = _PAGE

    def put_raw(self, container: str, key: str, content: bytes) -> None:
        """Write a blob past the protocol, with nothing but its content."""
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        headers = {"Content-Type": "application/octet-stream"}
        blob = Blob(content, headers, {}, {}, digest, self._etag(), self._now(), self._next_version())
        self._retire(self.containers[container], key)
        self.containers[container].blobs[key] = blob

    def operation(self, asked: Asked) -> str:
        """Name the operation, as the REST reference does."""
        return self._route(asked)[0]

    def execute(self, asked: Asked) -> Response:
        """Answer a request."""
        try:
            response = self._authorized(asked)(asked)
        except Refusal as refusal:
            response = refused(refusal)
        response.headers["x-ms-version"] = asked.headers.get("x-ms-version", "2026-10-06")
        response.headers["Date"] = http_date(self._clock.now())
        if asked.method == "HEAD":
            response.headers.setdefault("Content-Length", "0")
        return response

    # routing

    def _authorized(self, asked: Asked) -> Callable[[Asked], Response]:
        allowed = authorize(asked, self._keys, self._clock.now())
        _, needs, run = self._route(asked)
        if "*" in allowed:
            return run
        if not allowed & needs:
            raise Refusal(403, "AuthorizationPermissionMismatch", "the signature does not permit this")
        if needs == {"c", "w"} and "w" not in allowed:
            self._require_new(asked)
        return run

    def _route(self, asked: Asked) -> tuple[str, set[str], Callable[[Asked], Response]]:
        comp, kind = asked.query.get("comp", ""), asked.query.get("restype", "")
        method = "GET" if asked.method == "HEAD" and not comp else asked.method
        if not asked.container:
            of_account: dict[tuple[str, str, str], _Route] = {
                ("GET", "", "list"): ("ListContainers", "l", self._list_containers),
                ("POST", "service", "userdelegationkey"): ("GetUserDelegationKey", "*", self._delegation_key),
                ("POST", "", "batch"): ("BlobBatch", "rdwx", self._batch),
            }
            found: _Route | None = of_account.get((method, kind, comp))
        elif kind == "container" or not asked.sent_key:
            of_container: dict[tuple[str, str], _Route] = {
                ("PUT", ""): ("CreateContainer", "cw", self._create),
                ("GET", ""): ("GetContainerProperties", "r", self._container_properties),
                ("DELETE", ""): ("DeleteContainer", "d", self._delete_container),
                ("GET", "acl"): ("GetContainerACL", "*", self._get_acl),
                ("PUT", "acl"): ("SetContainerACL", "*", self._set_acl),
                ("GET", "list"): ("ListBlobs", "l", self._list_blobs),
                ("POST", "batch"): ("BlobBatch", "rdwx", self._batch),
            }
            found = of_container.get((method, comp))
        else:
            found = self._blob_route(asked, method, comp)
        if found is None:
            raise Refusal(501, "APINotImplemented", f"the double has no {method} with comp={comp!r} here")
        name, needs, run = found
        return name, set(needs), run

    def _blob_route(self, asked: Asked, method: str, comp: str) -> tuple[str, str, Callable[[Asked], Response]] | None:
        from_url = "x-ms-copy-source" in asked.headers
        if (method, comp) == ("PUT", ""):
            if "x-ms-blob-type" not in asked.headers:
                return ("CopyBlob", "cw", self._copy) if from_url else ("PutBlob", "cw", self._untyped)
            return ("PutBlobFromURL", "cw", self._put_from_url) if from_url else ("PutBlob", "cw", self._put)
        if (method, comp) == ("PUT", "block"):
            return (
                ("PutBlockFromURL", "cw", self._put_block_from_url) if from_url else ("PutBlock", "cw", self._put_block)
            )
        return {
            ("GET", ""): ("GetBlob", "r", self._get),
            ("DELETE", ""): ("DeleteBlob", "dx", self._delete),
            ("PUT", "blocklist"): ("PutBlockList", "cw", self._put_block_list),
            ("GET", "blocklist"): ("GetBlockList", "r", self._get_block_list),
            ("GET", "tags"): ("GetBlobTags", "t", self._get_tags),
            ("PUT", "tags"): ("SetBlobTags", "t", self._set_tags),
            ("PUT", "immutabilityPolicies"): ("SetBlobImmutabilityPolicy", "i", self._set_policy),
            ("DELETE", "immutabilityPolicies"): ("DeleteBlobImmutabilityPolicy", "i", self._delete_policy),
            ("PUT", "legalhold"): ("SetBlobLegalHold", "i", self._set_hold),
            ("PUT", "snapshot"): ("SnapshotBlob", "cw", _no_snapshots),
            ("PUT", "lease"): ("LeaseBlob", "dw", _no_leases),
        }.get((method, comp))

    # the account

    def _list_containers(self, asked: Asked) -> Response:
        prefix, names = asked.query.get("prefix", ""), sorted(self.containers)
        found = [name for name in names if name.startswith(prefix) and name >= asked.query.get("marker", "")]
        here, rest = self._paged(found, asked)
        entries = "".join(
            f"<Container>{element('Name', name)}<Properties>{self._dated(self.containers[name])}"
            "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState></Properties></Container>"
            for name in here
        )
        return _xml(
            f'<EnumerationResults ServiceEndpoint="/"><Containers>{entries}</Containers>'
            f"<NextMarker>{rest[0] if rest else ''}</NextMarker></EnumerationResults>"
        )

    def _delegation_key(self, asked: Asked) -> Response:
        if not asked.headers.get("Authorization", "").startswith("Bearer "):
            raise Refusal(403, "AuthenticationFailed", "only a bearer of a token has user delegation keys")
        wanted = ET.fromstring(asked.body)  # noqa: S314  from the client under test
        start, expiry = wanted.findtext("Start") or "", wanted.findtext("Expiry") or ""
        if datetime.fromisoformat(expiry) > self._clock.now() + timedelta(days=7):
            raise Refusal(400, "InvalidXmlNodeValue", "a user delegation key lives for seven days at most")
        return _xml(
            "<UserDelegationKey><SignedOid>0</SignedOid><SignedTid>0</SignedTid>"
            f"{element('SignedStart', start)}{element('SignedExpiry', expiry)}<SignedService>b</SignedService>"
            f"<SignedVersion>{asked.headers['x-ms-version']}</SignedVersion>"
            f"{element('Value', self._keys.delegation_key)}</UserDelegationKey>"
        )

    def _batch(self, asked: Asked) -> Response:
        if asked.container:
            self._container(asked)
        parts = list(_batch_parts(asked))
        if len(parts) > 256:
            raise Refusal(400, "ExceedsMaxBatchRequestCount", "a batch has 256 subrequests at most")
        boundary = "batchresponse_double"
        lines = []
        for number, (method, target, headers) in parts:
            part = Asked.parse(method, asked.headers["Host"], target, headers, b"", self._keys.account)
            if method != "DELETE" or (asked.container and part.container != asked.container):
                raise Refusal(400, "InvalidInput", "this batch deletes blobs of its container, and nothing else")
            response = self.execute(attrs.evolve(part, inner=True))
            body = response.body.decode()
            told = {**dict(response.headers), "Content-Length": str(len(response.body))}
            lines += [f"--{boundary}", "Content-Type: application/http", f"Content-ID: {number}", ""]
            lines += [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in told.items()), "", body]
        content = "\r\n".join([*lines, f"--{boundary}--", ""]).encode()
        return answer(202, {}, content, f"multipart/mixed; boundary={boundary}")

    # containers

    def _create(self, asked: Asked) -> Response:
        if not _CONTAINER.fullmatch(asked.container) or not 3 <= len(asked.container) <= 63:
            raise Refusal(400, "InvalidResourceName", "this is no name of a container")
        if asked.container in self.containers:
            raise Refusal(409, "ContainerAlreadyExists", "The specified container already exists.")
        if "x-ms-blob-public-access" in asked.headers:
            raise Refusal(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")
        made = Container(self._etag(), self._now(), immutable=self.immutable and self.versioning)
        self.containers[asked.container] = made
        return answer(201, _tokens(made))

    def _container_properties(self, asked: Asked) -> Response:
        found = self._container(asked)
        state = {"x-ms-lease-state": "available", "x-ms-lease-status": "unlocked"}
        public = {"x-ms-blob-public-access": found.public} if found.public else {}
        scope = {
            "x-ms-default-encryption-scope": "$account-encryption-key",
            "x-ms-deny-encryption-scope-override": "false",
        }
        locks = {
            "x-ms-has-immutability-policy": "false",
            "x-ms-has-legal-hold": "false",
            "x-ms-immutable-storage-with-versioning-enabled": str(found.immutable).lower(),
        }
        return answer(200, _tokens(found) | state | public | scope | locks)

    def _get_acl(self, asked: Asked) -> Response:
        found = self._container(asked)
        public = {"x-ms-blob-public-access": found.public} if found.public else {}
        return _xml(f"<SignedIdentifiers>{found.policies}</SignedIdentifiers>", _tokens(found) | public)

    def _set_acl(self, asked: Asked) -> Response:
        found = self._container(asked)
        given = ET.fromstring(asked.body)  # noqa: S314  from the client under test
        found.policies = "".join(ET.tostring(policy, encoding="unicode") for policy in given)
        found.public = asked.headers.get("x-ms-blob-public-access")
        found.etag, found.modified = self._etag(), self._now()
        return answer(200, _tokens(found))

    def _delete_container(self, asked: Asked) -> Response:
        self._container(asked)
        del self.containers[asked.container]
        return answer(202)

    def _list_blobs(self, asked: Asked) -> Response:
        container, query = self._container(asked), asked.query
        includes = {name for name in query.get("include", "").split(",") if name}
        if includes - _INCLUDES:
            raise Refusal(400, "InvalidQueryParameterValue", f"include={query['include']}")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start = _units(query.get("startfrom", ""))
        if query.get("marker"):
            start = base64.b64decode(query["marker"])
        rows = [row for row in self._rows(container, prefix, delimiter, includes) if row.place >= start]
        here, rest = self._paged(rows, asked)
        marker = base64.b64encode(rest[0].place).decode() if rest else ""
        entries = "".join(self._entry(row, includes) for row in here)
        told = element("Prefix", prefix) + (element("Delimiter", delimiter) if delimiter else "")
        return _xml(
            f'<EnumerationResults ServiceEndpoint="/" ContainerName="{asked.container}">{told}'
            f"<Blobs>{entries}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )

    def _rows(self, container: Container, prefix: str, delimiter: str, includes: set[str]) -> Iterator[_Row]:
        """Yield what a listing has, in the order of UTF-16 units, versions oldest first."""
        keys = set(container.blobs)
        keys |= set(container.older) if "versions" in includes else set()
        keys |= {key for key in container.blocks if container.blocks[key]} if "uncommittedblobs" in includes else set()
        last = None
        for key in sorted((key for key in keys if key.startswith(prefix)), key=_units):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at >= 0:
                rolled = key[: at + len(delimiter)]
                if rolled != last:
                    yield _Row(_units(rolled), rolled)
                last = rolled
            elif "versions" in includes:
                for blob in container.history(key):
                    yield _Row(
                        _units(key) + b"\0\0" + blob.version.encode(), key, blob, blob is container.blobs.get(key)
                    )
            else:
                yield _Row(_units(key), key, container.blobs.get(key) or self._uncommitted(), current=True)

    def _entry(self, row: _Row, includes: set[str]) -> str:
        if row.blob is None:
            return f"<BlobPrefix>{xml_name(row.key)}</BlobPrefix>"
        blob = row.blob
        version = ""
        if "versions" in includes and self.versioning:
            version = element("VersionId", blob.version) + ("<IsCurrentVersion>true</IsCurrentVersion>" * row.current)
        headers = "".join(element(name, blob.headers.get(name, "")) for name in _HEADERS)
        digest = element("Content-MD5", base64.b64encode(blob.md5).decode() if blob.md5 else None)
        metadata = "".join(element(name, value) for name, value in blob.metadata.items())
        tags = "".join(f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in blob.tags.items())
        return (
            f"<Blob>{xml_name(row.key)}{version}<Properties><Creation-Time>{http_date(blob.modified)}</Creation-Time>"
            f"<Last-Modified>{http_date(blob.modified)}</Last-Modified><Etag>{blob.etag}</Etag>"
            f"{element('Content-Length', len(blob.content))}{headers}{digest}<BlobType>BlockBlob</BlobType>"
            f"<AccessTier>{blob.tier or 'Hot'}</AccessTier><LeaseStatus>unlocked</LeaseStatus>"
            "<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties>"
            + (f"<Metadata>{metadata}</Metadata>" if "metadata" in includes else "")
            + (f"<Tags><TagSet>{tags}</TagSet></Tags>" if "tags" in includes and tags else "")
            + "</Blob>"
        )

    # blobs

    def _untyped(self, _asked: Asked) -> Response:
        raise Refusal(
            400,
            "MissingRequiredHeader",
            "An HTTP header that's mandatory for this request is not specified: x-ms-blob-type",
        )

    def _put(self, asked: Asked) -> Response:
        if asked.headers["x-ms-blob-type"] != "BlockBlob":
            raise Refusal(409, "FeatureNotSupportedForAccount", "the double has block blobs alone")
        container = self._container(asked)
        _check_size(asked, _MAX_PUT)
        _check_hashes(asked)
        digest = hashlib.md5(asked.body, usedforsecurity=False).digest()
        stated = asked.headers.get("x-ms-blob-content-md5")
        if stated is not None and base64_bytes(stated, 16, "InvalidMd5") != digest:
            raise Refusal(400, "Md5Mismatch", "The MD5 value specified in the request did not match.")
        blob = self._made(asked, asked.body, digest, asked.headers.get("Content-Type"))
        self._write(asked, container, blob)
        return answer(201, {**self._written(blob), "Content-MD5": base64.b64encode(digest).decode()})

    def _put_from_url(self, asked: Asked) -> Response:
        container = self._container(asked)
        source = self.source(asked.headers)
        stated = asked.headers.get("x-ms-source-content-md5")
        digest = hashlib.md5(source.content, usedforsecurity=False).digest()
        if stated is not None and base64_bytes(stated, 16, "InvalidMd5") != digest:
            raise Refusal(400, "Md5Mismatch", "The source's MD5 value did not match.")
        blob = self._made(asked, source.content, digest, None)
        if asked.headers.get("x-ms-copy-source-blob-properties", "true") == "true":
            blob.headers, blob.md5 = dict(source.headers), source.md5
        self._write(asked, container, blob)
        return answer(201, self._written(blob))

    def _copy(self, asked: Asked) -> Response:
        """Copy at once what Azure copies in the background; whoever may write here may read all of the account."""
        container = self._container(asked)
        source = self.source(asked.headers, trusted="Authorization" in asked.headers)
        blob = self._made(asked, source.content, source.md5, None)
        blob.headers, blob.blocks = dict(source.headers), source.blocks
        blob.metadata = blob.metadata or dict(source.metadata)
        self._write(asked, container, blob)
        copied = {"x-ms-copy-id": blob.version, "x-ms-copy-status": "success"}
        return answer(202, self._written(blob) | copied)

    def _put_block(self, asked: Asked) -> Response:
        _check_size(asked, _MAX_BLOCK)
        _check_hashes(asked)
        self._stage(asked, asked.body)
        digest = base64.b64encode(hashlib.md5(asked.body, usedforsecurity=False).digest()).decode()
        return answer(201, {"Content-MD5": digest, "x-ms-request-server-encrypted": "true"})

    def _put_block_from_url(self, asked: Asked) -> Response:
        self._container(asked)
        content = self.source(asked.headers).content
        wanted = asked.headers.get("x-ms-source-range")
        if wanted is not None:
            start, stop = _range(wanted, len(content))
            content = content[start:stop]
        self._stage(asked, content)
        return answer(201, {"x-ms-request-server-encrypted": "true"})

    def _stage(self, asked: Asked, content: bytes) -> None:
        container, id_ = self._container(asked), asked.query.get("blockid", "")
        _check_key(asked)
        _check_block_id(id_)
        if not content:
            raise Refusal(400, "InvalidHeaderValue", "a block is not empty")
        blocks = container.blocks.setdefault(asked.key, {})
        if any(len(id_) != len(known) for known in blocks):
            raise Refusal(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.")
        if len(blocks) >= 100_000 and id_ not in blocks:
            raise Refusal(409, "BlockCountExceedsLimit", "The uncommitted block count cannot exceed 100,000 blocks.")
        blocks[id_] = content

    def _put_block_list(self, asked: Asked) -> Response:
        container = self._container(asked)
        _check_hashes(asked)
        try:
            wanted = ET.fromstring(asked.body)  # noqa: S314  from the client under test
        except ET.ParseError:
            raise Refusal(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") from None
        if len(wanted) > 50_000:
            raise Refusal(400, "BlockListTooLong", "The block list may not contain more than 50,000 blocks.")
        _check_conditions(asked, container.blobs.get(asked.key), writes=True)
        pieces = [self._block(container, asked.key, each.tag, each.text or "") for each in wanted]
        content = b"".join(pieces)
        stated = asked.headers.get("x-ms-blob-content-md5")  # kept, and not compared
        digest = base64_bytes(stated, 16, "InvalidMd5") if stated else None
        blob = self._made(asked, content, digest, None)
        blob.blocks = tuple((each.text or "", len(piece)) for each, piece in zip(wanted, pieces, strict=True))
        self._write(asked, container, blob)
        return answer(201, self._written(blob))

    def _block(self, container: Container, key: str, kind: str, id_: str) -> bytes:
        uncommitted = container.blocks.get(key, {})
        if kind in {"Uncommitted", "Latest"} and id_ in uncommitted:
            return uncommitted[id_]
        current = container.blobs.get(key)
        if kind in {"Committed", "Latest"} and current is not None:
            at = 0
            for known, size in current.blocks:
                if known == id_:
                    return current.content[at : at + size]
                at += size
        raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.")

    def _get_block_list(self, asked: Asked) -> Response:
        container = self._container(asked)
        blob, uncommitted = container.blobs.get(asked.key), container.blocks.get(asked.key, {})
        if blob is None and not uncommitted:
            raise _no_blob()
        lists = {
            "Committed": blob.blocks if blob else (),
            "Uncommitted": tuple((id_, len(uncommitted[id_])) for id_ in uncommitted),
        }
        wanted = asked.query.get("blocklisttype", "committed")
        told = "".join(
            f"<{name}Blocks>{_block_list(blocks)}</{name}Blocks>"
            for name, blocks in lists.items()
            if wanted in {"all", name.lower()}
        )
        return _xml(f"<BlockList>{told}</BlockList>", _tokens(blob) if blob else {})

    def _get(self, asked: Asked) -> Response:
        container = self._container(asked)
        if "If-Match" in asked.headers and not container.history(asked.key):
            raise _unmet()  # as Azurite answers
        blob = self._found(container, asked)
        _check_conditions(asked, blob, writes=False)
        if blob.tier == "Archive" and asked.method == "GET":
            raise Refusal(409, "BlobArchived", "This operation is not permitted on an archived blob.")
        headers = self._told(asked, container, blob)
        digest = base64.b64encode(blob.md5).decode() if blob.md5 else None
        wanted = asked.headers.get("x-ms-range") or asked.headers.get("Range")
        if asked.method == "HEAD" or wanted is None:
            if digest:
                headers["Content-MD5"] = digest
            return answer(200, {**headers, "Content-Length": str(len(blob.content))}, blob.content)
        start, stop = _range(wanted, len(blob.content))
        if digest:
            headers["x-ms-blob-content-md5"] = digest
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(blob.content)}"
        return answer(206, headers, blob.content[start:stop])

    def _delete(self, asked: Asked) -> Response:
        container = self._container(asked)
        blob = self._found(container, asked)
        _check_conditions(asked, blob, writes=False)
        if "versionid" in asked.query:
            if blob is container.blobs.get(asked.key):
                raise Refusal(403, "OperationNotAllowedOnRootBlob", "The current version is deleted with the blob.")
            self._require_unlocked(blob)
            container.older[asked.key].remove(blob)
        else:
            self._retire(container, asked.key)
            container.blobs.pop(asked.key)
        if not container.older.get(asked.key):
            container.older.pop(asked.key, None)
        return answer(202, {"x-ms-delete-type-permanent": str(not self.versioning).lower()})

    def _get_tags(self, asked: Asked) -> Response:
        blob = self._found(self._container(asked), asked)
        tags = "".join(f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in blob.tags.items())
        return _xml(f"<Tags><TagSet>{tags}</TagSet></Tags>")

    def _set_tags(self, asked: Asked) -> Response:
        _check_hashes(asked)
        blob = self._found(self._container(asked), asked)
        given = ET.fromstring(asked.body)  # noqa: S314  from the client under test
        blob.tags = _checked_tags(
            [(tag.findtext("Key") or "", tag.findtext("Value") or "") for tag in given.iter("Tag")]
        )
        return answer(204)

    # locks

    def _set_policy(self, asked: Asked) -> Response:
        blob = self._lockable(asked)
        policy = self._stated_policy(asked)
        if policy is None:
            raise Refusal(400, "MissingRequiredHeader", "x-ms-immutability-policy-until-date is not specified.")
        present = blob.policy
        fixed = present is not None and present[0] == "locked" and present[1] > self._clock.now()
        if present is not None and fixed and (policy[0] != "locked" or policy[1] < present[1]):
            raise _immutable()
        blob.policy = policy
        return answer(200, _lock_headers(blob))

    def _delete_policy(self, asked: Asked) -> Response:
        blob = self._lockable(asked)
        if blob.policy is not None and blob.policy[0] == "locked" and blob.policy[1] > self._clock.now():
            raise _immutable()
        blob.policy = None
        return answer(200)

    def _set_hold(self, asked: Asked) -> Response:
        blob = self._lockable(asked)
        stated = asked.headers.get("x-ms-legal-hold", "").lower()
        if stated not in {"true", "false"}:
            raise Refusal(400, "InvalidHeaderValue", "x-ms-legal-hold is true or false")
        blob.hold = stated == "true"
        return answer(200, {"x-ms-legal-hold": stated})

    def _lockable(self, asked: Asked) -> Blob:
        container = self._container(asked)
        blob = self._found(container, asked)
        _require_immutable(container)
        return blob

    def _stated_policy(self, asked: Asked) -> tuple[str, datetime] | None:
        until = asked.headers.get("x-ms-immutability-policy-until-date")
        mode = asked.headers.get("x-ms-immutability-policy-mode", "Unlocked").lower()
        if until is None:
            return None
        if mode not in {"unlocked", "locked"}:
            raise Refusal(400, "InvalidHeaderValue", f"{mode!r} is no mode of an immutability policy")
        ends = parsedate_to_datetime(until)
        if ends <= self._clock.now():
            raise Refusal(400, "InvalidHeaderValue", "the immutability policy would end in the past")
        return mode, ends

    def _require_unlocked(self, blob: Blob) -> None:
        if blob.hold:
            message = "This operation is not permitted as the blob is immutable due to one or more legal holds."
            raise Refusal(409, "BlobImmutableDueToLegalHold", message)
        if blob.policy is not None and blob.policy[1] > self._clock.now():
            raise _immutable()

    # state

    def _container(self, asked: Asked) -> Container:
        found = self.containers.get(asked.container)
        if found is None:
            raise Refusal(404, "ContainerNotFound", "The specified container does not exist.")
        return found

    def _found(self, container: Container, asked: Asked) -> Blob:
        version = asked.query.get("versionid")
        if "snapshot" in asked.query:
            raise _no_blob()
        candidates = container.history(asked.key) if version else [container.blobs.get(asked.key)]
        for blob in candidates:
            if blob is not None and version in {None, blob.version}:
                return blob
        raise _no_blob()

    def _require_new(self, asked: Asked) -> None:
        if asked.key in self._container(asked).blobs:
            raise Refusal(
                403, "UnauthorizedBlobOverwrite", "This request is not authorized to perform blob overwrites."
            )

    def _made(self, asked: Asked, content: bytes, digest: bytes | None, content_type: str | None) -> Blob:
        _check_key(asked)
        given = {name: asked.headers.get(f"x-ms-blob-{name.lower()}") for name in _HEADERS}
        headers = {name: value for name, value in given.items() if value}
        headers.setdefault("Content-Type", content_type or "application/octet-stream")
        pairs = parse_qsl(asked.headers.get("x-ms-tags", ""), keep_blank_values=True)
        tier = asked.headers.get("x-ms-access-tier")
        if tier not in {None, *_TIERS}:
            raise Refusal(400, "InvalidHeaderValue", f"{tier!r} is no access tier")
        policy, hold = self._stated_policy(asked), asked.headers.get("x-ms-legal-hold", "").lower() == "true"
        if policy is not None or hold:
            _require_immutable(self._container(asked))
        return Blob(
            content,
            headers,
            _checked_metadata(asked.headers),
            _checked_tags(pairs),
            digest,
            self._etag(),
            self._now(),
            self._next_version(),
            tier,
            policy=policy,
            hold=hold,
        )

    def _write(self, asked: Asked, container: Container, blob: Blob) -> None:
        _check_conditions(asked, container.blobs.get(asked.key), writes=True)
        self._retire(container, asked.key)
        container.blobs[asked.key] = blob
        container.blocks.pop(asked.key, None)

    def _retire(self, container: Container, key: str) -> None:
        if self.versioning and key in container.blobs:
            container.older.setdefault(key, []).append(container.blobs[key])

    def _written(self, blob: Blob) -> dict[str, str]:
        version = {"x-ms-version-id": blob.version} if self.versioning else {}
        return {**_tokens(blob), **version, "x-ms-request-server-encrypted": "true"}

    def _told(self, asked: Asked, container: Container, blob: Blob) -> dict[str, str]:
        headers = _tokens(blob) | blob.headers
        headers |= {f"x-ms-meta-{name}": value for name, value in blob.metadata.items()}
        headers |= {
            "Accept-Ranges": "bytes", "x-ms-blob-type": "BlockBlob", "x-ms-lease-state": "available",
            "x-ms-lease-status": "unlocked", "x-ms-server-encrypted": "true",
            "x-ms-access-tier": blob.tier or "Hot",
            "x-ms-creation-time": http_date(blob.modified),
        }  # fmt: skip
        headers |= {name: asked.query[short] for short, name in _OVERRIDES.items() if short in asked.query}
        if blob.tier is None:
            headers["x-ms-access-tier-inferred"] = "true"
        headers |= _lock_headers(blob)
        if blob.tags:
            headers["x-ms-tag-count"] = str(len(blob.tags))
        if self.versioning:
            headers["x-ms-version-id"] = blob.version
            if blob is container.blobs.get(asked.key):
                headers["x-ms-is-current-version"] = "true"
        return headers

    def source(self, asked: Headers, *, trusted: bool = False) -> Blob:
        """Return the blob that a copy reads, if its URL may, or if whoever asks is trusted with it.

        Args:
            asked: headers of the request for the copy.
        """
        url = urlsplit(asked["x-ms-copy-source"])
        headers = Headers({"x-ms-version": asked["x-ms-version"]})
        if "x-ms-copy-source-authorization" in asked:
            headers["Authorization"] = asked["x-ms-copy-source-authorization"]
        target = url.path + (f"?{url.query}" if url.query else "")
        try:
            source = Asked.parse("GET", url.netloc, target, headers, b"", self._keys.account)
            if not trusted or "sig" in source.query:
                self._authorized(source)
            blob = self._found(self._container(source), source)
        except Refusal as refusal:
            told = {"x-ms-copy-source-status-code": str(refusal.status), "x-ms-copy-source-error-code": refusal.code}
            raise Refusal(refusal.status, "CannotVerifyCopySource", refusal.message, told) from None
        conditions = Headers(
            {name.replace("x-ms-source-", ""): value for name, value in asked.items() if "source-if" in name.lower()}
        )
        try:
            _check_conditions(attrs.evolve(source, headers=conditions), blob, writes=True)
        except Refusal:
            raise Refusal(412, "SourceConditionNotMet", "The source condition is not met.") from None
        return blob

    def _paged(self, items: list[T], asked: Asked) -> tuple[list[T], list[T]]:
        wanted = asked.query.get("maxresults", str(_PAGE))
        if not wanted.isdecimal() or int(wanted) < 1:
            raise Refusal(400, "OutOfRangeQueryParameterValue", f"maxresults={wanted}")
        size = min(int(wanted), _PAGE, self.page_size)
        return items[:size], items[size:]

    def _uncommitted(self) -> Blob:
        """Return what is told of a blob of which there are only uncommitted blocks."""
        return Blob(b"", {}, {}, {}, None, "", self._now(), "")

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)

    def _next_version(self) -> str:
        return f"{self._clock.now():%Y-%m-%dT%H:%M:%S}.{next(self._numbers):07d}Z"

    def _etag(self) -> str:
        return f"0x8DD{next(self._numbers):012X}"

    def _dated(self, found: Container) -> str:
        return f"<Last-Modified>{http_date(found.modified)}</Last-Modified><Etag>{found.etag}</Etag>"


@attrs.frozen
class _Row:
    """One entry of a listing; without a blob it is a prefix."""

    place: bytes
    key: str
    blob: Blob | None = None
    current: bool = False


def _no_snapshots(_asked: Asked) -> Response:
    raise Refusal(409, "FeatureNotSupportedForAccount", "the double has no snapshots")


def _no_leases(_asked: Asked) -> Response:
    raise Refusal(409, "FeatureNotSupportedForAccount", "the double has no leases")


def _require_immutable(container: Container) -> None:
    if not container.immutable:
        message = "The container has no version-level immutability."
        raise Refusal(400, "InvalidInput", message)


def _immutable() -> Refusal:
    message = "This operation is not permitted as the blob is immutable due to a policy."
    return Refusal(409, "BlobImmutableDueToPolicy", message)


def _lock_headers(blob: Blob) -> dict[str, str]:
    headers = {"x-ms-legal-hold": "true"} if blob.hold else {}
    if blob.policy is not None:
        headers["x-ms-immutability-policy-mode"] = blob.policy[0]
        headers["x-ms-immutability-policy-until-date"] = http_date(blob.policy[1])
    return headers


def _no_blob() -> Refusal:
    return Refusal(404, "BlobNotFound", "The specified blob does not exist.")


def _xml(body: str, headers: Mapping[str, str] | None = None) -> Response:
    text = f'\ufeff<?xml version="1.0" encoding="utf-8"?>{body}'  # with the mark that Azure puts before its XML
    return answer(200, headers, text.encode(), "application/xml")


def _tokens(found: Blob | Container) -> dict[str, str]:
    return {"ETag": f'"{found.etag}"', "Last-Modified": http_date(found.modified)}


def _units(text: str) -> bytes:
    return text.encode("utf-16-be")


def _batch_parts(asked: Asked) -> Iterator[tuple[str, tuple[str, str, Headers]]]:
    # Clients leave out the quotes that a boundary of base64 needs.
    boundary = re.search(r'boundary="?([^";]+)', asked.headers["Content-Type"])
    head = f'Content-Type: multipart/mixed; boundary="{boundary[1] if boundary else ""}"\r\n\r\n'.encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + asked.body)
    for part in message.iter_parts():
        text = part.get_payload(decode=True)
        assert isinstance(text, bytes)  # noqa: S101  what the parser makes of a part
        lines = text.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        pairs = [line.split(": ", 1) for line in itertools.takewhile(bool, lines[1:])]
        yield str(part["Content-ID"]), (method, target, Headers([(name, value) for name, value in pairs]))


def _block_list(blocks: Iterable[tuple[str, int]]) -> str:
    return "".join(f"<Block>{element('Name', id_)}{element('Size', size)}</Block>" for id_, size in blocks)


# checks


def _check_size(asked: Asked, most: int) -> None:
    if "Content-Length" not in asked.headers:
        raise Refusal(411, "MissingContentLengthHeader", "Content-Length HTTP header is not specified.")
    if len(asked.body) > most:
        raise Refusal(413, "RequestBodyTooLarge", "The request body is too large.")


def _check_hashes(asked: Asked) -> None:
    md5, crc = asked.headers.get("Content-MD5"), asked.headers.get("x-ms-content-crc64")
    if md5 is not None and crc is not None:
        raise Refusal(400, "InvalidInput", "Content-MD5 and x-ms-content-crc64 exclude each other")
    if (
        md5 is not None
        and base64_bytes(md5, 16, "InvalidMd5") != hashlib.md5(asked.body, usedforsecurity=False).digest()
    ):
        raise Refusal(400, "Md5Mismatch", "The MD5 value specified in the request did not match.")
    if crc is not None and base64_bytes(crc, 8, "InvalidHeaderValue") != crc64(asked.body):
        raise Refusal(400, "Crc64Mismatch", "The CRC64 value specified in the request did not match.")


def _check_key(asked: Asked) -> None:
    if not 1 <= len(_units(asked.key)) // 2 <= 1024 or _BAD_KEY.search(asked.key) or asked.key.count("/") > 253:
        raise Refusal(400, "InvalidResourceName", "The specified resource name contains invalid characters.")


def _check_block_id(id_: str) -> None:
    try:
        size = len(base64.b64decode(id_, validate=True))
    except ValueError:
        size = 0
    if not 1 <= size <= 64:
        raise Refusal(400, "InvalidQueryParameterValue", "blockid is base64 of 1 to 64 bytes")


def _check_conditions(asked: Asked, blob: Blob | None, *, writes: bool) -> None:
    """Compare the four conditional headers.

    A create-only write is refused with 409, as Azure does; a read whose condition says "not modified" with 304.
    """
    headers = asked.headers
    match, none_match = headers.get("If-Match"), headers.get("If-None-Match")
    if match is not None and (blob is None or match.strip('"') not in {"*", blob.etag}):
        raise _unmet()
    if none_match is not None and blob is not None and none_match.strip('"') in {"*", blob.etag}:
        if writes and none_match == "*":
            raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
        raise _unmet() if writes or asked.method == "DELETE" else Refusal(304, "ConditionNotMet", "not modified")
    since, until = headers.get("If-Modified-Since"), headers.get("If-Unmodified-Since")
    if blob is not None and since is not None and blob.modified <= parsedate_to_datetime(since):
        raise _unmet() if writes or asked.method == "DELETE" else Refusal(304, "ConditionNotMet", "not modified")
    if blob is not None and until is not None and blob.modified > parsedate_to_datetime(until):
        raise _unmet()


def _unmet() -> Refusal:
    return Refusal(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")


def _checked_metadata(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not name.lower().startswith("x-ms-meta-"):
            continue
        if not name[10:]:
            raise Refusal(400, "EmptyMetadataKey", "The key for one of the metadata key-value pairs is empty.")
        if not _META_NAME.fullmatch(name[10:]) or any(name[10:].lower() == known.lower() for known in found):
            raise Refusal(400, "InvalidMetadata", "The specified metadata is invalid.")
        found[name[10:]] = value
    if sum(len(name) + len(value) for name, value in found.items()) > 8192:
        raise Refusal(400, "MetadataTooLarge", "The size of the specified metadata exceeds the limits.")
    return found


def _checked_tags(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        fits = 1 <= len(name) <= 128 and len(value) <= 256 and name not in found
        if not fits or not _TAG_TEXT.fullmatch(name) or not _TAG_TEXT.fullmatch(value):
            raise Refusal(400, "InvalidTag", "The tags specified are invalid.")
        found[name] = value
    if len(found) > 10:
        raise Refusal(400, "TagsTooLarge", "The tags specified exceed the maximum number of 10.")
    return found


def _range(text: str, size: int) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise Refusal(400, "InvalidHeaderValue", f"{text!r} is no range")
    start, stop = int(found[1]), int(found[2]) + 1 if found[2] else size
    if start >= size:
        told = {"Content-Range": f"bytes */{size}"}
        raise Refusal(416, "InvalidRange", "The range specified is invalid for the current size of the resource.", told)
    return start, min(stop, size)
