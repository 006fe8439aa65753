"""Stands in for qemu-img: an image is a line of JSON and the bytes of the disk; what is raw is the bytes alone."""

import json
import sys
from pathlib import Path

SIGN = b"STANDIN "


def read(path: Path) -> tuple[dict[str, object], bytes]:
    content = path.read_bytes()
    if not content.startswith(SIGN):
        return {"format": "raw"}, content
    head, _, disk = content.removeprefix(SIGN).partition(b"\n")
    return json.loads(head), disk


def main() -> None:
    verb, *words = sys.argv[1:]
    options, paths = words[: words.index("--")], [Path(word) for word in words[words.index("--") + 1 :]]
    assert all(path.is_absolute() for path in paths), paths
    about, disk = read(paths[0])
    if "fails" in about:
        sys.exit(f"qemu-img: {about['fails']}")
    if verb == "info":
        sys.stdout.write(json.dumps({"virtual-size": len(disk), **about}))
        return
    form = options[options.index("-O") + 1]
    more = options[options.index("-o") + 1] if "-o" in options else ""
    head = SIGN + json.dumps({"format": form, "options": more}).encode() + b"\n"
    paths[1].write_bytes(disk if form == "raw" else head + disk)


main()
