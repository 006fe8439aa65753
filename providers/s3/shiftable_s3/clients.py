"""S3 clients as the driver wants them: Signature Version 4 throughout, and answers read quickly."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from shiftable_s3.errors import has_no_reason
from shiftable_s3.models import shared_models

if TYPE_CHECKING:
    import boto3
    import botocore.session
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3 import S3Client

__all__ = [
    "AWS_CONFIG",
    "SERVER_CONFIG",
    "at_once",
    "fast_timestamps",
    "foreign",
    "is_foreign",
    "md5_for_batches",
    "moment",
    "only_s3",
    "reasons_again",
    "server_client",
]

_AT_ONCE = 1024 * 1024
_ATTEMPTS = 3

# Without a stated version botocore signs presigned URLs for older regions with Signature Version 2, which newer
# regions and many servers refuse.
# Checksums stay as the SDK has them: a CRC32 of every body is sent, kept and compared by Amazon, and compared again on
# the way back. With Python's zlib it costs 0.5 ms per MiB, and it is what notices an altered download.
AWS_CONFIG = Config(signature_version="s3v4")

# S3-compatible servers older than 2025 refuse the CRC32 in a trailer that the SDK sends by default, or answer with
# checksums of their own that the SDK then refuses. Bodies are nevertheless checked: where there is no checksum the SDK
# signs the body's SHA-256, and every server compares that. Virtual hosts need DNS names for each bucket: paths do not.
SERVER_CONFIG = Config(
    signature_version="s3v4",
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    max_pool_connections=64,  # as many threads as the bulk lane has; the SDK throws surplus connections away
    s3={"addressing_style": "path"},
)


def server_client(
    endpoint: str, access_key: str | None, secret_key: str | None, region: str, *, ca_bundle: str | None = None
) -> S3Client:
    """Make a client for a server that is not Amazon's.

    Args:
        access_key: of the server; without both keys the SDK's own chain is asked.
        ca_bundle: path of the certificates to trust in place of the system's.
    """
    import boto3
    import botocore.session

    inner = botocore.session.get_session()
    shared_models(inner)
    fast_timestamps(inner)
    client = boto3.Session(botocore_session=inner).client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        verify=ca_bundle,
        config=SERVER_CONFIG,
    )
    md5_for_batches(client)
    return client


def fast_timestamps(session: boto3.Session | botocore.session.Session) -> None:
    """Have the clients that a session makes from now on read times with the standard library.

    botocore hands every time to dateutil, which takes 60 % of the CPU of a listing. Only this session is changed, and
    only its clients' parser: retries, events and test doubles that hook into botocore work as before.
    """
    inner: Any = getattr(session, "_session", session)  # boto3 keeps the botocore session there, and tells it nowhere
    inner.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parsed)


def at_once(client: S3Client) -> None:
    """Have a client send objects of up to 1 MiB together with the request's head.

    The SDK asks the server first whether it may send the body (``Expect: 100-continue``), whatever its size: one more
    round trip for each small object, to spare sending what may be refused. A body that is refused or redirected is
    sent again, as it is in memory; Amazon's SDKs for Java and Go draw the line at 1 and 2 MiB.
    """
    client.meta.events.register("before-sign.s3.PutObject", _without_asking, unique_id="shiftable-at-once")


def _without_asking(request: AWSRequest, **_: object) -> None:
    body: Any = request.data
    stated = request.headers.get("X-Amz-Decoded-Content-Length")  # where a checksum follows the body
    if stated is not None:
        size = int(stated)
    elif isinstance(body, BytesIO):
        size = body.getbuffer().nbytes
    else:
        return
    if size <= _AT_ONCE:
        del request.headers["Expect"]


def md5_for_batches(client: S3Client) -> None:
    """Have a client send Content-MD5 with batch deletes, as S3 demanded until 2024.

    The SDK now sends a CRC32 in its place, which Amazon takes and older servers answer with "missing Content-MD5".
    """
    client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5, unique_id="shiftable-batch-md5")


def _with_md5(request: AWSRequest, **_: object) -> None:
    body: Any = request.body
    request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def reasons_again(client: S3Client) -> None:
    """Have a client ask again where a refusal arrived without its reason, as a cut connection leaves it.

    The SDK takes the status for the code then: that a bucket has no lifecycle rules would mean that there is no bucket.
    """
    events: Any = client.meta.events  # the stubs know no handler that answers
    events.register("needs-retry.s3", _asked_again, unique_id="shiftable-reasons-again")


def _asked_again(response: Any, operation: Any, attempts: int, **_: object) -> float | None:  # noqa: ANN401  botocore's
    if response is None or attempts >= _ATTEMPTS:
        return None
    answer, parsed = response
    lost = has_no_reason(operation.name, str(parsed.get("Error", {}).get("Code", "")))
    return 0.1 * attempts if answer.status_code < 500 and lost else None


_TOLD = {
    "CopyObject": "CopyObjectResult",
    "CreateMultipartUpload": "UploadId",
    "GetObject": "ETag",
    "HeadObject": "ETag",
    "PutObject": "ETag",
    "UploadPart": "ETag",
    "UploadPartCopy": "CopyPartResult",
}
"""What no answer of success is without."""


def only_s3(client: S3Client) -> None:
    """Have a client take no proxy's page for an answer: it may have any status, and is no sign of success."""
    events: Any = client.meta.events
    events.register("after-call.s3", _check_told, unique_id="shiftable-only-s3")
    events.register("before-parse.s3.DeleteObjects", _check_deleted, unique_id="shiftable-only-s3-deleted")


def foreign(operation: str) -> ResponseParserError:
    """Return the error for an answer that another one gave."""
    return ResponseParserError(f"{operation}: the answer is none of S3's: does a proxy answer in the server's place?")


def is_foreign(operation: str, status: int, told: Container[str], headers: Mapping[str, str]) -> bool:
    """Tell whether an answer of success is another one's: it lacks what S3 always tells, or is a page.

    Args:
        told: names of what was found in the answer.
    """
    wanted = _TOLD.get(operation)
    if wanted is not None:
        return wanted not in told
    # A deletion has no content to tell of: that is 204.
    return operation == "DeleteObject" and status == 200 and headers.get("content-type", "").startswith("text/html")


def _check_told(http_response: Any, parsed: Any, model: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
    status = http_response.status_code
    if status < 300 and is_foreign(model.name, status, parsed, http_response.headers):
        if "Body" in parsed:
            parsed["Body"].close()
        raise foreign(model.name)


def _check_deleted(response_dict: Any, **_: object) -> None:  # noqa: ANN401  botocore's own
    if response_dict["status_code"] < 300 and b"DeleteResult" not in response_dict["body"]:
        raise foreign("DeleteObjects")


@functools.lru_cache(1024)
def moment(text: str) -> datetime:
    """Read the time in a header; the same one often comes many times."""
    found = parsedate_to_datetime(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _parsed(value: Any) -> datetime:  # noqa: ANN401  as botocore's own: text or a number
    """Read the two forms that services write; leave every other to botocore."""
    try:
        if isinstance(value, str) and value[4:5] == "-":  # 2026-11-20T12:00:00.000Z, in bodies
            parsed = datetime.fromisoformat(value)
        elif isinstance(value, str) and value.endswith(" GMT"):  # Fri, 20 Nov 2026 12:00:00 GMT, in headers
            return moment(value)
        else:
            return parse_timestamp(value)
    except ValueError:
        return parse_timestamp(value)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
