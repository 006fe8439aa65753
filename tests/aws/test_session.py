"""The provider's settings and its session: where credentials come from, and how its clients are made."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

import shiftable
from shiftable.config import Credential
from shiftable.errors import ConfigError
from shiftable_aws import AwsProvider, AwsSettings, __version__
from shiftable_aws._session import Session
from shiftable_aws.double import AwsDouble
from shiftable_s3.models import _loader

ROLE = "arn:aws:iam::123456789012:role/deploy"


@pytest.fixture
def session(aws_double: AwsDouble) -> Callable[..., Session]:
    return lambda **more: Session(AwsSettings(**{**aws_double.config, **more}))


def test_connect_reaches_the_double(aws_double: AwsDouble) -> None:
    with shiftable.connect("aws", **aws_double.config) as cloud:
        cloud.secrets.store("shop").put("key", "value")
        assert cloud.secrets.store("shop").get("key").reveal() == "value"
        assert cloud.unwrap(AwsProvider).session.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_a_role_is_assumed_with_the_credentials_found(aws_double: AwsDouble, session: Callable[..., Session]) -> None:
    found = session(role_arn=ROLE, external_id="42")

    arn = found.client("sts").get_caller_identity()["Arn"]
    found.client("secretsmanager").list_secrets()
    found.client("s3").list_buckets()
    found.close()

    assert arn == "arn:aws:sts::123456789012:assumed-role/deploy/shiftable"
    roles = aws_double.backend("sts", "aws").assumed_roles
    assert [(role.role_arn, role.external_id) for role in roles] == [(ROLE, "42")]


def test_without_settings_everything_comes_from_the_environment(
    aws_double: AwsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws_double.environ.items():
        monkeypatch.setenv(name, value)
    found = Session(AwsSettings())
    assert found.client("secretsmanager").list_secrets()["SecretList"] == []
    found.close()


def test_a_profile_is_read(aws_double: AwsDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = aws_double.config
    (tmp_path / "config").write_text(
        f"[profile work]\nregion = {aws_double.region}\nendpoint_url = {aws_double.url}\n"
        f"aws_access_key_id = {config['access_key'].reveal()}\n"
        f"aws_secret_access_key = {config['secret_key'].reveal()}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = Session(AwsSettings(profile="work"))
    assert found.client("secretsmanager").list_secrets()["SecretList"] == []
    found.close()


def test_an_unknown_profile_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="nobody"):
        Session(AwsSettings(profile="nobody", region="eu-central-1")).client("s3")


def test_a_missing_region_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="region"):
        Session(AwsSettings()).client("secretsmanager")


@pytest.mark.parametrize(
    "settings",
    [
        {"access_key": Credential.literal("a")},
        {"secret_key": Credential.literal("a")},
        {"session_token": Credential.literal("a")},
        {"external_id": "a"},
        {"max_attempts": 0},
    ],
)
def test_settings_that_are_half_there_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="go together|goes with|max_attempts"):
        AwsSettings(**settings)


def test_no_credential_shows_anywhere(aws_double: AwsDouble, caplog: pytest.LogCaptureFixture) -> None:
    config = {**aws_double.config, "session_token": Credential.literal("CANARY-token")}
    provider = AwsProvider(AwsSettings(**{**config, "secret_key": Credential.literal("CANARY-secret")}))
    with caplog.at_level(logging.DEBUG):
        provider.session.client("s3")

    shown = [repr(provider), repr(provider.settings), repr(provider.session), str(provider.settings)]
    shown += [record.getMessage() for record in caplog.records]
    assert not [text for text in shown if "CANARY" in text]


def test_clients_are_made_once_also_by_many_threads(session: Callable[..., Session]) -> None:
    found, made = session(), []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        made.append(found.client("secretsmanager"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len(set(map(id, made))) == 1


def test_clients_are_configured_as_documented(session: Callable[..., Session]) -> None:
    for service in ("s3", "secretsmanager"):
        client: Any = session(max_attempts=3).client(service)
        config = client.meta.config
        assert config.retries == {"mode": "standard", "total_max_attempts": 3}
        assert config.max_pool_connections == 64
        assert config.tcp_keepalive
        assert f"shiftable/{__version__}" in config.user_agent
        assert config.signature_version == {"s3": "s3v4"}.get(service, "v4")


def test_times_are_read_quickly_and_right_and_only_here(aws_double: AwsDouble, session: Callable[..., Session]) -> None:
    found, before = session(), datetime.now(UTC)
    buckets, secrets = found.client("s3"), found.client("secretsmanager")
    buckets.create_bucket(Bucket="shop", CreateBucketConfiguration={"LocationConstraint": aws_double.region})  # type: ignore[typeddict-item]
    buckets.put_object(Bucket="shop", Key="a", Body=b"x")
    secrets.create_secret(Name="key", SecretString="value")
    times = [
        buckets.head_object(Bucket="shop", Key="a")["LastModified"],
        buckets.list_objects_v2(Bucket="shop")["Contents"][0]["LastModified"],
        secrets.describe_secret(SecretId="key")["LastChangedDate"],
    ]
    found.close()

    assert [abs((time - before).total_seconds()) < 60 for time in times] == [True] * 3
    inner: Any = boto3.Session()
    assert inner._session.get_component("response_parser_factory")._defaults == {}


def test_the_provider_is_loaded_without_an_sdk() -> None:
    code = "import sys, shiftable.registry as r; r.load('aws'); print({'boto3', 'botocore'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "set()"


def test_telling_features_imports_no_boto3() -> None:
    code = "import sys, shiftable.registry as r; r.load('aws').features(); print({'boto3'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


def test_features_are_known_before_a_driver_is_made() -> None:
    features = AwsProvider.features()
    assert sorted(features) == ["blob", "compute", "database", "dns", "secrets"]
    provider = AwsProvider(AwsSettings(region="eu-central-1"))
    assert features == {service: (getattr(provider, service)().features,) for service in features}


def test_keys_that_are_secrets_of_the_same_account_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "shiftable.toml").write_text(
        '[project]\nname = "x"\n[environments.d]\nprovider = "a"\n[secrets.app]\n'
        '[providers.a]\ntype = "aws"\nregion = "eu-central-1"\n'
        'access_key = { secret = "app/id" }\nsecret_key = { secret = "app/key" }\n'
    )
    said: list[str] = []

    def use() -> None:
        with pytest.raises(ConfigError) as caught:
            shiftable.load(tmp_path).secrets("app").get("x")
        said.append(str(caught.value))

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(60)
    assert ["the credential { secret = 'app/id' } needs itself to be read"] == said


def test_models_of_services_are_read_once_for_all_providers(
    session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Unless they are to be looked for elsewhere."""

    def model() -> Any:
        client: Any = session().client("sts")
        return client.meta.service_model._service_description

    one, other = model(), model()
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    elsewhere = model()

    assert one is other
    assert elsewhere is not one
    assert elsewhere == one


@pytest.mark.parametrize("kind", ["service-2", "endpoint-rule-set-1"])
def test_every_service_that_botocore_knows_is_found(kind: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "2026-01-01").mkdir(parents=True)
    (tmp_path / "own" / "2026-01-01" / f"{kind}.json").write_text('{"is": "ours"}')
    (tmp_path / "note").touch()
    loader = _loader(f"{tmp_path}{os.pathsep}{tmp_path / 'nowhere'}")

    assert {"own", *Loader().list_available_services(kind)} <= set(loader.list_available_services(kind))
    assert {"is": "ours"} == loader.load_service_model("own", kind)
    for service in ("sts", "sso-oidc"):
        assert Loader().load_service_model(service, kind) == loader.load_service_model(service, kind)
    with pytest.raises(UnknownServiceError):
        loader.load_service_model("owned", kind)
