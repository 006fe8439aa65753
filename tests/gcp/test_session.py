"""The provider's settings and its session: where credentials come from, and how the connections are made."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError

import shiftable
from shiftable.blob import BucketSpec
from shiftable.config import Credential
from shiftable.errors import ConfigError, Unauthenticated, Unsupported
from shiftable_gcp import GcpProvider, GcpSettings, __version__
from shiftable_gcp._session import ServerClock, Session
from shiftable_gcp._signing import signing
from shiftable_gcp.blob import GcsDriver
from shiftable_gcp.double import GcpDouble


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no credentials: how they are looked for is Google's, and would leave this machine."""

    def default(**_: object) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.setattr(google.auth, "default", default)


def test_connect_reaches_the_double(gcp_double: GcpDouble) -> None:
    with shiftable.connect("gcp", **gcp_double.config) as cloud:
        cloud.blob.create(BucketSpec(name="shop")).put("key", b"value")
        assert cloud.blob.bucket("shop").get("key") == b"value"
        assert [bucket.name for bucket in cloud.unwrap(GcpProvider).session.client.list_buckets()] == ["shop"]


def test_an_endpoint_alone_needs_no_credentials_and_looks_for_none(
    gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google.auth, "default", lambda **_: pytest.fail("looked for credentials"))
    with shiftable.connect("gcp", project="p", endpoint=gcp_double.url) as cloud:
        bucket = cloud.blob.create(BucketSpec(name="shop"))
        bucket.put("key", b"value")
        with pytest.raises(Unsupported, match="sign_as"):
            bucket.sign("key")
    assert "/token" not in [call.path for call in gcp_double.calls]


def test_application_default_credentials_are_a_file_that_a_variable_names(
    gcp_double: GcpDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = json.loads(gcp_double.config["service_account"].reveal())
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    session = Session(GcpSettings())
    assert session.require_project() == gcp_double.project
    assert session.transport.credentials.service_account_email == key["client_email"]
    assert signing(session) is not None
    session.close()


def test_without_any_credentials_an_operation_is_unauthenticated(nowhere: None) -> None:
    with shiftable.connect("gcp", project="p") as cloud, pytest.raises(Unauthenticated) as caught:
        cloud.blob.bucket("shop").get("key")
    assert isinstance(caught.value.__cause__, DefaultCredentialsError)


def test_a_project_is_needed_for_buckets_only(gcp_double: GcpDouble) -> None:
    gcp_double.state.make_bucket("shop", "p", "US", {})
    with shiftable.connect("gcp", endpoint=gcp_double.url) as cloud:
        cloud.blob.bucket("shop").put("key", b"x")
        for use in (lambda: list(cloud.blob.list()), lambda: cloud.blob.create(BucketSpec(name="other"))):
            with pytest.raises(ConfigError, match="project"):
                use()


@pytest.mark.parametrize(
    "key", ["CANARY", '{"type": "CANARY"}', "[]", '{"type": "service_account", "private_key": "CANARY"}']
)
def test_a_key_that_is_none_is_a_configuration_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ConfigError, match="service account") as caught:
        _ = Session(GcpSettings(service_account=Credential.literal(key))).client
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_no_credential_shows_anywhere(gcp_double: GcpDouble, caplog: pytest.LogCaptureFixture) -> None:
    secret = json.loads(gcp_double.config["service_account"].reveal())["private_key"].splitlines()[3]
    provider = GcpProvider(GcpSettings(**gcp_double.config))
    with caplog.at_level(logging.DEBUG):
        provider.blob().names(None, None)
    tokens = gcp_double._account._tokens
    shown = [repr(provider), repr(provider.settings), repr(provider.session), str(provider.settings)]
    shown += [repr(provider.blob()), repr(gcp_double.config), repr(gcp_double.calls)]
    shown += [record.getMessage() for record in caplog.records]
    assert tokens
    assert not [text for text in shown for hidden in (secret, *tokens) if hidden in text]
    provider.close()


