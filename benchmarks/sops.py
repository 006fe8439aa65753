"""How much the SOPS format costs over the bare cipher: 1,000 values in one file, decrypted and checked.

Run it with ``python benchmarks/sops.py``. Each round measures both sides, one right after the other; the ratios are
medians. Times are of the CPU: on a machine with other work, the longer side alone would be interrupted. The reading of
the text is shown apart, because it is another library's work.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shiftable import sops
from shiftable.sops._text import parsed

VALUES = 1_000
ROUNDS = 51
FORMATS: tuple[sops.Format, ...] = ("json", "yaml")


def bare(key: bytes, tree: dict[str, str]) -> Callable[[], None]:
    """Return what decrypts the same values with nothing around it: base64 is already undone."""
    parts = []
    for name, text in tree.items():
        data, iv, tag = (base64.b64decode(text.split(f"{part}:")[1].split(",", 1)[0]) for part in ("data", "iv", "tag"))
        parts.append((iv, data + tag, f"{name}:".encode()))
    cipher = AESGCM(key)

    def run() -> None:
        for iv, sealed, place in parts:
            cipher.decrypt(iv, sealed, place)

    return run


def seconds(act: Callable[[], object]) -> float:
    """Measure one call."""
    start = time.thread_time()
    act()
    return time.thread_time() - start


def main() -> None:
    """Print one line for each format."""
    private, public = sops.generate_identity()
    me = sops.parse_identities(private)
    document = sops.Document({f"key-{number}": f"{number:048}" for number in range(VALUES)}, recipients=(public,))
    bundle = json.loads(sops.dump(document, format="json"))
    del bundle["sops"]
    cipher = bare(document._key, bundle)  # noqa: SLF001  the benchmark compares with the same key
    print(f"{VALUES:,} values of 48 bytes, median of {ROUNDS} paired runs")
    for style in FORMATS:
        content = sops.dump(document, format=style)
        rounds = [
            (
                seconds(cipher),
                seconds(lambda content=content, style=style: parsed(content, style)),  # type: ignore[misc]  # bound now
                seconds(lambda content=content, style=style: sops.load(content, me, format=style)),  # type: ignore[misc]  # the same
            )
            for _ in range(ROUNDS)
        ]
        aes, text, load = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(load / aes for aes, _, load in rounds)
        inner = statistics.median((load - text) / aes for aes, text, load in rounds)
        print(
            f"{style}: load {load * 1e3:6.2f} ms, of which text {text * 1e3:6.2f} ms; AES-GCM alone {aes * 1e3:5.2f}; "
            f"load/AES {ratio:.2f}, without the text {inner:.2f}"
        )


if __name__ == "__main__":
    main()
