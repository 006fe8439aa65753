"""Whether a server obeys the conditions of writes, found out with objects of our own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from botocore.exceptions import ClientError

from shiftable.tokens import Token
from shiftable_s3._answers import code_of, status_of, version_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Learned", "objection", "selection"]


@attrs.define
class Learned:
    """What the driver has found out: mostly about a server that is not Amazon's.

    Attributes:
        counted: in which buckets, by GET or HEAD, that no number of tags is told means that there are none.
    """

    counted: set[tuple[str, str]] = attrs.field(factory=set)
    obeyed: set[tuple[str, str, bool]] = attrs.field(factory=set)
    bare_etags: bool = False


def objection(client: S3Client, learned: Learned, bucket: str, name: str, *, parts: bool) -> str | None:
    """Find out why a condition cannot be relied on; learn how the server wants ETags."""
    kind = " of uploads in parts" * parts
    if not _obeys(client, bucket, name, parts=parts):
        return f"the server ignores the condition {name}{kind} in this bucket and would overwrite"
    if name == "IfMatch":
        bare = _wants_bare_etags(client, bucket)
        if bare is None:
            return f"the server refuses every write under the condition {name} in this bucket"
        learned.bare_etags = bare
    return None


def _obeys(client: S3Client, bucket: str, name: str, *, parts: bool) -> bool:
    """Find out whether a condition that does not hold stops a write; what is written for that is deleted."""
    target = _probe(bucket)
    condition: Any = {name: "*" if name == "IfNoneMatch" else f'"{"0" * 32}"'}
    written: list[Any] = []
    try:
        if name == "IfNoneMatch":
            written.append(client.put_object(**target))
        if parts:
            written.append(_written_in_parts(client, target, condition))
        else:
            written.append(client.put_object(**target, **condition))
    except ClientError as exc:
        if code_of(exc) == "NoSuchBucket" or status_of(exc.response) not in {404, 412, 501}:
            raise
        return status_of(exc.response) != 501
    finally:
        _remove(client, target, written)
    return False


def _wants_bare_etags(client: S3Client, bucket: str) -> bool | None:
    """Find out how the server wants an ETag: Ceph 16 compares without the quotes that it tells it with.

    With versions Ceph 16 compares with what does not exist yet: ``None``.
    """
    target = _probe(bucket)
    written: list[Any] = [client.put_object(**target)]
    etag: str = written[0]["ETag"]
    try:
        for bare in (False, True):
            try:
                written.append(client.put_object(**target, IfMatch=etag.strip('"') if bare else etag))
            except ClientError as exc:
                if status_of(exc.response) != 412:
                    raise
            else:
                return bare
    finally:
        _remove(client, target, written)
    return None


def _remove(client: S3Client, target: dict[str, Any], written: Iterable[Any]) -> None:
    for answer in written:
        client.delete_object(**target, **selection(None, version_of(answer)))


def _written_in_parts(client: S3Client, target: Any, condition: Any) -> Mapping[str, Any]:  # noqa: ANN401  arguments of calls
    upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
    try:
        part = client.upload_part(**upload, PartNumber=1, Body=b"x")
        pieces: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        return client.complete_multipart_upload(**upload, MultipartUpload=pieces, **condition)
    except ClientError:
        client.abort_multipart_upload(**upload)
        raise


def _probe(bucket: str) -> dict[str, Any]:
    return {"Bucket": bucket, "Key": f".shiftable-probe-{uuid.uuid4().hex}"}


def selection(if_match: Token | None, version: str | None) -> dict[str, Any]:
    """Return what says which version of an object is meant."""
    arguments: dict[str, Any] = {} if if_match is None else {"IfMatch": if_match.value}
    if version is not None:
        arguments["VersionId"] = version
    return arguments
