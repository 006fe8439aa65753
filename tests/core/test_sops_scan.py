"""The search for credentials in clear: what is found, what is not, and what is allowed. Samples are made here."""

from __future__ import annotations

import base64
import itertools
import os
import random
import string
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from shiftable import sops
from shiftable.errors import ConfigError
from shiftable.sops import Allowed, Allowlist
from shiftable.sops._scan import leaks_in

DICE = random.Random(7)  # noqa: S311  samples, not keys


def chars(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Return text that looks generated; the same in each run."""
    while True:
        text = "".join(DICE.choice(alphabet) for _ in range(count))
        if any(char.isdigit() for char in text) and any(char.isalpha() for char in text):
            return text


UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
PEM = ed25519.Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)

PLANTED = [
    ("private key", PEM.decode()),
    ("private key", f'{{"private_key": "{PEM.decode()}"}}'.replace("\n", "\\n")),
    ("age identity", sops.generate_identity()[0].reveal()),
    ("AWS access key", f"aws = AKIA{chars(16, UPPER)}"),
    ("GitHub token", f"x: ghp_{chars(36)}"),
    ("GitHub token", f"github_pat_{chars(60)}"),
    ("GitLab token", f"glpat-{chars(20)}"),
    ("Slack token", f"xoxb-{chars(12, string.digits + 'a')}-{chars(24)}"),
    ("Slack webhook", f"https://hooks.slack.com/services/T{chars(8, UPPER)}/B{chars(8, UPPER)}/{chars(24)}"),
    ("Google API key", f"AIza{chars(35)}"),
    ("Google OAuth secret", f"GOCSPX-{chars(28)}"),
    ("Stripe key", f"sk_live_{chars(24)}"),
    ("SendGrid key", f"SG.{chars(22)}.{chars(43)}"),
    ("npm token", f"//registry/:_x=npm_{chars(36)}"),
    ("PyPI token", f"pypi-{chars(90)}"),
    ("OpenAI or Anthropic key", f"sk-ant-{chars(40)}"),
    ("Vault token", f"hvs.{chars(24)}"),
    ("DigitalOcean token", f"dop_v1_{chars(64, HEX)}"),
    ("Azure storage key", f"AccountName=a;AccountKey={base64.b64encode(DICE.randbytes(64)).decode()};"),
    ("JSON web token", f"eyJ{chars(20)}.eyJ{chars(30)}.{chars(43)}"),
    ("password in a URL", f"postgresql://app:{chars(16)}@db.internal:5432/shop"),
    ("password in a URL", f"redis://:{chars(16)}@cache"),
    ("assigned secret", f'password = "{chars(16)}"'),
    ("assigned secret", f"export DB_PASSWORD={chars(16)}"),
    ("assigned secret", f"  api_key: {chars(20)}\r\n"),
    ("assigned secret", f"API-KEY => '{chars(20)}'"),
    ("assigned secret", f'"client_secret": "{chars(20)}",'),
    ("assigned secret", f'headers["auth_key"] = "{chars(20)}"'),
    ("assigned secret", f"accessKeyId=x secretAccessKey={chars(40)}"),
    ("random text", f'key = "{base64.b64encode(DICE.randbytes(48)).decode()}"'),
]


@pytest.mark.parametrize(("kind", "text"), PLANTED, ids=itertools.count())
def test_what_is_planted_is_found_on_its_line(kind: str, text: str) -> None:
    content = f"first line\n\n{text}\nlast line\n".encode()
    found = list(leaks_in(content, "app/settings.py"))
    assert [(3, kind)] == [(leak.line, leak.kind) for leak in found]
    assert "app/settings.py" == found[0].path
    assert all(part not in repr(found) for part in text.split("-") if len(part) > 20)


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        'password = "changeme123"',
        'password = "your-password-1"',
        "password = os.environ['PASSWORD1']",
        "password: ${DB_PASSWORD_1}",
        "password: {{ vault.password1 }}",
        'password = get_password("db1")',
        'token = "********12"',
        "PASSWORD=",
        "password: correcthorsebattery",
        'secret = "app/stripe/key1.yaml"',
        "api_key = https://example.com/docs1",
        "postgresql://user:password@localhost/x",
        "postgresql://user:${PASSWORD}@localhost/x",
        "https://example.com:8080/a@b",
        'f"postgresql://app:{chars(16)}@db"',
        "-----BEGIN PRIVATE KEY-----",
        "`-----BEGIN PRIVATE KEY-----` begins one",
        "AGE-SECRET-KEY-1...",
        f'"integrity": "sha512-{base64.b64encode(b"x1Y" * 21).decode()}"',
        f"commit: '{'0f1e2d3c' * 5}'",
        f'sha256 = "{"9f86d081884c7d65" * 4}"',
        '"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"',
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFW8JyQKB5MpgMNshzLHC70I/HvcKBKMLk1we07jnc4u ada",
        '"path/to/some/Very/Long/File/Name/That/Goes/On/And/On1"',
        "",
    ],
    ids=itertools.count(),
)
def test_what_is_no_credential_is_left_alone(text: str) -> None:
    assert [] == list(leaks_in(f"a\n{text}\nb\n".encode(), "x.py"))


def test_encrypted_files_hold_nothing_in_clear() -> None:
    _, public = sops.generate_identity()
    data = {"password": chars(20), "api_key": chars(40), "pem": PEM.decode()}
    for style in ("yaml", "json", "dotenv"):
        document = sops.Document(data, recipients=(public,))
        assert [] == list(leaks_in(sops.dump(document, format=style), f"x.{style}"))  # type: ignore[arg-type]  # literals


def test_a_value_in_clear_in_an_encrypted_file_is_found() -> None:
    _, public = sops.generate_identity()
    document = sops.Document({"a": "b", "password_unencrypted": chars(20)}, recipients=(public,))
    assert ["assigned secret"] == [leak.kind for leak in leaks_in(sops.dump(document), "x.yaml")]


def test_binary_files_and_hashes_of_locks_are_passed_over() -> None:
    secret = f'token = "{chars(30)}"\n'.encode()
    assert [] == list(leaks_in(b"\0" + secret, "x.bin"))
    assert [] == list(leaks_in(secret, "web/package-lock.json"))
    assert ["AWS access key"] == [
        leak.kind for leak in leaks_in(f"x AKIA{chars(16, UPPER)}".encode(), "web/package-lock.json")
    ]


def test_a_line_is_reported_once_and_lines_are_in_order() -> None:
    text = "\n".join(f'password{number} = "AKIA{chars(16, UPPER)}"' for number in range(5))
    assert [1, 2, 3, 4, 5] == [leak.line for leak in leaks_in(text.encode(), "x")]


def test_a_reason_on_the_line_allows_it() -> None:
    line = f'password = "{chars(20)}"'
    assert [] == list(leaks_in(f"{line}  # shiftable: allow-secret made for the tests".encode(), "x"))
    assert 1 == len(list(leaks_in(f"{line}  # shiftable: allow-secret".encode(), "x")))


# the repository


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a b.py").write_text(f'x = "AKIA{chars(16, UPPER)}"\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/ü.py").write_text(f'password = "{chars(20)}"\n')
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


def scan(repo: Path, **options: bool) -> tuple[list[str], list[str]]:
    leaks, unused = sops.scan(repo, sops.tracked(repo, **options), Allowlist.read(repo))
    return [leak.path for leak in leaks], [entry.reason for entry in unused]


def allow(repo: Path, text: str) -> None:
    (repo / ".shiftable").mkdir(exist_ok=True)
    (repo / ".shiftable/allow.yaml").write_text(text)


def test_only_what_git_tracks_is_searched_unless_more_is_asked_for(repo: Path) -> None:
    (repo / "new.env").write_text(f"TOKEN={chars(30)}\n")
    (repo / "ignored.env").write_text(f"TOKEN={chars(30)}\n")
    (repo / ".gitignore").write_text("ignored.env\n")
    (repo / "link.py").symlink_to("/etc/passwd")
    assert ["src/a b.py", "tests/ü.py"] == scan(repo)[0]
    assert ["new.env", "src/a b.py", "tests/ü.py"] == scan(repo, untracked=True)[0]


def test_a_tracked_file_that_is_gone_is_no_error(repo: Path) -> None:
    (repo / "src/a b.py").unlink()
    assert ["tests/ü.py"] == scan(repo)[0]


def test_entries_allow_by_path_kind_and_mark_and_the_unused_are_told(repo: Path) -> None:
    leaks, _ = sops.scan(repo, sops.tracked(repo), Allowlist())
    mark = next(leak.mark for leak in leaks if leak.path.startswith("src"))
    allow(
        repo,
        "# reviewed\nallow:\n"
        "    - path: tests/**\n      kind: assigned secret\n      reason: made for tests\n"
        f"    - path: src/a b.py\n      mark: {mark}\n      reason: revoked\n"
        "    - path: docs/**\n      reason: nothing there\n",
    )
    assert ([], ["nothing there"]) == scan(repo)
    (repo / "src/a b.py").write_text(f'x = "AKIA{chars(16, UPPER)}"\n')
    assert (["src/a b.py"], ["revoked", "nothing there"]) == scan(repo)


def test_a_mark_is_of_one_file_and_one_value(repo: Path) -> None:
    line = f'password = "{chars(20)}"'.encode()
    marks = {leak.mark for leak in [*leaks_in(line, "a"), *leaks_in(line, "b"), *leaks_in(line[:-2] + b'x"', "a")]}
    assert 3 == len(marks)
    assert Allowed("a", "r").covers(next(leaks_in(line, "a")))
    assert repo.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("allow:\n  - path: x\n", "entry 1: 'reason' is missing"),
        ("allow:\n  - path: x\n    reason: ' '\n", "entry 1: 'reason' is missing"),
        ("allow:\n  - reason: x\n    pth: y\n", "there is no pth"),
        ("allow:\n  - x\n", "no mapping"),
        ("allow: x\n", "a list"),
        ("- x\n", "not one document"),
    ],
    ids=itertools.count(),
)
def test_a_list_without_reasons_is_refused(repo: Path, text: str, why: str) -> None:
    allow(repo, text)
    with pytest.raises(ConfigError, match=why):
        Allowlist.read(repo)


def test_a_large_file_is_searched_in_time_that_grows_with_it() -> None:
    """Shapes that would make a search go back and forth."""
    for filler in (b"password" * 60_000, b'"' + b"aA1" * 150_000, b"://a:" * 90_000, b"token= " * 60_000):
        assert [] == list(leaks_in(filler, "x"))
