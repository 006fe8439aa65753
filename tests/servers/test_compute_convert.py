"""Images of disks in other forms, by the real qemu-img."""

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from shiftable.compute.convert import convert_image
from shiftable.compute.driver import ImageForm
from shiftable.errors import ConfigError, ShiftableError

MIB = 1024**2


@pytest.fixture(autouse=True)
def _programs(debian: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, debian.environ[name])


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    """Return a disk of an odd size with a hole, which lies in source.qcow2."""
    content = os.urandom(MIB) + bytes(6 * MIB) + os.urandom(MIB + 1536)
    (tmp_path / "disk").write_bytes(content)
    convert_image(tmp_path / "disk", tmp_path / "source.qcow2", "qcow2")
    return content


@pytest.mark.parametrize(
    ("form", "begins", "whole"), [("qcow2", b"QFI\xfb", 512), ("vmdk", b"KDMV", 512), ("vhd", b"", MIB)]
)
def test_a_disk_is_the_same_in_every_form_and_back(
    tmp_path: Path, disk: bytes, form: ImageForm, begins: bytes, whole: int
) -> None:
    made = convert_image(tmp_path / "source.qcow2", tmp_path / "target", form)
    content, padded = made.path.read_bytes(), disk.ljust(-(-len(disk) // whole) * whole, b"\0")
    assert (True, len(padded)) == (content.startswith(begins), made.disk)
    if form == "vhd":
        footer = content[len(padded) :]
        assert (padded, 512, b"conectix") == (content[: len(padded)], len(footer), footer[:8])
        assert len(padded) == int.from_bytes(footer[48:56], "big")  # its current size
        assert 2 == int.from_bytes(footer[60:64], "big")  # a fixed disk
    else:
        convert_image(made.path, tmp_path / "back", "raw")
        assert padded == (tmp_path / "back").read_bytes()


def test_compute_engines_archive_holds_the_disk(tmp_path: Path, disk: bytes) -> None:
    made = convert_image(tmp_path / "source.qcow2", tmp_path / "target.tar.gz", "gce")
    with tarfile.open(made.path, "r|gz") as archive:
        entry = archive.next()
        assert entry is not None
        held = archive.extractfile(entry)
        assert held is not None
        assert ("disk.raw", 1024**3, disk) == (entry.name, entry.size, held.read(len(disk)))


def test_images_that_refer_to_others_are_refused(tmp_path: Path, disk: bytes, debian: Any) -> None:
    (tmp_path / "whole.raw").write_bytes(disk)
    overlay, flat, beside = (tmp_path / name for name in ("overlay.qcow2", "flat.vmdk", "beside.qcow2"))
    debian.run("qemu-img", "create", "-f", "qcow2", "-b", tmp_path / "whole.raw", "-F", "raw", overlay)
    debian.run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "whole.raw", flat)
    debian.run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'whole.raw'}", beside, "9M")
    for each in (overlay, flat, beside):
        with pytest.raises(ConfigError, match="refers to"):
            convert_image(each, tmp_path / "target.raw", "raw")
    assert not (tmp_path / "target.raw").exists()


def test_a_damaged_image_is_an_error_and_leaves_nothing(tmp_path: Path, disk: bytes) -> None:
    damaged = tmp_path / "damaged.qcow2"
    content = (tmp_path / "source.qcow2").read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(ShiftableError):
        convert_image(damaged, tmp_path / "target.raw", "raw")
    assert disk
    assert ["damaged.qcow2", "disk", "source.qcow2"] == sorted(path.name for path in tmp_path.iterdir())
