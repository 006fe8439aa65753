"""``[secrets.x.rotate]`` in the file: typed, all problems at once, references only, further kinds by entry point."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from shiftable import manifest
from shiftable.app import App
from shiftable.errors import ConfigError
from shiftable.manifest import json_schema, parse
from shiftable.rotation import PostgresqlAlternating, RandomToken, rotations
from shiftable.secrets import rotator as module
from shiftable.secrets.rotator import Absent, Rotator

HEAD = """
[project]
name = "shop"
[environments.production]
provider = "memory"
[secrets.ops]
"""


REFER = (
    'a credential does not stand in the file; refer to it: { env = "NAME" }, { file = "path" } or '
    '{ secret = "label/key" } (line 14)'
)


def read(text: str) -> App:
    return App(parse(HEAD + text, Path("/nowhere/shiftable.toml")), "production")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def test_each_key_becomes_a_rotator_of_its_kind() -> None:
    app = read("""
[secrets.app.rotate]
token = { kind = "random", every = "30d", grace = "2h", length = 50 }
[secrets.app.rotate."db/login"]
kind = "postgresql-alternating"
every = "4w"
users = ["shop_a", "shop_b"]
role = "shop"
admin = { secret = "ops/db/admin" }
""")
    found = app.spec(app.declared("secrets")[1]).rotate  # type: ignore[attr-defined]  # a SecretsSpec
    assert RandomToken(every=timedelta(days=30), grace=timedelta(hours=2), length=50) == found["token"]
    login = found["db/login"]
    assert isinstance(login, PostgresqlAlternating)
    assert ("shop_a", "shop_b") == login.users
    app.secrets("ops").put("db/admin", "an administrator's")
    assert "an administrator's" == login.admin.reveal()


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    assert [
        "[secrets.app] rotate.a: unknown kind 'randm'; did you mean random? (line 8)",
        '[secrets.app] rotate.b.every: must be a duration such as "90s", "15m", "12h", "30d" or "4w" (line 9)',
        "[secrets.app] rotate.b.lenght: unknown; did you mean length? (line 9)",
        "[secrets.app] rotate.c: must be a table, not text (line 10)",
        "[secrets.app] rotate.d/e: length 3 makes 18 bits, which can be guessed; 64 are needed (line 11)",
        "[secrets.app] rotate.f.admin: " + REFER,
        "[secrets.app] rotate.f.users: is missing (line 12)",
    ] == sorted(
        problems("""[secrets.app.rotate]
a = { kind = "randm" }
b = { kind = "random", every = 30, lenght = 4 }
c = "random"
"d/e" = { kind = "random", length = 3 }
[secrets.app.rotate.f]
kind = "postgresql-alternating"
admin = "canary"
role = "x"
""")
    )


def test_a_table_without_a_kind_is_told_which_there_are() -> None:
    (found,) = problems('[secrets.app.rotate]\na = { every = "3d" }\n')
    assert found.startswith("[secrets.app] rotate.a: kind must be text that says which; there is: age-key, ")


def test_no_problem_shows_a_credential_that_stands_in_the_file() -> None:
    found = problems('[secrets.app.rotate]\na = { kind = "mysql-user", admin = "canary-1", admin_user = 3 }\n')
    assert "canary" not in "".join(found)


def test_rotations_are_found_by_label_and_key() -> None:
    app = read('[secrets.app.rotate]\na = { kind = "random" }\n"b/c" = { kind = "ssh-key" }\n')
    assert [("app", "a", "random"), ("app", "b/c", "ssh-key")] == [(o, r.key, r.kind) for o, r in rotations(app)]
    assert [("app", "b/c")] == [(owner, rotation.key) for owner, rotation in rotations(app, "app", "b/c")]
    assert () == rotations(app, "ops")
    with pytest.raises(ConfigError, match=r"\[secrets.app.rotate\] says nothing of 'b/d'; did you mean b/c?"):
        rotations(app, "app", "b/d")
    with pytest.raises(ConfigError, match=r"declares no \[secrets.ap\]; did you mean app?"):
        rotations(app, "ap")


def test_the_schema_for_editors_knows_the_kinds() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document: dict[str, Any] = {"project": {"name": "shop"}, "environments": {"x": {"provider": "memory"}}}

    def is_valid(**rotate: Any) -> bool:
        whole = document | {"secrets": {"app": {"rotate": rotate}}}
        return jsonschema.Draft202012Validator(schema).is_valid(whole)

    assert is_valid(a={"kind": "random", "every": "30d", "format": "hex"})
    assert is_valid(a={"kind": "age-key", "public": "b"})
    assert not is_valid(a={"kind": "random", "format": "octal"})
    assert not is_valid(a={"kind": "random", "users": []})
    assert not is_valid(a={"kind": "nothing"})
    assert not is_valid(a={"every": "30d"})
    assert not is_valid(a={"kind": "mysql-user", "admin": "literal"})


# kinds of others


def point(name: str, value: str, distribution: str = "some-dist") -> EntryPoint:
    made = EntryPoint(name, value, module.GROUP)
    vars(made)["dist"] = SimpleNamespace(name=distribution, version="1.0")
    return made


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found = [point("random", "shiftable.rotation:RandomToken", "shiftable")]
    monkeypatch.setattr(module, "entry_points", lambda group: [each for each in found if each.group == group])
    return found


def reason(kind: str) -> str:
    found = Rotator.variant(kind)
    assert isinstance(found, Absent)
    return found.reason


def test_another_distributions_kind_is_found(points: list[EntryPoint]) -> None:
    points.append(point("ssh-key", "shiftable.rotation:SshKey"))
    assert {"random", "ssh-key"} <= set(Rotator.variants())


def test_a_kind_of_this_project_that_is_not_installed_says_how_to_install_it_when_it_is_used(
    points: list[EntryPoint],
) -> None:
    app = read('[secrets.app.rotate]\na = { kind = "aws-iam-access-key", user = "shop" }\n')
    ((_, rotation),) = rotations(app)
    with pytest.raises(ConfigError, match='run: pip install "shiftable-aws"'):
        rotation.status()
    assert manifest.json_schema()["properties"]["secrets"]


def test_a_broken_kind_shows_its_reason_and_hides_no_other(points: list[EntryPoint]) -> None:
    points.append(point("broken", "shiftable_no_such_module:Rotator"))
    points.append(point("wrong", "shiftable.rotation:SshKey"))
    points.append(point("none", "shiftable.rotation:rotations"))
    assert "'broken' of some-dist 1.0 (shiftable_no_such_module:Rotator) cannot be imported: Module" in reason("broken")
    assert "is no Rotator of that kind" in reason("wrong")
    assert "is no Rotator of that kind" in reason("none")
    assert RandomToken is Rotator.variant("random")
    assert Rotator.variants()["broken"] is None


def test_a_kind_that_two_distributions_claim_is_nobodys(points: list[EntryPoint]) -> None:
    points.append(point("random", "elsewhere:Random", "other-dist"))
    assert "two distributions claim the rotator 'random': shiftable 1.0" in reason("random")
    assert "other-dist 1.0" in reason("random")


def test_reading_a_file_with_all_kinds_loads_no_driver_of_any_of_them() -> None:
    code = "from shiftable.secrets.rotator import Rotator; Rotator.variants(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"boto3", "botocore", "cryptography", "psycopg", "pymysql", "pyrage"}
    assert set() == heavy & {name.partition(".")[0] for name in done.stdout.split()}
