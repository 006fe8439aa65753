"""Move one large object from S3 into files by ``shiftable migrate``, beside boto3's ``download_file`` in the same run.

A raw responder in a process of its own plays S3: it answers from memory, in ranges or whole, so that what is measured
is the client. Each client is a process of its own; its peak of memory is what the kernel says when it ends. The bare
one is boto3's ``download_file`` as it comes: ten threads, a range of 8 MiB each, nothing checked.

    python benchmarks/migrate_from_s3.py [mebibytes] [rounds]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import attrs

MIB = 1024 * 1024
BUCKET, KEY = "shop-assets", "large"
ETAG = '"0123456789abcdef0123456789abcdef-256"'
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"
BLOCKS = [random.Random(number).randbytes(MIB) for number in range(61)]  # noqa: S311  makes up a content
"""The object is these in turns; a prime number of them, so that no two parts of it are alike."""

FILE = """
[project]
name = "bench"
[environments.production]
provider = "there"
[providers.there]
type = "aws"
[providers.here]
type = "baremetal"
root = "here"
fsync = FSYNC
[blob.assets]
bucket = "shop-assets"
"""
BARE = """
import os, sys, boto3
boto3.client("s3").download_file("shop-assets", "large", sys.argv[1])
if sys.argv[2] == "true":
    with open(sys.argv[1], "rb") as file:
        os.fsync(file)
"""
XML = '<?xml version="1.0" encoding="UTF-8"?>'
EMPTY = {
    "versioning": "<VersioningConfiguration/>",
    "tagging": "<Tagging><TagSet/></Tagging>",
    "location": "<LocationConstraint>eu-central-1</LocationConstraint>",
}


# the responder


@attrs.frozen
class Responder:
    """Answers for one bucket with one object."""

    size: int

    def answer(self, client: socket.socket, line: str, headers: dict[str, str]) -> None:
        """Answer one request."""
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        if path == f"/{BUCKET}/{KEY}" and not query:
            self._object(client, method, headers.get("range", ""))
        elif query.startswith("list-type=2"):
            self._xml(client, self._listing())
        elif query.split("=")[0] in EMPTY:
            self._xml(client, EMPTY[query.split("=")[0]])
        else:
            client.sendall(b"HTTP/1.1 200 OK\r\nx-amz-request-id: bench\r\nContent-Length: 0\r\n\r\n")

    def _xml(self, client: socket.socket, text: str) -> None:
        body = (XML + text).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)

    def _listing(self) -> str:
        entry = f"<Key>{KEY}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified><Size>{self.size}</Size>"
        entry += f"<ETag>{ETAG.replace(chr(34), '&quot;')}</ETag><StorageClass>STANDARD</StorageClass>"
        about = f"<Name>{BUCKET}</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{about}<Contents>{entry}</Contents></ListBucketResult>"

    def _object(self, client: socket.socket, method: str, wanted: str) -> None:
        start, stop, status = 0, self.size, "200 OK"
        ranged = ""
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else self.size, self.size)
            status, ranged = "206 Partial Content", f"Content-Range: bytes {start}-{stop - 1}/{self.size}\r\n"
        head = f"HTTP/1.1 {status}\r\nETag: {ETAG}\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n{ranged}"
        head += f"Content-Type: binary/octet-stream\r\nContent-Length: {stop - start}\r\n\r\n"
        client.sendall(head.encode())
        while method == "GET" and start < stop:
            piece = memoryview(BLOCKS[start // MIB % len(BLOCKS)])[start % MIB :][: stop - start]
            client.sendall(piece)
            start += len(piece)

    def converse(self, client: socket.socket) -> None:
        """Answer the requests of one connection."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, client.makefile("rb") as stream:
            while line := stream.readline().decode().strip():
                headers = {}
                while field := stream.readline().decode().strip():
                    name, _, value = field.partition(":")
                    headers[name.lower()] = value.strip()
                stream.read(int(headers.get("content-length", 0)))
                try:
                    self.answer(client, line, headers)
                except (BrokenPipeError, ConnectionResetError):
                    return


def _respond(ready: Connection, size: int) -> None:
    responder = Responder(size)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        ready.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            threading.Thread(target=responder.converse, args=(client,), daemon=True).start()


# the clients


@attrs.frozen
class Run:
    """What one client took."""

    seconds: float
    peak: float
    """MiB."""


def _run(command: list[str], folder: Path, environ: dict[str, str]) -> Run:
    """Run a client to its end; the kernel tells what it took."""
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, cwd=folder, env=environ, stdout=said, stderr=said) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return Run(seconds, usage.ru_maxrss / 1024)


def _digest(blocks: int) -> str:
    digest = hashlib.sha256()
    for number in range(blocks):
        digest.update(BLOCKS[number % len(BLOCKS)])
    return digest.hexdigest()


def _compare(url: str, blocks: int, rounds: int, fsync: str) -> None:
    """Run both clients in turns and print a table."""
    shiftable = [str(Path(sys.executable).parent / "shiftable"), "migrate", "--from", "there", "--to", "here"]
    wanted = _digest(blocks)
    found: dict[str, list[Run]] = {"boto3 download_file": [], "migrate --apply": [], "migrate --verify": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            environ = os.environ | {
                "AWS_ENDPOINT_URL": url,
                "AWS_DEFAULT_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "HOME": name,
            }
            (folder / "shiftable.toml").write_text(FILE.replace("FSYNC", fsync))
            command = [sys.executable, "-c", BARE, "bare", fsync]
            found["boto3 download_file"].append(_run(command, folder, environ))
            (folder / "bare").unlink()
            command = [*shiftable, "--apply", "--no-verify"]
            found["migrate --apply"].append(_run(command, folder, environ))
            with (folder / "here/blob" / BUCKET / KEY).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                    raise SystemExit("what arrived is not what was sent")
            found["migrate --verify"].append(_run([*shiftable, "--verify"], folder, environ))
            shutil.rmtree(folder / "here")
    bare = statistics.median(run.seconds for run in found["boto3 download_file"])
    print(f"\n{blocks:,} MiB, fsync = {fsync}, median of {rounds}: seconds, MiB/s, times boto3, peak of memory in MiB")
    for title, runs in found.items():
        seconds = statistics.median(run.seconds for run in runs)
        peak = max(run.peak for run in runs)
        print(f"{title:20} {seconds:8.2f} {blocks / seconds:8.0f} {seconds / bare:8.2f} {peak:8.0f}")
    peak = max(run.peak for run in found["migrate --apply"])
    if peak >= 200:
        raise SystemExit(f"the peak of memory, {peak:.0f} MiB, is not below 200 MiB")


def main() -> None:
    """Start the responder, compare, stop it."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ready, told = multiprocessing.Pipe()
    responder = multiprocessing.Process(target=_respond, args=(told, blocks * MIB), daemon=True)
    responder.start()
    try:
        url = f"http://127.0.0.1:{ready.recv()}"
        for fsync in ("false", "true"):
            _compare(url, blocks, rounds, fsync)
    finally:
        responder.terminate()
        responder.join()


if __name__ == "__main__":
    main()
