"""Images of disks in other forms: by a stand-in for qemu-img here, by the real one in tests/servers."""

import hashlib
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shiftable.cli._main import cli
from shiftable.compute.convert import convert_image
from shiftable.compute.driver import FORMS, ImageForm
from shiftable.errors import ConfigError, ShiftableError

MIB, GIB = 1024**2, 1024**3
SIGN = b"STANDIN "


pytestmark = pytest.mark.usefixtures("programs")


def image(folder: Path, disk: bytes, **about: Any) -> Path:
    path = folder / "source.qcow2"
    path.write_bytes(SIGN + json.dumps({"format": "qcow2", **about}).encode() + b"\n" + disk)
    return path


def inside(path: Path) -> tuple[dict[str, Any], bytes]:
    head, _, disk = path.read_bytes().removeprefix(SIGN).partition(b"\n")
    return json.loads(head), disk


@pytest.mark.parametrize(
    ("form", "native", "options"),
    [
        ("qcow2", "qcow2", ""),
        ("vhd", "vpc", "subformat=fixed,force_size=on"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
    ],
)
def test_a_disk_is_written_in_the_form_that_a_provider_imports(
    tmp_path: Path, form: ImageForm, native: str, options: str
) -> None:
    disk = os.urandom(MIB)
    made = convert_image(image(tmp_path, disk), tmp_path / "target", form)
    assert ({"format": native, "options": options}, disk) == inside(tmp_path / "target")
    content = (tmp_path / "target").read_bytes()
    assert (len(content), MIB, hashlib.sha256(content).hexdigest()) == (made.size, made.disk, made.sha256)
    assert ["programs", "source.qcow2", "target"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_disk_for_azure_has_whole_mebibytes(tmp_path: Path) -> None:
    disk = os.urandom(MIB + 512)
    made = convert_image(image(tmp_path, disk), tmp_path / "target.vhd", "vhd")
    assert 2 * MIB == made.disk
    assert disk.ljust(2 * MIB, b"\0") == inside(made.path)[1]


def test_a_disk_for_compute_engine_is_the_one_file_of_an_archive_and_has_whole_gibibytes(tmp_path: Path) -> None:
    disk = os.urandom(3 * 512)
    source = image(tmp_path, disk)
    made = convert_image(source, tmp_path / "target.tar.gz", "gce")
    with tarfile.open(made.path, "r:gz") as archive:
        (entry,) = archive.getmembers()
        held = archive.extractfile(entry)
        assert held is not None
        assert ("disk.raw", GIB, 0, 0) == (entry.name, entry.size, entry.mtime, entry.uid)
        assert disk == held.read(len(disk))
        assert b"\0" * 4096 == held.read(4096)
    again = convert_image(source, tmp_path / "again.tar.gz", "gce")
    assert made.sha256 == again.sha256


def test_a_raw_disk_is_its_bytes(tmp_path: Path) -> None:
    disk = os.urandom(1024)
    (tmp_path / "disk").write_bytes(disk)
    made = convert_image(tmp_path / "disk", tmp_path / "target.raw", "raw")
    assert disk == made.path.read_bytes()
    assert 0o666 & ~int(Path("/proc/self/status").read_text().partition("Umask:")[2].split()[0], 8) == stat.S_IMODE(
        made.path.stat().st_mode
    )


@pytest.mark.parametrize(
    "about",
    [
        {"backing-filename": "base.qcow2"},
        {"backing-filename": "base", "full-backing-filename": "/etc/passwd"},
        {"format-specific": {"data": {"data-file": "/etc/passwd"}}},
        {"format-specific": {"data": {"extents": [{"filename": "/etc/passwd", "format": "FLAT"}]}}},
    ],
    ids=["backing", "full", "data", "extent"],
)
def test_an_image_that_refers_to_other_files_is_refused(tmp_path: Path, about: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"refers to .*make it one file"):
        convert_image(image(tmp_path, b"\0" * 512, **about), tmp_path / "target.raw", "raw")
    assert not (tmp_path / "target.raw").exists()


def test_an_image_that_names_itself_is_one_file(tmp_path: Path) -> None:
    about = {"format-specific": {"data": {"extents": [{"filename": str(tmp_path / "source.qcow2")}]}}}
    assert 512 == convert_image(image(tmp_path, b"\0" * 512, **about), tmp_path / "target.raw", "raw").disk


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_what_is_no_image_of_a_disk_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ConfigError, match="no image of a disk"):
        convert_image(tmp_path / "text", tmp_path / "target.vhd", "vhd")
    with pytest.raises(ConfigError, match="is no file"):
        convert_image(tmp_path / "missing", tmp_path / "target.vhd", "vhd")
    with pytest.raises(ConfigError, match="is encrypted"):
        convert_image(image(tmp_path, b"\0" * 512, encrypted=True), tmp_path / "target.vhd", "vhd")


def test_a_pipe_is_not_replaced_by_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.raw")
    with pytest.raises(ShiftableError, match="no file that could be replaced"):
        convert_image(image(tmp_path, b"x" * 512), tmp_path / "pipe.raw", "raw", replace=True)
    assert (tmp_path / "pipe.raw").is_fifo()


def test_an_image_that_is_there_is_replaced_only_if_that_is_said(tmp_path: Path) -> None:
    source, target = image(tmp_path, b"x" * 512), tmp_path / "target.raw"
    target.write_bytes(b"old")
    with pytest.raises(ConfigError, match="exists already"):
        convert_image(source, target, "raw")
    assert b"old" == target.read_bytes()
    convert_image(source, target, "raw", replace=True)
    assert b"x" * 512 == target.read_bytes()


def test_what_qemu_img_says_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    source = image(tmp_path, b"x" * 512, fails="Could not open: No space left on device")
    with pytest.raises(ShiftableError, match=r"^qemu-img: Could not open: No space left on device$"):
        convert_image(source, tmp_path / "target.raw", "raw")
    with pytest.raises(ShiftableError, match="cannot be written"):
        convert_image(image(tmp_path, b"x" * 512), tmp_path / "missing" / "target.raw", "raw")
    assert ["programs", "source.qcow2"] == sorted(path.name for path in tmp_path.iterdir())


def test_without_qemu_img_it_is_said_how_to_get_it(tmp_path: Path, programs: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(programs.parent))
    with pytest.raises(ConfigError, match="apt install qemu-utils"):
        convert_image(image(tmp_path, b"x" * 512), tmp_path / "target.raw", "raw")


# the command


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.qcow2", "qcow2"), ("a.raw", "raw"), ("a.tar.gz", "gce"), ("a.vhd", "vhd"), ("a.vmdk", "vmdk")],
)
def test_the_command_takes_the_form_from_the_name(folder: Path, name: str, form: str) -> None:
    image(folder, os.urandom(512))
    answer = CliRunner().invoke(cli, ["compute", "convert", "source.qcow2", name, "--json"])
    assert (0, "") == (answer.exit_code, answer.stderr)
    told = json.loads(answer.stdout)
    assert (name, form) == (told["path"], told["form"])
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told["sha256"]


def test_the_command_says_what_is_wrong_in_one_line(folder: Path) -> None:
    image(folder, b"x" * 512)
    for words, said in (
        (["source.qcow2", "target"], "does not say its form"),
        (["missing", "target.raw"], "is no file"),
        (["source.qcow2", "source.qcow2"], "exists already"),
    ):
        answer = CliRunner().invoke(cli, ["compute", "convert", *words])
        assert (2, True) == (answer.exit_code, said in answer.stderr)
        assert 1 == answer.stderr.count("\n")
    answer = CliRunner().invoke(cli, ["compute", "convert", "source.qcow2", "target", "--to", "raw"])
    assert 0 == answer.exit_code
    assert {"gce", "qcow2", "raw", "vhd", "vmdk"} == set(FORMS)
    assert f"sha256 {hashlib.sha256(b'x' * 512).hexdigest()}\n" in answer.stdout
