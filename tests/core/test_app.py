"""The file and the application: one line changes the provider, and every mistake is told at once."""

from pathlib import Path
from typing import Any

import pytest

import shiftable
from shiftable import manifest
from shiftable.app import load
from shiftable.errors import ConfigError, NotFound, ProviderError, Unsupported
from shiftable.memory import MemoryProvider
from shiftable.provider import contained

GOOD = """
[project]
name = "shop"
owner = "payments"
[environments.development]
provider = "local"
[environments.production]
provider = "memory"
[environments.production.overrides]
"secrets.app" = "local"
[providers.local]
type = "memory"
[blob.assets]
bucket = "shop-assets"
versioning = true
[blob.logs]
[secrets.app]
prefix = "shop"
env = { STRIPE_KEY = "stripe/key" }
[dns.shop]
zone = "shop.example"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SHIFTABLE_ENV", raising=False)
    path = tmp_path / "shiftable.toml"
    path.write_text(GOOD)
    return path


def test_resources_are_opened_by_their_labels(file: Path) -> None:
    with load(file) as app:
        assert "shop-assets" == app.blob("assets").name
        assert "logs" == app.blob("logs").name
        assert "shop" == app.secrets("app").name
        assert "shop.example" in app.dns("shop").name
        assert ["blob.assets", "blob.logs", "secrets.app", "dns.shop"] == [each.address for each in app.declared()]


def test_the_file_is_found_in_a_folder_above(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = file.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert file == load().config.path
    assert file.parent / ".shiftable" == load().state_dir


def test_no_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no shiftable.toml in .*; `shiftable init` writes one"):
        load(tmp_path / "..")


def test_the_environment_comes_from_the_argument_the_variable_or_is_development(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "development" == load(file).environment
    monkeypatch.setenv("SHIFTABLE_ENV", "production")
    assert "production" == load(file).environment
    assert "development" == load(file, environment="development").environment
    with pytest.raises(ConfigError, match="no environment 'prodction'; did you mean production"):
        load(file, environment="prodction")


def test_an_environment_must_be_named_where_none_is_obvious(file: Path) -> None:
    file.write_text(GOOD.replace("environments.development", "environments.staging"))
    with pytest.raises(ConfigError, match="set SHIFTABLE_ENV to one of .*: staging, production"):
        load(file)


def test_an_override_sends_one_resource_elsewhere(file: Path) -> None:
    app = load(file, environment="production")
    assert {"blob.assets": "memory", "blob.logs": "memory", "secrets.app": "local", "dns.shop": "memory"} == {
        each.address: app.provider_of(each) for each in app.declared()
    }


def test_a_cloud_is_made_once_for_all_its_resources(file: Path) -> None:
    app = load(file)
    app.blob("assets").unwrap(object)
    assert app.cloud("local") is app.cloud("local")
    assert app.cloud("local").blob is app.cloud("local").blob


def test_the_same_code_runs_on_another_provider_by_one_line(file: Path) -> None:
    def application(app: shiftable.App) -> bytes:
        if not app.cloud(app.provider_of(app.declared("blob")[0])).blob.exists("shop-assets"):
            for change in app.diff(app.declared("blob")[0]):
                app.service(app.declared("blob")[0]).apply(change)
        app.blob("assets").put("a", b"1")
        return app.blob("assets").get("a")

    before = application(load(file))
    file.write_text(GOOD.replace('provider = "local"', 'provider = "memory"', 1))
    assert before == application(load(file))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ('provider = "memory"', "[environments.production] provider: there is no [providers.frankfurt]"),
        ('type = "memory"', "[providers.local] type: unknown provider 'frankfurt'"),
    ],
)
def test_labels_and_types_that_do_not_exist_are_named(file: Path, wrong: str, expected: str) -> None:
    file.write_text(GOOD.replace(wrong, wrong.replace("memory", "frankfurt")))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert any(str(problem).startswith(expected) for problem in caught.value.problems)


def test_all_mistakes_of_a_file_are_told_at_once_in_its_order(file: Path) -> None:
    file.write_text("""
