"""The double of Vault keeps the engine's rules, as hvac sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import hvac
import pytest
from hvac import exceptions

from shiftable.app import App
from shiftable.testing.harness import Double
from shiftable_baremetal.double_vault import Login, Rule, VaultDouble


@pytest.fixture
def double(shiftable_double: Callable[[str], Double]) -> VaultDouble:
    return cast("VaultDouble", shiftable_double("vault"))


@pytest.fixture
def client(double: VaultDouble) -> Iterator[Any]:
    made: Any = hvac.Client(url=double.url, token=double.token)
    yield made
    made.adapter.close()


def read(client: Any, path: str, version: int | None = None) -> Any:
    return client.secrets.kv.v2.read_secret_version(path, version, raise_on_deleted_version=True)["data"]


def test_health_tells_sealed_and_standby_by_its_status(client: Any, double: VaultDouble) -> None:
    assert client.sys.read_health_status(method="GET")["initialized"]
    double.standby = True
    assert 429 == client.sys.read_health_status(method="GET").status_code
    double.sealed = True
    assert 503 == client.sys.read_health_status(method="GET").status_code
    with pytest.raises(exceptions.VaultDown, match="sealed"):
        read(client, "a")


def test_check_and_set_is_the_number_of_the_newest(client: Any) -> None:
    kv = client.secrets.kv.v2
    for cas in (0, 1):
        assert cas + 1 == kv.create_or_update_secret("a", {"n": cas}, cas)["data"]["version"]
    for cas in (0, 1, 3):
        with pytest.raises(exceptions.InvalidRequest, match="did not match the current version"):
            kv.create_or_update_secret("a", {"n": 9}, cas)
    kv.update_metadata("a", cas_required=True)
    with pytest.raises(exceptions.InvalidRequest, match="check-and-set parameter required"):
        kv.create_or_update_secret("a", {"n": 9})
    assert {"n": 1} == read(client, "a")["data"]


def test_the_oldest_numbers_go_beyond_what_is_kept(client: Any, double: VaultDouble) -> None:
    kv = client.secrets.kv.v2
    for number in range(12):
        kv.create_or_update_secret("a", {"n": number})
    kept = kv.read_secret_metadata("a")["data"]
    assert (12, 3) == (kept["current_version"], kept["oldest_version"])
    assert {str(number) for number in range(3, 13)} == set(kept["versions"])
    kv.update_metadata("a", max_versions=20)
    for number in range(12, 24):
        kv.create_or_update_secret("a", {"n": number})
    assert 20 == len(kv.read_secret_metadata("a")["data"]["versions"])


def test_deleted_is_undone_and_destroyed_is_not(client: Any) -> None:
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("a", {"n": 1})
    kv.create_or_update_secret("a", {"n": 2})
    kv.delete_latest_version_of_secret("a")
    with pytest.raises(exceptions.InvalidPath) as caught:
        read(client, "a")
    told = caught.value.json["data"]
    assert (None, 2, False) == (told["data"], told["metadata"]["version"], told["metadata"]["destroyed"])
    kv.undelete_secret_versions("a", [2])
    assert {"n": 2} == read(client, "a")["data"]
    kv.destroy_secret_versions("a", [2])
    kv.undelete_secret_versions("a", [2])
    with pytest.raises(exceptions.InvalidPath):
        read(client, "a")
    assert {"n": 1} == read(client, "a", 1)["data"]
    kv.delete_metadata_and_all_versions("a")
    with pytest.raises(exceptions.InvalidPath):
        kv.read_secret_metadata("a")
    assert 1 == kv.create_or_update_secret("a", {"n": 1}, 0)["data"]["version"]


@pytest.mark.parametrize(
    "custom",
    [{str(number): "x" for number in range(65)}, {"": "x"}, {"k" * 129: "x"}, {"k": ""}, {"k": "x" * 513}, {"k": "\n"}],
    ids=["many", "no name", "long name", "empty", "long", "unprintable"],
)
def test_custom_metadata_have_limits(client: Any, custom: dict[str, str]) -> None:
    with pytest.raises(exceptions.InvalidRequest, match="custom_metadata validation failed"):
        client.secrets.kv.v2.update_metadata("a", custom_metadata=custom)


def test_a_patch_is_a_merge_patch_of_what_exists(client: Any, double: VaultDouble) -> None:
    kv, merge = client.secrets.kv.v2, {"Content-Type": "application/merge-patch+json"}
    url, body = "/v1/secret/metadata/a", {"custom_metadata": {"a": "1", "b": None}}
    with pytest.raises(exceptions.InvalidPath):
        client.adapter.request("patch", url, headers=dict(merge), json=body)
    kv.create_or_update_secret("a", {"n": 1})
    kv.update_metadata("a", custom_metadata={"b": "2", "c": "3"})
    with pytest.raises(exceptions.UnexpectedError):
        client.adapter.request("patch", url, json=body)
    client.adapter.request("patch", url, headers=dict(merge), json=body)
    assert {"a": "1", "c": "3"} == double.custom("a") == read(client, "a")["metadata"]["custom_metadata"]


def test_folders_end_with_a_slash_and_what_is_empty_is_missing(client: Any) -> None:
    kv = client.secrets.kv.v2
    for path in ("a", "a/b", "a/c/d", "ü"):
        kv.create_or_update_secret(path, {"n": 1})
    assert ["a", "a/", "ü"] == kv.list_secrets("")["data"]["keys"]
    assert ["b", "c/"] == kv.list_secrets("a")["data"]["keys"]
    with pytest.raises(exceptions.InvalidPath):
        kv.list_secrets("x")


def test_the_longest_rule_of_a_policy_decides(double: VaultDouble) -> None:
    token = double.make_token(Rule("secret/data/*", {"read", "create"}), Rule("secret/data/+/b*", set()))
    client: Any = hvac.Client(url=double.url, token=token)
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("x/a", {"n": 1})
    with pytest.raises(exceptions.Forbidden, match="permission denied"):
        kv.create_or_update_secret("x/a", {"n": 2})  # which is update, and not create
    with pytest.raises(exceptions.Forbidden, match="permission denied"):
        kv.create_or_update_secret("x/bc", {"n": 1})
    client.adapter.close()


def test_tokens_end_unless_they_are_renewed(double: VaultDouble, client: Any) -> None:
    double.allow_approle("role", "secret", Login(ttl=6_000, greatest_ttl=9_000))
    assert 6_000 == client.auth.approle.login("role", "secret")["auth"]["lease_duration"]
    double.clock.advance(timedelta(seconds=5_000))
    assert 0 < client.auth.token.lookup_self()["data"]["ttl"] <= 1_000
    assert 1_000 < client.auth.token.renew_self()["auth"]["lease_duration"] <= 4_000
    double.clock.advance(timedelta(seconds=4_000))
    with pytest.raises(exceptions.Forbidden, match="invalid token"):
        client.auth.token.lookup_self()


def test_what_the_engine_does_not_know_is_a_violation(client: Any, double: VaultDouble) -> None:
    client.adapter.post("/v1/secret/data/a", json={"data": {}, "option": {"cas": 1}})
    client.adapter.get("/v1/secret/data/a", params={"versions": 1})
    assert ["unknown fields in the body: option", "unknown parameters: versions"] == [
        finding.partition(": ")[2] for finding in double.violations
    ]
    double.violations.clear()


def test_a_value_that_is_too_large_for_an_entry_is_refused(client: Any) -> None:
    with pytest.raises(exceptions.InternalServerError, match="too large"):
        client.secrets.kv.v2.create_or_update_secret("a", {"value": "x" * 1_100_000})


def test_the_rest_of_an_application_stays_in_the_folder_of_the_test(
    shiftable_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "shiftable.toml").write_text(
        '[project]\nname = "shop"\n[environments.development]\nprovider = "local"\n'
        '[providers.local]\ntype = "baremetal"\n[blob.uploads]\n[secrets.app]\n'
    )
    monkeypatch.chdir(project)
    app = shiftable_app("vault")
    app.blob("uploads").put("a", b"1")
    app.secrets("app").put("key", "value")
    assert ["shiftable.toml"] == [found.name for found in project.iterdir()]
    assert app.state_dir.is_relative_to(tmp_path)
    assert list(app.state_dir.glob("data/blob/uploads"))
