"""User data that is wrapped, read by cloud-init itself: Debian's, the code that reads it on a machine."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest

from shiftable.compute import FleetSpec, cloud_init

KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 "o\'ps" 😀'
SPEC = FleetSpec(name="web", image="debian-12", cpus=1, memory_gib=1, user="ops", ssh_keys=(KEY,))
OURS = {
    "name": "ops",
    "shell": "/bin/bash",
    "sudo": "ALL=(ALL) NOPASSWD:ALL",
    "lock_passwd": True,
    "ssh_authorized_keys": [KEY],
}

# What cloud-init's own stages do with user data at a first boot: take it apart, then hand each part to its handler.
READER = """
import base64, json, os, sys, tempfile
from cloudinit import user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler

folder = tempfile.mkdtemp(dir=sys.argv[1])

class Paths:
    def get_ipath(self, name):
        return os.path.join(folder, name)
    get_ipath_cur = get_ipath

user_data.util.fetch_ssl_details = lambda paths: {}
whole = user_data.UserDataProcessor(Paths()).process(sys.stdin.buffer.read())
handler, others = CloudConfigPartHandler(Paths()), []
handler.handle_part(None, "__begin__", None, None, None, None)
for part in whole.walk():
    kind, content = part.get_content_type(), util.fully_decoded_payload(part)
    if kind in handler.list_types():
        handler.handle_part(None, kind, part.get_filename() or "x", content, None, dict(part))
    elif part.get_content_maintype() != "multipart":
        others.append([kind, content])
handler.handle_part(None, "__end__", None, None, None, None)
with open(os.path.join(folder, "cloud_config")) as file:
    json.dump({"config": util.load_yaml(file.read()), "parts": others}, sys.stdout)
"""


@attrs.frozen
class Read:
    """What cloud-init makes of it: the merged configuration, and the parts that are none."""

    config: dict[str, Any]
    parts: list[list[str]]


@pytest.fixture
def read(debian: Any, tmp_path: Path) -> Any:
    packages = debian.root / "usr/lib/python3/dist-packages"
    python = shutil.which(
        "python3", path=f"{debian.root}/usr/bin:/usr/bin"
    )  # Debian's, which has its packages' version
    if python is None or not (packages / "cloudinit").is_dir():
        pytest.fail("cloud-init is not here: run `nox -s servers`", pytrace=False)

    def run(given: bytes | None) -> Read:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", READER, str(tmp_path)],
            input=cloud_init(SPEC, "web-0", given),
            env={**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=True,
        )
        return Read(**json.loads(done.stdout))

    return run


def test_without_users_data_there_is_the_host_and_its_user(read: Any) -> None:
    found = read(None)
    assert found == Read(
        {
            "hostname": "web-0",
            "manage_etc_hosts": "localhost",
            "ssh_pwauth": False,
            "disable_root": True,
            "users": [OURS],
        },
        [],
    )


@pytest.mark.parametrize(
    "script",
    ["#!/bin/sh\necho hi\n", "#!/bin/sh\necho grüße 😀\n", "#!/bin/sh\r\necho a\n--b\n\n", "\n #!/bin/sh\n"],
    ids=["plain", "unicode", "line-ends", "blanks"],
)
def test_a_script_arrives_as_it_is(read: Any, script: str) -> None:
    for given in (script.encode(), gzip.compress(script.encode())):
        found = read(given)
        assert found.parts == [["text/x-shellscript", script]]
        assert found.config["users"] == [OURS]


@pytest.mark.parametrize(
    "how",
    [
        "",
        'merge_how: "dict(replace)+list(replace)+str()"\n',
        'merge_type: "list(append)+dict(recurse_array)+str()"\n',
        "merge_how:\n - name: list\n   settings: [prepend]\n - name: dict\n   settings: [replace]\n",
    ],
    ids=["nothing", "replace", "append", "prepend"],
)
def test_our_user_is_added_however_the_users_data_is_merged(read: Any, how: str) -> None:
    given = f"#cloud-config\n{how}packages: [nginx]\nruncmd: [[ls]]\nusers: [default, {{name: bob}}]\nhostname: mine\n"
    config = read(given.encode()).config
    assert config["users"] == ["default", {"name": "bob"}, OURS]
    assert (config["packages"], config["runcmd"], config["hostname"]) == (["nginx"], [["ls"]], "mine")
    assert (config["ssh_pwauth"], config["disable_root"]) == (False, True)


@pytest.mark.parametrize("given", ["#cloud-config\n: [bad", "#cloud-config\nusers: []\n", "#cloud-config\n{}\n"])
def test_data_that_is_broken_or_empty_does_not_keep_our_user_out(read: Any, given: str) -> None:
    assert read(given.encode()).config["users"] == [OURS]


def test_archives_patches_and_mime_keep_what_they_are(read: Any) -> None:
    archive = read(b"#cloud-config-archive\n- '#!/bin/sh'\n- type: text/cloud-config\n  content: 'packages: [b]'\n")
    assert (archive.parts, archive.config["packages"]) == ([["text/x-shellscript", "#!/bin/sh"]], ["b"])
    patch = b'#cloud-config-jsonp\n[{"op": "add", "path": "/packages", "value": ["q"]}]\n'
    assert read(patch).config["packages"] == ["q"]
    twice = read(cloud_init(attrs.evolve(SPEC, user="first"), "inner", b"#!/bin/sh\n"))
    assert twice.parts == [["text/x-shellscript", "#!/bin/sh\n"]]
    assert [user["name"] for user in twice.config["users"]] == ["first", "ops"]
    assert archive.config["users"] == [OURS]