[projekt]
[environments.development]
provider = "lokal"
[environments.development.overrides]
"blob.asset" = "local"
[providers.local]
type = "memory"
speed = 3
[blob.assets]
bukket = "x"
[secrets]
app = 5
""")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [
        "[project] name: is missing",
        "projekt: unknown; did you mean project? (line 2)",
        "[environments.development] provider: there is no [providers.lokal]; did you mean local? (line 4)",
        "[environments.development] overrides.blob.asset: no such resource is declared (line 6)",
        "[providers.local] speed: unknown (line 9)",
        "[blob.assets] bukket: unknown; did you mean bucket? (line 11)",
        "[secrets] app: must be a table, [secrets.app] (line 13)",
    ] == [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("text", ["[project", 'a = "\\x"', "\x00"])
def test_what_is_no_toml_is_one_clear_error(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="is not TOML"):
        load(file)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "x = " + "{x = " * 5000 + "1" + "}" * 5000])
def test_what_is_nested_too_deeply_is_one_clear_error(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(file)


def test_an_empty_label_is_refused(file: Path) -> None:
    file.write_text(f'{file.read_text()}\n[blob.""]\nbucket = "shop-empty"\n[providers.""]\ntype = "memory"\n')
    with pytest.raises(ConfigError, match="must not be empty") as caught:
        load(file)
    assert ["[blob.x]", "[providers.x]"] == [str(each).split(", ")[1].split(" (")[0] for each in caught.value.problems]


def test_bytes_that_are_no_text_are_one_clear_error(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(file)


def test_a_provider_that_is_not_installed_is_no_problem_until_it_is_used(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(
        GOOD.replace('provider = "memory"', 'provider = "cloud"')
        + '[providers.cloud]\ntype = "aws"\nregion = "eu-central-1"\n'
    )
    monkeypatch.setattr(
        shiftable.registry if hasattr(shiftable, "registry") else manifest.registry, "names", lambda: ("memory",)
    )
    monkeypatch.setattr(manifest.registry, "_entry_points", lambda: [p for p in _real_points() if p.name == "memory"])
    assert load(file).blob("assets")
    with pytest.raises(ProviderError, match='pip install "shiftable-aws"'):
        load(file, environment="production").blob("assets")


def _real_points() -> Any:
    from importlib.metadata import entry_points

    return entry_points(group="shiftable.providers")


def test_errors_and_handles_say_what_the_file_calls_the_provider(file: Path) -> None:
    with load(file) as app:
        bucket, store, zone = app.blob("assets"), app.secrets("app"), app.dns("shop")
        assert "<Bucket 'shop-assets' on local>" == repr(bucket)
        assert ("memory", "local") == (bucket.provider, bucket.provider.label)
        assert "<Cloud local>" == repr(app.cloud("local"))
        for wrong in (lambda: bucket.get("no"), lambda: store.get("no"), lambda: zone.get("no", "A")):
            with pytest.raises(NotFound, match=r"\(local\): ") as caught:
                wrong()
            assert "memory" == caught.value.provider
    with shiftable.connect("memory") as cloud, pytest.raises(NotFound, match=r"\(memory\): "):
        cloud.blob.bucket("shop").get("no")


def test_an_undeclared_label_is_answered_with_the_near_one(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"declares no \[blob.asets\]; did you mean assets"):
        load(file).blob("asets")


def test_a_policy_is_written_by_the_one_provider_of_the_resources(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def policy(_self: object, declared: Any, purposes: Any) -> dict[str, Any]:
        return {"for": sorted(contained(purposes)), "on": [(service, spec.name) for service, spec in declared]}

    monkeypatch.setattr(MemoryProvider, "policy", policy)
    with load(file, environment="development") as app:
        everything = app.policy("write")
        some = app.policy("read", "apply", declared=app.declared("blob"))
        assert everything == app.policy("write", provider="memory")
    with (
        load(file, environment="production") as app,
        pytest.raises(ConfigError, match="resources at local, memory; name"),
    ):
        app.policy("write")

    assert ["read", "write"] == everything["for"]
    assert [("blob", "shop-assets"), ("blob", "logs"), ("secrets", "shop"), ("dns", "shop.example")] == everything["on"]
    assert {"for": ["apply", "plan", "read"], "on": [("blob", "shop-assets"), ("blob", "logs")]} == some


@pytest.mark.parametrize(
    ("purposes", "expected"),
    [((), "not for nothing"), (("manage",), "for read, write, plan, apply, not for manage")],
)
def test_a_policy_has_a_purpose(file: Path, purposes: tuple[Any, ...], expected: str) -> None:
    with load(file, environment="development") as app, pytest.raises(ConfigError, match=expected):
        app.policy(*purposes)


def test_a_policy_is_about_something_and_not_every_provider_has_them(file: Path) -> None:
    with load(file, environment="development") as app:
        with pytest.raises(ConfigError, match="this is no resource"):
            app.policy("write", declared=())
        with pytest.raises(Unsupported, match="for memory no policy is written"):
            app.policy("write")


def test_a_provider_table_may_be_left_out_for_a_type_without_settings(file: Path) -> None:
    assert "memory" == load(file, environment="production").cloud("memory").name
    with pytest.raises(ConfigError, match=r"has no \[providers.memry\]; did you mean memory"):
        load(file).cloud("memry")


def test_connect_needs_no_file() -> None:
    with shiftable.connect("memory") as cloud:
        assert "memory" == cloud.name
    with pytest.raises(ConfigError, match="unknown setting 'regoin'"):
        shiftable.connect("memory", regoin="eu")
    with pytest.raises(ProviderError, match="unknown provider"):
        shiftable.connect("no-such-cloud")


def test_the_schema_takes_the_good_file_and_refuses_a_literal_credential(file: Path) -> None:
    import tomllib

    import jsonschema

    validator = jsonschema.Draft202012Validator(manifest.json_schema())
    validator.check_schema(manifest.json_schema())
    document = tomllib.loads(GOOD)
    assert [] == list(validator.iter_errors(document))
    document["blob"]["assets"]["bukket"] = "x"
    assert list(validator.iter_errors(document))
