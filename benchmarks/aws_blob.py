"""What one blob operation costs through shiftable, compared with the same call through bare boto3.

Both talk to one raw responder in a process of its own, which answers from memory: what is measured is the client.
Each round times both, in turns, and yields one ratio; the table shows the medians. 1.00 means: no more than boto3.

    python benchmarks/aws_blob.py [rounds]
"""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import socket
import statistics
import sys
import threading
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection

import boto3

from shiftable.blob import BlobStore
from shiftable.config import Credential
from shiftable_aws import AwsSettings
from shiftable_aws._session import Session
from shiftable_aws.blob import blob_driver

BODY = bytes(range(256)) * 16
ETAG = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
CRC = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
KEYS = 1000

Operation = Callable[[], object]


# the responder


def _listing() -> bytes:
    entry = (
        "<Contents><Key>folder/object-{:06d}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
        f"<ETag>&quot;{ETAG}&quot;</ETag><Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )
    entries = "".join(entry.format(number) for number in range(KEYS))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bench</Name><KeyCount>{KEYS}</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>"
        f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    ).encode()


def _answers() -> dict[bytes, bytes]:
    common = "Date: Fri, 20 Nov 2026 12:00:00 GMT\r\nx-amz-request-id: BENCH\r\nServer: bench\r\n"
    described = (
        f'ETag: "{ETAG}"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n'
        f"Accept-Ranges: bytes\r\nx-amz-checksum-crc32: {CRC}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
    )
    listing = _listing()

    def answer(headers: str, size: int, body: bytes = b"") -> bytes:
        return f"HTTP/1.1 200 OK\r\n{common}{headers}Content-Length: {size}\r\n\r\n".encode() + body

    return {
        b"PUT": answer(f'ETag: "{ETAG}"\r\nx-amz-checksum-crc32: {CRC}\r\n', 0),
        b"HEAD": answer(described, len(BODY)),
        b"GET": answer(described, len(BODY), BODY),
        b"LIST": answer("Content-Type: application/xml\r\n", len(listing), listing),
    }


def _converse(client: socket.socket, answers: dict[bytes, bytes]) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, client.makefile("rb") as stream:
        while line := stream.readline():
            method, size, expects = line.split(b" ", 1)[0], 0, False
            if b"list-type=2" in line:
                method = b"LIST"
            while (header := stream.readline()) != b"\r\n":
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
                elif name.lower() == b"expect":
                    expects = True
            if expects:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            stream.read(size)
            client.sendall(answers[method])


def _respond(ready: Connection) -> None:
    answers = _answers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            threading.Thread(target=_converse, args=(client, answers), daemon=True).start()


# the two clients


def _pairs(url: str) -> dict[str, tuple[Operation, Operation, int]]:
    """Return for each row of the table: through boto3, through shiftable, how often in a round."""
    bare = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",  # noqa: S106  nobody's
    )
    keys = {"access_key": Credential.literal("bench"), "secret_key": Credential.literal("bench")}
    session = Session(AwsSettings(region="eu-central-1", endpoint=url, **keys))
    bucket = BlobStore(blob_driver(session)).bucket("bench")
    return {
        "put 4 KiB": (
            lambda: bare.put_object(Bucket="bench", Key="a/key", Body=BODY, ContentType="text/plain"),
            lambda: bucket.put("a/key", BODY, content_type="text/plain"),
            100,
        ),
        "get 4 KiB": (
            lambda: bare.get_object(Bucket="bench", Key="a/key")["Body"].read(),  # noqa: PLW0108  the call is part of it
            lambda: bucket.get("a/key"),
            100,
        ),
        "stat": (
            lambda: bare.head_object(Bucket="bench", Key="a/key"),
            lambda: bucket.stat("a/key"),
            100,
        ),
        f"list {KEYS:,}": (
            lambda: bare.list_objects_v2(Bucket="bench")["Contents"],
            lambda: list(bucket.list()),
            2,
        ),
    }


def _timed(operation: Operation, count: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        operation()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def _compare(bare: Operation, ours: Operation, count: int, rounds: int) -> list[tuple[tuple[float, float], ...]]:
    _timed(bare, 5)
    _timed(ours, 5)
    results = []
    for number in range(rounds):
        # Whoever comes second may find a warmer machine: take turns.
        if number % 2:
            second, first = _timed(ours, count), _timed(bare, count)
        else:
            first, second = _timed(bare, count), _timed(ours, count)
        results.append((first, second))
    return results


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    ours, theirs = multiprocessing.Pipe()
    responder = multiprocessing.get_context("spawn").Process(target=_respond, args=(theirs,), daemon=True)
    responder.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    print(f"{rounds} paired rounds, medians; µs per call on the CPU; ratio = shiftable / boto3")
    print(f"{'':12}{'boto3':>9}{'shiftable':>11}{'CPU':>8}{'wall':>8}")
    for name, (bare, own, count) in _pairs(url).items():
        results = _compare(bare, own, count, rounds)
        cpu = statistics.median(second[1] / first[1] for first, second in results)
        wall = statistics.median(second[0] / first[0] for first, second in results)
        costs = [statistics.median(result[side][1] for result in results) * 1e6 for side in (0, 1)]
        print(f"{name:12}{costs[0]:9.0f}{costs[1]:11.0f}{cpu:8.2f}{wall:8.2f}")
    responder.terminate()
    responder.join()


if __name__ == "__main__":
    main()