def test_the_client_is_made_once_also_by_many_threads(gcp_double: GcpDouble) -> None:
    session, made = Session(GcpSettings(**gcp_double.config)), []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        made.append((session.client, session.transport))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(id(client), id(transport)) for client, transport in made}) == 1
    session.close()


def test_a_session_that_was_closed_opens_again(gcp_double: GcpDouble) -> None:
    driver = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    driver.names(None, None)
    driver.close()
    driver.close()
    assert driver.names(None, None).items == ()
    driver.close()


def test_requests_say_who_sends_them(gcp_double: GcpDouble) -> None:
    seen: list[str] = []
    gcp_double.validators.append(lambda request, _: seen.append(request.headers.get("User-Agent", "")) or [])
    try:
        with shiftable.connect("gcp", **gcp_double.config) as cloud:
            list(cloud.blob.list())
    finally:
        gcp_double.validators.pop()
    assert f"shiftable/{__version__}" in seen[-1]


def test_a_negative_patience_is_refused() -> None:
    with pytest.raises(ValueError, match="retry_seconds"):
        GcpSettings(retry_seconds=-1)


def test_loading_the_provider_imports_no_library_of_google() -> None:
    code = (
        "import sys, shiftable\nfrom shiftable import registry\nregistry.load('gcp')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in {'google', 'requests', 'urllib3'}])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("made", "expected"),
    [(timedelta(seconds=-2), True), (timedelta(milliseconds=500), None), (timedelta(seconds=3), False)],
)
def test_the_servers_time_is_known_within_a_second(made: timedelta, *, expected: bool | None) -> None:
    clock = ServerClock()
    assert clock.is_before(NOON, 100.0) is None
    clock.observe(NOON, timedelta(seconds=1), 100.0, 100.1)
    assert clock.is_before(NOON + made, 100.1) is expected


def test_what_we_wrote_narrows_it_and_a_clock_that_is_set_is_believed() -> None:
    clock = ServerClock()
    clock.observe(NOON, timedelta(seconds=1), 100.0, 100.1)
    clock.observe(NOON + timedelta(milliseconds=400), timedelta(milliseconds=1), 100.2, 100.21)
    assert clock.is_before(NOON + timedelta(milliseconds=380), 100.21) is True
    assert clock.is_before(NOON + timedelta(milliseconds=440), 100.21) is False
    clock.observe(NOON + timedelta(hours=1), timedelta(seconds=1), 101.0, 101.1)
    assert clock.is_before(NOON + timedelta(minutes=30), 101.1) is True


def test_what_was_known_precisely_is_known_less_and_less() -> None:
    clock = ServerClock()
    clock.observe(NOON, timedelta(milliseconds=1), 100.0, 100.001)
    later = NOON + timedelta(hours=1)
    assert clock.is_before(later - timedelta(seconds=1), 3700.0) is None
    assert clock.is_before(later - timedelta(seconds=5), 3700.0) is True
    assert clock.is_before(later + timedelta(seconds=5), 3700.0) is False


def test_nothing_is_asked_behind_our_back(gcp_double: GcpDouble) -> None:
    gcp_double.state.make_bucket("shop", gcp_double.project, "US", {})
    driver = GcsDriver(Session(GcpSettings(**gcp_double.config)))
    driver.delete("shop", "absent", if_match=None, version=None)
    assert driver.list("shop", prefix="", delimiter=None, start_after=None, cursor=None, limit=None).items == ()
    for thread in threading.enumerate():
        if thread.name.endswith("(_fetch_background)"):
            thread.join()
    asked = [call.operation.removeprefix("storage.") for call in gcp_double.calls if call.path != "/token"]
    assert asked == ["objects.delete", "objects.list"]
    driver.close()


def test_telling_features_imports_no_sdk() -> None:
    code = (
        "import sys, shiftable.registry as r; r.load('gcp').features(); "
        "print({'google', 'google_crc32c', 'requests', 'urllib3'} & {name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "set()" == found.stdout.strip()


def test_features_are_those_of_the_drivers(provider: GcpProvider) -> None:
    for service, (features,) in GcpProvider.features().items():
        assert features == getattr(provider, service)().features
