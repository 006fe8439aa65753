"""Encrypted files in a repository: who reads them, what git shows and merges, and what CI refuses."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyrage
import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from shiftable import sops
from shiftable.cli._main import cli
from shiftable.errors import ConfigError, IntegrityError, InvalidArgument, Unauthenticated
from shiftable.masking import Masked
from shiftable.secrets import Secrets, SecretsSpec, SecretStore
from shiftable.secrets.rotator import EXPOSED_LABEL
from shiftable_baremetal.secrets import SopsDriver

CANARY = "canary-77aa"
SHIFTABLE = shutil.which("shiftable", path=str(Path(sys.executable).parent)) or "shiftable"


@attrs.frozen
class Person:
    """Somebody with a key in a file."""

    file: Path
    public: str
    _private: str = attrs.field(repr=False)

    @property
    def identities(self) -> sops.Identities:
        return sops.parse_identities(Masked(self._private))

    def can_read(self, content: bytes) -> bool:
        """Try each wrapped data key with age alone."""
        identity = pyrage.x25519.Identity.from_str(self._private)
        for enc in re.findall(rb"-----BEGIN AGE.*?-----END AGE ENCRYPTED FILE-----", content, re.DOTALL):
            text = b"\n".join(line.strip() for line in enc.replace(b"\\n", b"\n").splitlines())
            try:
                pyrage.decrypt(text, [identity])
            except pyrage.DecryptError:
                continue
            return True
        return False


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the keys and the git settings of who runs them."""
    for name in list(os.environ):
        if name.startswith(("SHIFTABLE_", "SOPS_", "GIT_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return home


@pytest.fixture
def people(tmp_path: Path) -> dict[str, Person]:
    found = {}
    for name in ("ada", "bob", "eve"):
        private, public = sops.generate_identity()
        file = tmp_path / f"{name}.key"
        file.write_text(private.reveal())
        found[name] = Person(file, public, private.reveal())
    return found


@pytest.fixture
def ada(people: dict[str, Person], monkeypatch: pytest.MonkeyPatch) -> Person:
    monkeypatch.setenv("SHIFTABLE_AGE_KEY_FILE", str(people["ada"].file))
    return people["ada"]


@pytest.fixture
def repo(tmp_path: Path, ada: Person) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.email", "ada@example.com")
    git(root, "config", "user.name", "Ada")
    run(root, "recipients", "add", "ada", ada.public, "--path", "secrets/**", "--path", "config/*")
    return root


@pytest.fixture
def shop(repo: Path) -> SecretStore:
    driver = SopsDriver(repo / "secrets")
    driver.create(SecretsSpec(name="shop"))
    return Secrets(driver).store("shop")


def git(root: Path, *arguments: str, fails: bool = False) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert fails == (done.returncode != 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def invoke(root: Path, *arguments: str) -> Result:
    """Run a command in this process; git, and the tests that kill, start it themselves."""
    with contextlib.chdir(root):
        return CliRunner().invoke(cli, ["secrets", *arguments])


def run(root: Path, *arguments: str, code: int = 0) -> str:
    result = invoke(root, *arguments)
    assert code == result.exit_code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "canary" not in result.output
    return result.output


def verified(root: Path, *arguments: str) -> list[tuple[str, str]]:
    result = invoke(root, "verify", "--json", *arguments)
    assert "canary" not in result.output
    said = json.loads(result.stdout)
    assert (result.exit_code == 0) is said["ok"]
    return [(finding["path"], finding["kind"]) for finding in said["findings"]] + [
        (f"{leak['path']}:{leak['line']}", leak["kind"]) for leak in said["leaks"]
    ]


def write(root: Path, name: str, data: dict[str, Any], *people: Person, **options: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    document = sops.Document(data, recipients=tuple(person.public for person in people), **options)
    path.write_bytes(sops.dump(document, format=sops.format_of(path)))
    return path


# who reads


def test_the_store_encrypts_for_the_readers_of_the_rules(shop: SecretStore, repo: Path, ada: Person) -> None:
    shop.put("key", "value")
    assert (ada.public,) == sops.recipients((repo / "secrets/shop/key.yaml").read_bytes())
    assert not (repo / "secrets/.recipients").exists()
    assert [] == verified(repo)


def test_who_is_added_reads_and_only_the_list_of_readers_changes(
    shop: SecretStore, repo: Path, people: dict[str, Person]
) -> None:
    token = shop.put("key", CANARY).token
    env = write(repo, "config/prod.env", {"PASSWORD": CANARY}, people["ada"])
    files = (repo / "secrets/shop/key.yaml", env)
    before = [path.read_bytes() for path in files]
    said = run(repo, "recipients", "add", "bob", people["bob"].public)
    assert "encrypted anew: 2 files" in said
    for path, old in zip(files, before, strict=True):
        new = path.read_bytes()
        assert people["bob"].can_read(new)
        assert people["ada"].can_read(new)
        gone = set(old.splitlines()) - set(new.splitlines())
        assert set() == gone
    assert token == shop.get("key").token
    assert [] == verified(repo)
    assert "as they were: 2" in run(repo, "recipients", "sync")


def test_who_is_removed_reads_no_more_and_what_was_readable_is_marked(
    shop: SecretStore, repo: Path, people: dict[str, Person]
) -> None:
    shop.put("key", CANARY)
    env = write(repo, "config/prod.env", {"PASSWORD": CANARY, "OTHER": "x"}, people["ada"])
    run(repo, "recipients", "add", "bob", people["bob"].public)
    kept = sops.load(env.read_bytes(), people["bob"].identities, format="dotenv")
    told = run(repo, "recipients", "remove", "bob")
    assert "what is in 2 of them; it is marked" in told
    assert 2 == told.count(": -bob\n")
    files = (repo / "secrets/shop/key.yaml", env)
    assert [False, False] == [people["bob"].can_read(path.read_bytes()) for path in files]
    found = shop.get("key")
    assert CANARY == found.reveal()
    assert found.created is not None
    assert datetime.fromisoformat(found.labels[EXPOSED_LABEL]) >= found.created
    document = sops.load(env.read_bytes(), people["ada"].identities, format="dotenv")
    assert kept._key != document._key
    assert {"PASSWORD:", "OTHER:"} == set(document.exposed)
    assert [("config/prod.env", "exposed"), ("secrets/shop/key.yaml", "exposed")] == verified(repo)
    document.data["PASSWORD"] = "another"
    env.write_bytes(sops.dump(document, format="dotenv"))
    assert {"OTHER:"} == set(sops.load(env.read_bytes(), people["ada"].identities, format="dotenv").exposed)
    shop.put("key", "new")
    assert [("config/prod.env", "exposed")] == verified(repo)


def test_the_label_is_the_one_that_rotation_reads() -> None:
    assert EXPOSED_LABEL == sops.EXPOSED_LABEL


def test_a_note_of_exposure_is_encrypted_and_cannot_be_altered(repo: Path, people: dict[str, Person]) -> None:
    path = write(repo, "config/a.json", {"a": CANARY, "b": ["x", "x"]}, people["ada"])
    document = sops.load(path.read_bytes(), people["ada"].identities, format="json")
    document.expose(datetime(2026, 1, 1, tzinfo=UTC))
    tree = json.loads(sops.dump(document, format="json"))
    assert tree["sops"]["shiftable_exposed"].startswith("ENC[")
    again = sops.load(json.dumps(tree).encode(), people["ada"].identities, format="json")
    assert {"a:": "2026-01-01T00:00:00+00:00", "b:": "2026-01-01T00:00:00+00:00"} == again.exposed
    for other in (tree["a"], "x", tree["sops"]["mac"], 5):
        changed = {**tree, "sops": {**tree["sops"], "shiftable_exposed": other}}
        with pytest.raises(IntegrityError):
            sops.load(json.dumps(changed).encode(), people["ada"].identities, format="json")


def test_a_store_that_loses_a_reader_marks_what_it_writes(
    shop: SecretStore, repo: Path, people: dict[str, Person]
) -> None:
    run(repo, "recipients", "add", "bob", people["bob"].public)
    old = shop.put("key", "old")
    policy = sops.Policy.read(repo).without_reader("bob", ())
    (repo / ".shiftable/secrets.yaml").write_bytes(policy.rendered())
    new = shop.put("key", "new", stage="pending")
    mark = datetime.fromisoformat(shop.get("key").labels[EXPOSED_LABEL])
    assert old.created is not None
    assert new.created is not None
    assert old.created <= mark < new.created


def test_a_reader_of_one_rule_reads_those_files_only(repo: Path, people: dict[str, Person]) -> None:
    one = write(repo, "config/one.yaml", {"a": "b"}, people["ada"])
    two = write(repo, "secrets/two.yaml", {"a": "b"}, people["ada"])
    run(repo, "recipients", "add", "bob", str(people["bob"].file.with_suffix(".pub")), "--path", "config/*", code=1)
    people["bob"].file.with_suffix(".pub").write_text(f"# Bob\n{people['bob'].public}\n")
    run(repo, "recipients", "add", "bob", str(people["bob"].file.with_suffix(".pub")), "--path", "config/*")
    assert [True, False] == [people["bob"].can_read(path.read_bytes()) for path in (one, two)]
    assert "nobody could read" in run(repo, "recipients", "remove", "ada", "--path", "secrets/**", code=1)
    run(repo, "recipients", "remove", "ada", "--path", "config/*")
    assert [False, True] == [people["ada"].can_read(path.read_bytes()) for path in (one, two)]
    assert {"ada", "bob"} == set(sops.Policy.read(repo).recipients)


def test_the_rules_keep_their_comments_and_order(repo: Path, people: dict[str, Person]) -> None:
    file = repo / ".shiftable/secrets.yaml"
    file.write_text(
        f"# ours\nrecipients:\n    # head of all\n    ada: {people['ada'].public}\nrules:\n"
        "    # production\n    - path: secrets/prod/**\n      readers: [ada]\n"
        "      encrypted_regex: ^password$\n    - path: secrets/**\n      readers:\n        - ada\n"
    )
    run(repo, "recipients", "add", "bob", people["bob"].public)
    text = file.read_text()
    assert ["# ours", "# head of all", "# production"] == re.findall(r"# .*", text)
    rules = yaml.safe_load(text)["rules"]
    assert [["ada", "bob"]] * 2 == [rule["readers"] for rule in rules]
    assert ["path", "readers", "encrypted_regex"] == list(rules[0])
    listed = json.loads(run(repo, "recipients", "list", "--json"))
    assert people["bob"].public == listed["recipients"]["bob"]


def test_a_reader_whose_name_is_misspelt_is_told(repo: Path, people: dict[str, Person]) -> None:
    run(repo, "recipients", "add", "bob", people["bob"].public)
    assert "the rules name no 'bpb'; did you mean bob?\n" in run(repo, "recipients", "remove", "bpb")
    assert "the rules name" not in run(repo, "recipients", "remove", "bob")
    assert "the rules name no 'bob'" in run(repo, "recipients", "remove", "bob")  # as after a run that was stopped


def test_a_file_in_clear_says_how_it_is_encrypted(repo: Path, people: dict[str, Person]) -> None:
    (repo / "config").mkdir(exist_ok=True)
    (repo / "config/prod.env").write_text("DB=1\n")
    told = run(repo, "recipients", "add", "bob", people["bob"].public, code=1)
    assert "config/prod.env: it is no SOPS file: it has no section 'sops'; `shiftable secrets encrypt` makes" in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rules: []\n", "it has 'recipients'"),
        ("recipients: {a: b}\nrules: []\n", "recipients.a is no public key"),
        ("recipients: {}\nrules:\n  - path: x\n    readers: [bob]\n", "rule 1: bob: no such recipient"),
        ("recipients: {}\nrules:\n  - path: x\n    readers: []\n", "rule 1: 'readers' is a list"),
        ("recipients: {}\nrules:\n  - readers: []\n    pth: x\n", "rule 1: there is no pth"),
        ("recipients: {}\nrules:\n  - path: /x\n    readers: []\n", "rule 1: 'path' is a path"),
        ("recipients: {}\nrules:\n  - path: x\n    encrypted_regex: (\n", "no regular expression"),
        ("recipients: {}\nrules:\n  - path: x\n    encrypted_regex: a\n    unencrypted_regex: b\n", "one of"),
        ("recipients: {}\nrules:\n  - path: x\n    mac_only_encrypted: 1\n", "true or false"),
        ("recipients: {}\nrules:\n  - x\n", "no mapping"),
        ("a: *b\n", "secrets.yaml: line 1"),
    ],
    ids=itertools.count(),
)
def test_rules_that_are_none_are_refused_all_at_once(repo: Path, text: str, why: str) -> None:
    (repo / ".shiftable/secrets.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        sops.Policy.read(repo)
    assert "secrets.yaml" in run(repo, "verify", code=2)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("secrets/**", ["secrets/a", "secrets/a/b.yaml"], ["secrets", "x/secrets/a", "secretsx/a"]),
        ("secrets/", ["secrets/a", "secrets/a/b"], ["secrets"]),
        ("**/*.env", ["a.env", "x/y/a.env"], ["a.envx"]),
        ("a*/b?.yaml", ["a/b1.yaml", "ax/bb.yaml"], ["a/x/b1.yaml", "a/b.yaml"]),
        ("a.b", ["a.b"], ["axb"]),
        ("***", ["a/b"], []),
    ],
)
def test_a_path_of_a_rule_fits_files(pattern: str, yes: list[str], no: list[str]) -> None:
    rule = sops.FileRule(pattern, ())
    assert [True] * len(yes) + [False] * len(no) == [rule.fits(path) for path in (*yes, *no)]


@pytest.mark.parametrize("way", ["link", "dots"])
def test_a_rule_is_found_by_whatever_way_the_store_is_named(repo: Path, ada: Person, way: str) -> None:
    (repo / "secrets").mkdir()
    (repo.parent / "link").symlink_to(repo / "secrets")
    root = {"link": repo.parent / "link", "dots": repo / "secrets/../../repo/secrets"}[way]
    Secrets(SopsDriver(root)).store("shop").put("key", "value")
    assert (ada.public,) == sops.recipients((repo / "secrets/shop/key.yaml").read_bytes())


def test_a_private_key_is_no_reader_and_not_shown(repo: Path, people: dict[str, Person]) -> None:
    private = people["bob"]._private
    said = run(repo, "recipients", "add", "bob", private, code=1)
    assert private[16:] not in said
    assert "bob" not in sops.Policy.read(repo).recipients


def test_git_sees_the_rules_also_where_shiftable_init_was(tmp_path: Path, ada: Person) -> None:
    root = tmp_path / "app"
    (root / ".shiftable").mkdir(parents=True)
    (root / ".shiftable/.gitignore").write_text("*\n")
    git(root, "init", "-q")
    for _ in range(2):
        run(root, "recipients", "add", "ada", ada.public, "--path", "secrets/**")
        (root / ".shiftable/journal.db").write_text("x")
        assert [".shiftable/secrets.yaml"] == git(root, "ls-files", "-o", "--exclude-standard").split()
    assert "*\n!secrets.yaml\n!allow.yaml\n" == (root / ".shiftable/.gitignore").read_text()


def test_an_ssh_key_is_the_same_whatever_is_written_behind_it(
    repo: Path, people: dict[str, Person], tmp_path: Path
) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    bare = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    public = tmp_path / "id.pub"
    public.write_text(f"{bare} bob@laptop\n")
    path = write(repo, "config/a.yaml", {"a": "b"}, people["ada"])
    run(repo, "recipients", "add", "bob", str(public))
    assert (people["ada"].public, f"{bare} bob@laptop") == sops.recipients(path.read_bytes())
    (repo / ".shiftable/secrets.yaml").write_text(
        (repo / ".shiftable/secrets.yaml").read_text().replace("bob@laptop", "bob@work")
    )
    assert [] == verified(repo)
    assert "as they were: 1" in run(repo, "recipients", "sync")
    run(repo, "recipients", "remove", "bob")
    assert (people["ada"].public,) == sops.recipients(path.read_bytes())


def test_a_name_cannot_become_another_key_unseen(repo: Path, people: dict[str, Person]) -> None:
    said = run(repo, "recipients", "add", "ada", people["eve"].public, code=1)
    assert "is the name of another key" in said


def test_the_rules_of_somebody_else_are_refused(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    os.chown(repo / ".shiftable/secrets.yaml", 1234, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        sops.Policy.find(repo)


def test_rules_above_the_working_tree_do_not_count(repo: Path) -> None:
    inner = repo / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    assert sops.Policy.find(inner) is None


def test_without_a_private_key_nothing_changes_and_the_error_says_where_it_looked(
    shop: SecretStore, repo: Path, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("key", CANARY)
    before = (repo / "secrets/shop/key.yaml").read_bytes()
    monkeypatch.delenv("SHIFTABLE_AGE_KEY_FILE")
    said = run(repo, "recipients", "add", "bob", people["bob"].public, code=1)
    assert "there is no key; looked in SHIFTABLE_AGE_KEY, SHIFTABLE_AGE_KEY_FILE" in said
    assert before == (repo / "secrets/shop/key.yaml").read_bytes()


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_their_readers(
    repo: Path, people: dict[str, Person]
) -> None:
    """One is in clear, one is somebody else's, one was tampered with; the last in order is fine."""
    (repo / "config").mkdir()
    (repo / "config/1.env").write_text("A=b\n")
    write(repo, "config/2.yaml", {"a": CANARY}, people["eve"])
    broken = write(repo, "config/3.yaml", {"a": CANARY, "b_unencrypted": "x"}, people["ada"])
    broken.write_bytes(broken.read_bytes().replace(b"b_unencrypted: x", b"b_unencrypted: y"))
    path = write(repo, "config/4.yaml", {"a": CANARY}, people["ada"])
    before = [(repo / f"config/{name}").read_bytes() for name in ("1.env", "2.yaml", "3.yaml")]
    said = run(repo, "recipients", "add", "bob", people["bob"].public, code=1)
    assert "encrypted anew: 1 files, as they were: 0, not touched: 3" in said
    assert "no key opens it" in said
    assert before == [(repo / f"config/{name}").read_bytes() for name in ("1.env", "2.yaml", "3.yaml")]
    assert people["bob"].can_read(path.read_bytes())


def test_a_run_that_is_killed_leaves_each_file_old_or_new_and_the_next_one_finishes(
    repo: Path, people: dict[str, Person]
) -> None:
    """Kill at moments spread over the run; after each, every file opens for Ada and its MAC is right."""
    names = [f"secrets/{number:03}.yaml" for number in range(40)]
    for name in names:
        write(repo, name, {"a": f"{CANARY}-{name}"}, people["ada"])
    moments = random.Random(4)  # noqa: S311  moments, not keys
    command = [SHIFTABLE, "secrets", "recipients"]
    partial = 0
    for number in range(6):
        verb = ("add", "bob", people["bob"].public) if number % 2 == 0 else ("remove", "bob")
        with subprocess.Popen(
            [*command, *verb], cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()  # the first file is done
            time.sleep(moments.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
        states = set()
        for name in names:
            content = (repo / name).read_bytes()
            document = sops.load(content, people["ada"].identities)
            assert f"{CANARY}-{name}" == document.data["a"]
            states.add(people["bob"].can_read(content))
        partial += len(states) == 2
        run(repo, "recipients", *verb)
        assert {number % 2 == 0} == {people["bob"].can_read((repo / name).read_bytes()) for name in names}
        assert {"exposed"} >= {kind for _, kind in verified(repo, "--no-scan")}
        assert not (repo / ".shiftable/.new").exists()
    assert partial > 0


def test_two_writers_lose_nothing(shop: SecretStore, repo: Path, people: dict[str, Person]) -> None:
    """A store that is written while its readers change."""
    for number in range(10):
        shop.put(f"k{number}", "0")
    with subprocess.Popen(
        [SHIFTABLE, "secrets", "recipients", "add", "bob", people["bob"].public], cwd=repo, stdout=subprocess.DEVNULL
    ) as child:
        count = 0
        while child.poll() is None or count < 3:
            count += 1
            for number in range(10):
                shop.put(f"k{number}", str(count))
    assert 0 == child.returncode
    assert {str(count)} == {shop.get(f"k{number}").reveal() for number in range(10)}
    run(repo, "recipients", "sync")
    assert [] == verified(repo, "--no-scan")


# files of one's own


PLAIN = {
    "config/a.yaml": f"# about\nhost: db\npassword: {CANARY}\nlist:\n    - 1\n    - true\n",
    "config/a.json": json.dumps({"host": "db", "password": CANARY, "n": 1.5}, indent="\t") + "\n",
    "config/.env": f"# about\nHOST=db\nPASSWORD={CANARY}\\nsecond\n",
    "config/a.ini": f"[db]\n; about\npassword = {CANARY}\n\n",
    "config/a.pem": f"{CANARY}\n\x00",
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_in_clear_is_encrypted_in_its_place_and_comes_back(repo: Path, ada: Person, name: str) -> None:
    path = repo / name
    path.parent.mkdir()
    path.write_text(PLAIN[name])
    path.chmod(0o600)
    assert [(name, "in-clear")] == verified(repo)
    assert "encrypted" in run(repo, "encrypt", name)
    assert CANARY not in path.read_text()
    assert "about" not in path.read_text()
    assert 0o600 == path.stat().st_mode & 0o777
    assert [] == verified(repo)
    assert PLAIN[name] == invoke(repo, "decrypt", name).output
    before = path.read_bytes()
    assert f"{name}': it is encrypted already" in run(repo, "encrypt", name, code=1)
    assert before == path.read_bytes()


def test_what_no_rule_is_for_is_not_encrypted(repo: Path) -> None:
    (repo / "x.env").write_text("A=b\n")
    assert "no rule in" in run(repo, "encrypt", "x.env", code=2)
    (repo / "config").mkdir()
    (repo / "config/x.yaml").write_text(f"a: {CANARY}\n  b: c\n")
    assert "line 2 is no YAML" in run(repo, "encrypt", "config/x.yaml", code=1)


# whether all is well


def test_what_is_in_clear_or_for_others_is_found_also_without_a_key(
    repo: Path, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "config").mkdir()
    (repo / "config/plain.env").write_text(f"NOTE={CANARY}\n")
    mixed = write(repo, "config/mixed.yaml", {"a": CANARY, "b": {"c": 5}}, people["ada"])
    tree = yaml.safe_load(mixed.read_bytes())
    tree["b"]["c"] = 5
    mixed.write_text(yaml.safe_dump(tree, sort_keys=False).replace("b:", "# note: canary\nb:"))
    write(repo, "config/eve.json", {"a": CANARY}, people["ada"], people["eve"])
    write(repo, "config/less.json", {"a": CANARY}, people["eve"])
    write(repo, "elsewhere/x.yaml", {"a": CANARY}, people["ada"])
    (repo / "config/.gitignore").write_text("x\n")
    (repo / "README.md").write_text("like `a: ENC[AES256_GCM,data:…]` and\nsops:\n    mac: …\n")
    expected = [
        ("config/eve.json", "recipients"),
        ("config/less.json", "recipients"),
        ("config/less.json", "recipients"),
        ("config/mixed.yaml", "in-clear"),
        ("config/mixed.yaml", "in-clear"),
        ("config/plain.env", "in-clear"),
        ("elsewhere/x.yaml", "no-rule"),
    ]
    assert expected == [found for found in verified(repo, "--no-key", "--no-scan") if found[1] != "undecryptable"]
    monkeypatch.delenv("SHIFTABLE_AGE_KEY_FILE")
    assert expected == verified(repo, "--no-scan")
    assert "nothing was decrypted" in run(repo, "verify", "--no-scan", code=1)


def test_a_rule_of_the_file_that_is_not_that_of_the_repository_is_found(repo: Path, people: dict[str, Person]) -> None:
    policy = sops.Policy.read(repo)
    rules = tuple(attrs.evolve(each, rule=sops.Rule("encrypted_regex", "^a$")) for each in policy.rules)
    (repo / ".shiftable/secrets.yaml").write_bytes(attrs.evolve(policy, rules=rules).rendered())
    write(repo, "config/a.yaml", {"a": "b"}, people["ada"], rule=sops.Rule("encrypted_regex", "^a$"))
    write(repo, "config/b.yaml", {"a": "b"}, people["ada"])
    shop = Secrets(SopsDriver(repo / "secrets")).store("shop")
    (repo / "secrets").mkdir()
    shop.put("key", "value")  # whose file has its own rule
    assert [("config/b.yaml", "rule")] == verified(repo)


def _swap_files(repo: Path) -> None:
    one, two = repo / "secrets/shop/a.yaml", repo / "secrets/shop/b.yaml"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(repo: Path) -> None:
        path = repo / "secrets/shop/a.yaml"
        tree = yaml.safe_load(path.read_bytes())
        change(tree)
        path.write_text(yaml.safe_dump(tree, sort_keys=False))

    return edit


def _first_value(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(tree["versions"].values()))
    return found


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "files swapped": _swap_files,
    "a label edited": _edit(lambda tree: tree["labels"].update(team="web")),
    "a version dropped": _edit(lambda tree: tree["versions"].popitem()),
    "versions reordered": _edit(lambda tree: tree.update(versions=dict(reversed(tree["versions"].items())))),
    "a value swapped": _edit(lambda tree: _first_value(tree).update(value=tree["seal"]["value"])),
    "the mac dropped": _edit(lambda tree: tree["sops"].pop("mac")),
    "the mac of before": _edit(lambda tree: tree["sops"].update(lastmodified="2020-01-01T00:00:00Z")),
    "cut short": lambda repo: (repo / "secrets/shop/a.yaml").write_bytes(
        (repo / "secrets/shop/a.yaml").read_bytes()[:-400]
    ),
    "moved": lambda repo: (repo / "secrets/shop/a.yaml").rename(repo / "secrets/shop/c.yaml"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_file_that_was_touched_fails_the_verification(
    shop: SecretStore, repo: Path, tamper: Callable[[Path], object]
) -> None:
    for key in ("a", "b"):
        shop.put(key, f"{CANARY}-old", labels={"team": "core"})
        shop.put(key, f"{CANARY}-new")
    assert [] == verified(repo)
    tamper(repo)
    assert {"tampered", "moved"} >= {kind for _, kind in verified(repo)} > set()
    assert re.search(r", [1-9]\d* problems?, ", run(repo, "verify", code=1))


def test_an_older_file_put_back_is_whole_which_only_signed_commits_show(shop: SecretStore, repo: Path) -> None:
    shop.put("a", "old")
    old = (repo / "secrets/shop/a.yaml").read_bytes()
    shop.put("a", "new")
    (repo / "secrets/shop/a.yaml").write_bytes(old)
    assert [] == verified(repo)


def test_a_deleted_secret_is_verified_where_it_waits(shop: SecretStore, repo: Path) -> None:
    shop.put("a", CANARY)
    shop.delete("a", recovery=timedelta(days=7))
    assert [] == verified(repo)
    (repo / "secrets/.deleted/shop/a.yaml").rename(repo / "secrets/shop/a.yaml")
    assert [("secrets/shop/a.yaml", "moved")] == verified(repo)


def test_a_file_that_git_ignores_is_not_verified_and_one_it_does_not_know_yet_is(
    repo: Path, people: dict[str, Person]
) -> None:
    (repo / ".gitignore").write_text("config/local.env\n")
    (repo / "config").mkdir()
    (repo / "config/local.env").write_text("A=b\n")
    assert [] == verified(repo)
    (repo / "config/new.env").write_text("A=b\n")
    assert [("config/new.env", "in-clear")] == verified(repo)


def test_a_credential_in_clear_fails_the_verification_with_its_line(repo: Path) -> None:
    (repo / "app.py").write_text('import os\n\nKEY = "AK' + 'IAABCDEFGHIJKLMNOP"\n')
    assert [] == verified(repo)
    git(repo, "add", "app.py")
    assert [("app.py:3", "AWS access key")] == verified(repo)
    assert [] == verified(repo, "--no-scan")
    said = run(repo, "scan", code=1)
    assert "app.py:3: AWS access key" in said
    assert "AB" + "CDEFG" not in said


# edited with sops


def _as_sops(path: Path, person: Person, change: Callable[[dict[str, Any]], object]) -> None:
    """Do what `sops edit` does: decrypt, edit, encrypt with the same key; it knows nothing of the seal."""
    document = sops.load(path.read_bytes(), person.identities)
    change(document.data)
    path.write_bytes(sops.dump(document))


def test_a_value_that_was_edited_with_sops_is_read_and_has_another_token(
    shop: SecretStore, repo: Path, ada: Person
) -> None:
    before = shop.put("key", "old").token
    _as_sops(repo / "secrets/shop/key.yaml", ada, lambda tree: _first_value(tree).update(value="edited"))
    found = shop.get("key")
    assert "edited" == found.reveal()
    assert before != found.token
    assert [] == verified(repo)


def test_what_stands_in_clear_is_refused_after_sops_until_somebody_accepts_it(
    shop: SecretStore, repo: Path, ada: Person
) -> None:
    shop.put("key", CANARY, labels={"team": "core"})
    path = repo / "secrets/shop/key.yaml"
    _as_sops(path, ada, lambda tree: tree["labels"].update(team="web"))
    with pytest.raises(IntegrityError, match="what stands in clear was changed"):
        shop.get("key")
    assert "without a terminal, say --yes" in run(repo, "accept", str(path), code=2)
    said = run(repo, "accept", "--yes", str(path))
    assert "team: web" in said
    assert "***" in said
    assert ("web", CANARY) == (shop.get("key").labels["team"], shop.get("key").reveal())
    assert "it is sealed" in run(repo, "accept", str(path))


def test_a_file_whose_mac_is_wrong_cannot_be_accepted(shop: SecretStore, repo: Path) -> None:
    shop.put("key", CANARY, labels={"team": "core"})
    path = repo / "secrets/shop/key.yaml"
    path.write_bytes(path.read_bytes().replace(b"team: core", b"team: web"))
    before = path.read_bytes()
    assert "MAC does not fit" in run(repo, "accept", "--yes", str(path), code=1)
    assert before == path.read_bytes()


# git


@pytest.fixture
def clone(repo: Path) -> Path:
    run(repo, "git-setup")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "start")
    return repo


def commit(root: Path, message: str = "change") -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)


def test_setting_up_git_twice_changes_nothing_and_keeps_what_was_there(repo: Path) -> None:
    (repo / ".gitattributes").write_text("*.png binary\n")
    run(repo, "git-setup")
    first = (repo / ".gitattributes").read_text()
    run(repo, "git-setup")
    assert first == (repo / ".gitattributes").read_text()
    assert first.startswith("*.png binary\n")
    assert "/secrets/** diff=shiftable merge=shiftable\n" in first
    assert 1 == len(git(repo, "config", "--get-all", "merge.shiftable.driver").splitlines())


def test_a_diff_shows_what_changed_and_no_value(shop: SecretStore, clone: Path) -> None:
    shop.put("key", f"{CANARY}-1", labels={"team": "core"})
    commit(clone)
    shop.put("key", f"{CANARY}-2", labels={"team": "web"})
    said = git(clone, "diff")
    changed = [line for line in said.splitlines() if re.match(r"[+-] ", line)]
    assert "-    team: core" in changed
    assert "+    team: web" in changed
    assert any(re.match(r"\+ +value: \"\*\*\* [0-9a-f]{8}\"", line) for line in changed)
    assert any(line.startswith("+current: ") for line in said.splitlines())
    assert "canary" not in said
    assert "ENC[" not in said
    assert "seal" not in said
    assert "    - ada" in run(clone, "textconv", "secrets/shop/key.yaml")


def test_a_value_that_did_not_change_shows_the_same_tag_also_under_another_key(
    clone: Path, people: dict[str, Person]
) -> None:
    write(clone, "config/a.yaml", {"same": CANARY, "other": "x"}, people["ada"])
    run(clone, "recipients", "add", "bob", people["bob"].public)
    commit(clone)
    run(clone, "recipients", "remove", "bob")
    document = sops.load((clone / "config/a.yaml").read_bytes(), people["ada"].identities)
    document.data["other"] = "y"
    (clone / "config/a.yaml").write_bytes(sops.dump(document))
    said = git(clone, "diff", "config/a.yaml")
    assert ["-other", "+other"] == re.findall(r"(?m)^([+-](?:same|other)):", said)
    assert f"-    - {people['bob'].public}" in said


def test_without_a_key_a_diff_still_shows_which_values_changed(
    clone: Path, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(clone, "config/a.yaml", {"same": CANARY, "other": "x"}, people["ada"])
    commit(clone)
    document = sops.load(path.read_bytes(), people["ada"].identities)
    document.data["other"] = "y"
    path.write_bytes(sops.dump(document))
    monkeypatch.delenv("SHIFTABLE_AGE_KEY_FILE")
    said = git(clone, "diff", "config/a.yaml")
    assert ["-other", "+other"] == re.findall(r"(?m)^([+-](?:same|other)):", said)


def test_values_are_shown_when_that_is_asked_for(clone: Path, people: dict[str, Person]) -> None:
    path = write(clone, "config/a.yaml", {"a": "visible"}, people["ada"])
    assert "visible" not in run(clone, "textconv", str(path))
    assert "a: visible" in run(clone, "textconv", "--reveal", str(path))


def test_what_is_no_encrypted_file_is_not_shown(clone: Path) -> None:
    (clone / "config").mkdir(exist_ok=True)
    (clone / "config/a.env").write_text(f"A={CANARY}\n")
    assert "bytes are not shown" in run(clone, "textconv", "config/a.env")


def test_a_diff_is_shown_also_while_the_rules_are_being_merged(clone: Path, people: dict[str, Person]) -> None:
    path = write(clone, "config/a.yaml", {"a": CANARY}, people["ada"])
    (clone / ".shiftable/secrets.yaml").write_text("<<<<<<< ours\n")
    assert 'a: "*** ' in run(clone, "textconv", str(path))


def test_the_key_of_the_tags_stays_in_the_clone_and_is_its_owners(clone: Path, people: dict[str, Person]) -> None:
    path = write(clone, "config/a.yaml", {"a": CANARY}, people["ada"])
    first = run(clone, "textconv", str(path))
    key = clone / ".git/shiftable/tags.key"
    assert (32, 0o600) == (key.stat().st_size, key.stat().st_mode & 0o777)
    assert first == run(clone, "textconv", str(path))
    key.unlink()
    assert first != run(clone, "textconv", str(path))


@pytest.fixture
def branches(clone: Path) -> Callable[[Callable[[], object], Callable[[], object]], None]:
    """Make two commits side by side and go to the first one's branch."""

    def make(ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        commit(clone, "base")
        git(clone, "checkout", "-q", "-b", "theirs")
        theirs()
        commit(clone, "theirs")
        git(clone, "checkout", "-q", "main")
        ours()
        commit(clone, "ours")

    return make


def change(path: Path, person: Person, **values: Any) -> Callable[[], object]:
    def act() -> None:
        style = sops.format_of(path)
        document = sops.load(path.read_bytes(), person.identities, format=style)
        for key, value in values.items():
            if value is None:
                del document.data[key]
            else:
                document.data[key] = value
        path.write_bytes(sops.dump(document, format=style))

    return act


@pytest.mark.parametrize("suffix", ["yaml", "json", "env"])
def test_two_branches_that_change_different_values_merge(
    clone: Path, people: dict[str, Person], branches: Any, suffix: str
) -> None:
    ada = people["ada"]
    path = write(clone, f"config/a.{suffix}", {"a": "1", "b": "2", "c": "3", "d": "4"}, ada)
    branches(change(path, ada, a="ours", c=None), change(path, ada, b="theirs", e="new"))
    git(clone, "merge", "-q", "theirs", "-m", "merge")
    document = sops.load(path.read_bytes(), ada.identities, format=sops.format_of(path))
    assert {"a": "ours", "b": "theirs", "d": "4", "e": "new"} == document.data
    assert "" == git(clone, "status", "--porcelain")
    assert [] == verified(clone)


def test_a_real_conflict_names_the_place_and_no_value(clone: Path, people: dict[str, Person], branches: Any) -> None:
    ada = people["ada"]
    path = write(clone, "config/a.yaml", {"db": {"password": "1"}, "b": "2"}, ada)
    ours, theirs = change(path, ada, db={"password": "canary-o"}), change(path, ada, db={"password": "canary-t"}, b="3")
    branches(ours, theirs)
    said = git(clone, "merge", "theirs", fails=True)
    assert "CONFLICT in config/a.yaml: both sides changed db.password" in said
    assert "canary" not in said
    assert "UU config/a.yaml" in git(clone, "status", "--porcelain")
    assert {"db": {"password": "canary-o"}, "b": "2"} == sops.load(path.read_bytes(), ada.identities).data


def test_a_value_that_is_deleted_here_and_changed_there_is_a_conflict(
    clone: Path, people: dict[str, Person], branches: Any
) -> None:
    ada = people["ada"]
    path = write(clone, "config/a.yaml", {"a": "1", "b": "2"}, ada)
    branches(change(path, ada, a=None), change(path, ada, a="3"))
    assert "both sides changed a\n" in git(clone, "merge", "theirs", fails=True)


def test_two_branches_that_change_one_secret_differently_merge(shop: SecretStore, clone: Path, branches: Any) -> None:
    first = shop.put("key", "first")

    def ours() -> None:
        shop.put("key", "pending", stage="pending")

    def theirs() -> None:
        shop.put("key", "second", labels={"team": "core"})

    branches(ours, theirs)
    git(clone, "merge", "-q", "theirs", "-m", "merge")
    values = {stage: shop.get("key", stage=stage).reveal() for stage in ("current", "previous", "pending")}
    assert {"current": "second", "previous": "first", "pending": "pending"} == values
    assert {"team": "core"} == dict(shop.get("key").labels)
    assert 3 == len(list(shop.history("key")))
    assert first.version in [entry.version for entry in shop.history("key")]
    assert [] == verified(clone)


def test_two_new_current_versions_are_a_conflict(shop: SecretStore, clone: Path, branches: Any) -> None:
    shop.put("key", "first")
    branches(lambda: shop.put("key", "canary-o"), lambda: shop.put("key", "canary-t"))
    said = git(clone, "merge", "theirs", fails=True)
    assert "both sides changed current" in said
    assert "canary" not in said
    assert "canary-o" == shop.get("key").reveal()


def test_a_reader_who_was_removed_on_one_side_stays_removed_and_what_they_saw_is_marked(
    clone: Path, people: dict[str, Person], branches: Any
) -> None:
    ada, bob, eve = people["ada"], people["bob"], people["eve"]
    path = write(clone, "config/a.yaml", {"a": "1", "b": "2"}, ada)
    run(clone, "recipients", "add", "bob", bob.public)

    def ours() -> None:
        document = sops.load(path.read_bytes(), ada.identities)
        path.write_bytes(sops.dump(document.for_recipients((ada.public,))))

    def theirs() -> None:
        document = sops.load(path.read_bytes(), ada.identities)
        document.data["b"] = "seen by bob"
        path.write_bytes(sops.dump(document.for_recipients((ada.public, bob.public, eve.public))))

    branches(ours, theirs)
    git(clone, "merge", "-q", "theirs", "-m", "merge")
    content = path.read_bytes()
    assert [True, False, True] == [person.can_read(content) for person in (ada, bob, eve)]
    document = sops.load(content, ada.identities)
    assert {"a": "1", "b": "seen by bob"} == document.data
    assert {"a:", "b:"} == set(document.exposed)


def test_both_sides_may_add_a_file_of_the_same_name(clone: Path, people: dict[str, Person], branches: Any) -> None:
    ada = people["ada"]
    branches(
        lambda: write(clone, "config/a.yaml", {"a": "1", "same": "x"}, ada),
        lambda: write(clone, "config/a.yaml", {"b": "2", "same": "x"}, ada),
    )
    git(clone, "merge", "-q", "theirs", "-m", "merge")
    found = sops.load((clone / "config/a.yaml").read_bytes(), ada.identities).data
    assert {"a": "1", "b": "2", "same": "x"} == found


def test_a_tampered_side_is_not_merged(clone: Path, people: dict[str, Person], branches: Any) -> None:
    ada = people["ada"]
    path = write(clone, "config/a.yaml", {"a": "1", "b_unencrypted": "2"}, ada)

    def theirs() -> None:
        path.write_bytes(path.read_bytes().replace(b'b_unencrypted: "2"', b'b_unencrypted: "3"'))

    branches(change(path, ada, a="ours"), theirs)
    said = git(clone, "merge", "theirs", fails=True)
    assert "MAC does not fit" in said
    assert "ours" == sops.load(path.read_bytes(), ada.identities).data["a"]


def test_comments_merge_too(people: dict[str, Person]) -> None:
    ada = people["ada"]
    kept, gone, added = (sops.Comment(f" {name}", (), "a") for name in ("kept", "gone", "added"))

    def dumped(*comments: sops.Comment) -> bytes:
        return sops.dump(sops.Document({"a": "1"}, recipients=(ada.public,), comments=comments))

    result = sops.merged(dumped(kept, gone), dumped(kept), dumped(kept, gone, added), ada.identities, format="yaml")
    assert result.content is not None
    assert [" kept", " added"] == [each.text for each in sops.load(result.content, ada.identities).comments]


def test_nobody_merges_what_they_cannot_read(people: dict[str, Person]) -> None:
    content = sops.dump(sops.Document({"a": "1"}, recipients=(people["ada"].public,)))
    with pytest.raises(Unauthenticated):
        sops.merged(content, content, content, people["eve"].identities, format="yaml")


def test_no_value_is_left_in_any_file_of_the_clone(shop: SecretStore, clone: Path, people: dict[str, Person]) -> None:
    shop.put("key", f"{CANARY}-1")
    write(clone, "config/a.yaml", {"a": f"{CANARY}-2"}, people["ada"])
    run(clone, "recipients", "add", "bob", people["bob"].public)
    run(clone, "recipients", "remove", "bob")
    commit(clone)
    git(clone, "log", "-p", "--all")
    for path in clone.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes()


def test_a_rule_for_nobody_known_is_refused(repo: Path) -> None:
    with pytest.raises(InvalidArgument, match="no rule for nowhere"):
        sops.Policy.read(repo).without_reader("ada", ("nowhere",))
