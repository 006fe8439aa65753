"""The double's vault keeps Key Vault's rules, seen by Microsoft's own client and by bare requests."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

from shiftable_azure._definitions import body_violations
from shiftable_azure.double import AzureDouble, ToLoopback

Client = Any
NAME = "name"


class Fixed:
    """A credential that keeps what it was asked for."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.scopes: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.scopes.append((scopes, options))
        return AccessToken(self.token, 1 << 40)


@pytest.fixture
def client(azure_double: AzureDouble) -> Iterator[Client]:
    """Return a plain client of the SDK: the double is tested without anything of ours."""
    with SecretClient(
        "https://shop.vault.azure.net",
        Fixed(azure_double.token),
        transport=ToLoopback(azure_double.url),
        retry_total=0,
        api_version="7.4",
    ) as made:
        yield made


def refused(act: Callable[..., object], *arguments: Any, **named: Any) -> tuple[int | None, str, str]:
    with pytest.raises(HttpResponseError) as caught:
        act(*arguments, **named)
    error = caught.value.error
    assert error is not None
    return caught.value.status_code, str(error.code), str(error.innererror.get("code", ""))


def bare(double: AzureDouble, path: str, token: str = "", method: str = "GET", body: bytes | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{double.url}{path}", data=body, headers=headers, method=method)  # noqa: S310  loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  the same
            return answer.status, dict(answer.headers), json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


# who asks


def test_a_client_is_challenged_before_it_sends_a_value(azure_double: AzureDouble) -> None:
    credential = Fixed(azure_double.token)
    transport = ToLoopback(azure_double.url)
    host = "https://challenged.vault.azure.net"  # the SDK remembers the challenge of a host
    with SecretClient(host, credential, transport=transport, api_version="7.4") as made:
        made.set_secret(NAME, "value")
    assert [(call.operation, call.status) for call in azure_double.calls] == [("SetSecret", 401), ("SetSecret", 200)]
    ((scopes, options),) = credential.scopes
    assert scopes == ("https://vault.azure.net/.default",)
    assert options["tenant_id"] == "00000000-0000-0000-0000-000000000000"
    assert options["enable_cae"] is True


def test_a_request_without_a_token_is_challenged_whatever_it_wants(azure_double: AzureDouble) -> None:
    for token in ("", "another"):
        status, headers, content = bare(azure_double, "/secrets?api-version=7.4", token)
        assert (status, content["error"]["code"]) == (401, "Unauthorized")
        scheme, _, parameters = headers["WWW-Authenticate"].partition(" ")
        assert scheme == "Bearer"
        assert 'resource="https://vault.azure.net"' in parameters
        assert 'authorization="https://login.microsoftonline.com/' in parameters


def test_the_version_of_the_api_is_asked_for(azure_double: AzureDouble) -> None:
    for query in ("", "?api-version=1.0"):
        status, _, content = bare(azure_double, f"/secrets{query}", azure_double.token)
        assert (status, content["error"]["code"]) == (400, "BadParameter")


def test_a_managed_identity_hands_out_the_token(azure_double: AzureDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure_double.environ.items():
        monkeypatch.setenv(name, value)
    with ManagedIdentityCredential() as identity:
        assert identity.get_token("https://vault.azure.net/.default").token == azure_double.token
    status, _, _ = bare(azure_double, "/identity/token?resource=https://vault.azure.net")
    assert status == 401


def test_what_is_throttled_says_for_how_long(azure_double: AzureDouble) -> None:
    azure_double.vault.throttled = 1
    status, headers, content = bare(azure_double, "/secrets?api-version=7.4", azure_double.token)
    assert (status, headers["Retry-After"], content["error"]["code"]) == (429, "1", "Throttled")
    assert bare(azure_double, "/secrets?api-version=7.4", azure_double.token)[0] == 200


# values and versions


def test_a_version_has_what_it_was_set_with(azure_double: AzureDouble, client: Client) -> None:
    until = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    made = client.set_secret(
        NAME, "wert", content_type="text/plain", tags={"Team": "core"}, expires_on=until, not_before=until
    )
    found = client.get_secret(NAME, made.properties.version)
    assert (found.value, found.properties.content_type, found.properties.tags) == (
        "wert",
        "text/plain",
        {"Team": "core"},
    )
    assert (found.properties.expires_on, found.properties.not_before, found.properties.enabled) == (until, until, True)
    assert len(found.properties.version) == 32
    assert set(found.properties.version) <= set("0123456789abcdef")
    assert found.properties.created_on.microsecond == 0
    assert (found.properties.recovery_level, found.properties.recoverable_days) == ("Recoverable+Purgeable", 90)
    client.set_secret(NAME, "another")
    assert client.get_secret(NAME).properties.tags is None


def test_versions_come_in_the_order_of_their_ids(client: Client) -> None:
    made = [client.set_secret(NAME, str(number)).properties.version for number in range(30)]
    listed = [each.version for each in client.list_properties_of_secret_versions(NAME)]
    assert listed == sorted(made) != made
    assert client.get_secret(NAME).properties.version == made[-1]
    assert list(client.list_properties_of_secret_versions("missing")) == []


def test_names_are_the_same_in_any_case(azure_double: AzureDouble, client: Client) -> None:
    client.set_secret("DbPassword", "one")
    client.set_secret("DBPASSWORD", "two")
    assert client.get_secret("dbpassword").value == "two"
    assert [each.name for each in client.list_properties_of_secrets()] == ["DbPassword"]


def test_a_disabled_version_is_not_read_and_is_listed(client: Client) -> None:
    first = client.set_secret(NAME, "one").properties.version
    second = client.set_secret(NAME, "two").properties.version
    client.update_secret_properties(NAME, second, enabled=False, tags={"why": "leaked"})
    assert refused(client.get_secret, NAME) == (403, "Forbidden", "SecretDisabled")
    assert refused(client.get_secret, NAME, second) == (403, "Forbidden", "SecretDisabled")
    assert client.get_secret(NAME, first).value == "one"
    listed = {each.version: (each.enabled, each.tags) for each in client.list_properties_of_secret_versions(NAME)}
    assert listed == {first: (True, None), second: (False, {"why": "leaked"})}


def test_a_change_leaves_what_it_does_not_name(client: Client) -> None:
    until = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    version = client.set_secret(NAME, "one", tags={"a": "b"}, content_type="t", expires_on=until).properties.version
    client.update_secret_properties(NAME, version, enabled=True)
    found = client.get_secret(NAME).properties
    assert (found.tags, found.content_type, found.expires_on) == ({"a": "b"}, "t", until)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("a_b", {}), ("x" * 128, {}), (NAME, {"value": "x" * 25_601}), (NAME, {"value": "é" * 12_801}),
        (NAME, {"tags": {str(number): "" for number in range(16)}}), (NAME, {"tags": {"x" * 513: ""}}),
        (NAME, {"tags": {"x": "y" * 513}}), (NAME, {"content_type": "x" * 256}),
    ],
    ids=["underscore", "long", "large", "large in bytes", "tags", "long tag", "long value", "long type"],
)  # fmt: skip
def test_what_passes_a_limit_is_refused(client: Client, name: str, named: dict[str, Any]) -> None:
    assert refused(client.set_secret, name, **{"value": "x", **named})[:2] == (400, "BadParameter")


def test_what_is_at_the_limits_is_taken(client: Client) -> None:
    tags = {f"{number:02}" + "n" * 510: "v" * 512 for number in range(15)}
    made = client.set_secret("x" * 127, "v" * 25_600, tags=tags, content_type="t" * 255)
    assert client.get_secret("x" * 127).properties.tags == tags == made.properties.tags


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"value": 1}', b'{"value": ""}', b'{"value": "x", "attributes": {"exp": "soon"}}'],
    ids=["nothing", "a list", "no value", "a number", "empty", "a word"],
)
def test_a_body_that_is_none_is_refused(azure_double: AzureDouble, body: bytes) -> None:
    path = f"/secrets/{NAME}?api-version=7.4"
    status, _, content = bare(azure_double, path, azure_double.token, "PUT", body)
    assert (status, content["error"]["code"]) == (400, "BadParameter")
    azure_double.violations.clear()  # the definitions say so too
    assert azure_double.vault.secrets == {}


def test_a_missing_secret_version_or_operation_is_told_apart(azure_double: AzureDouble, client: Client) -> None:
    assert refused(client.get_secret, NAME)[:2] == (404, "SecretNotFound")
    client.set_secret(NAME, "value")
    assert refused(client.get_secret, NAME, "0" * 32)[:2] == (404, "SecretNotFound")
    assert refused(client.get_secret, NAME, "no-id")[:2] == (400, "BadParameter")
    assert refused(client.update_secret_properties, "missing", enabled=False)[:2] == (404, "SecretNotFound")
    assert refused(client.begin_delete_secret, "missing")[:2] == (404, "SecretNotFound")


# listings


def test_pages_have_25_items_at_most(azure_double: AzureDouble, client: Client) -> None:
    names = [f"name-{number:03}" for number in range(60)]
    for name in names:
        client.set_secret(name, "value")
    pages = [len(list(page)) for page in client.list_properties_of_secrets().by_page()]
    assert pages == [25, 25, 10]
    assert [each.name for each in client.list_properties_of_secrets(max_page_size=7)] == names
    for size in (0, 26):
        path = f"/secrets?api-version=7.4&maxresults={size}"
        assert bare(azure_double, path, azure_double.token)[0] == 400


def test_a_page_can_be_smaller_than_asked_for(azure_double: AzureDouble, client: Client) -> None:
    azure_double.vault.page_size = 2
    for number in range(5):
        client.set_secret(f"name-{number}", "value")
    assert [len(list(page)) for page in client.list_properties_of_secrets().by_page()] == [2, 2, 1]


# deletion


def test_a_deleted_secret_keeps_its_name_until_it_is_purged(azure_double: AzureDouble, client: Client) -> None:
    client.set_secret(NAME, "one")
    client.set_secret(NAME, "two")
    deleted = client.begin_delete_secret(NAME).result()
    assert deleted.scheduled_purge_date - deleted.deleted_date == timedelta(days=90)
    assert deleted.recovery_id.endswith(f"/deletedsecrets/{NAME}")
    assert refused(client.get_secret, NAME)[:2] == (404, "SecretNotFound")
    assert refused(client.set_secret, NAME, "x") == (409, "Conflict", "ObjectIsDeletedButRecoverable")
    assert [each.name for each in client.list_deleted_secrets()] == [NAME]
    assert list(client.list_properties_of_secrets()) == list(client.list_properties_of_secret_versions(NAME)) == []
    client.begin_recover_deleted_secret(NAME)
    assert client.get_secret(NAME).value == "two"
    assert refused(client.begin_recover_deleted_secret, NAME)[:2] == (404, "SecretNotFound")
    client.begin_delete_secret(NAME)
    client.purge_deleted_secret(NAME)
    assert refused(client.get_deleted_secret, NAME)[:2] == (404, "SecretNotFound")
    client.set_secret(NAME, "three")
    assert len(list(client.list_properties_of_secret_versions(NAME))) == 1


def test_a_deletion_takes_the_looks_that_were_asked_for(azure_double: AzureDouble, client: Client) -> None:
    azure_double.vault.looks = 1
    client.set_secret(NAME, "one")
    client.begin_delete_secret(NAME)
    assert refused(client.get_deleted_secret, NAME)[:2] == (404, "SecretNotFound")
    client.purge_deleted_secret(NAME)
    assert refused(client.set_secret, NAME, "two") == (409, "Conflict", "ObjectIsBeingDeleted")
    client.set_secret(NAME, "two")


@pytest.mark.parametrize("days", [7, 90])
def test_the_vault_purges_by_itself(azure_double: AzureDouble, client: Client, days: int) -> None:
    azure_double.vault.retention = days
    client.set_secret(NAME, "one")
    client.begin_delete_secret(NAME)
    azure_double.clock.advance(timedelta(days=days, seconds=-60))
    assert client.get_deleted_secret(NAME).name == NAME
    azure_double.clock.advance(timedelta(seconds=120))
    assert list(client.list_deleted_secrets()) == []


def test_purge_protection_is_stated_and_holds(azure_double: AzureDouble, client: Client) -> None:
    azure_double.vault.purge_protection = True
    azure_double.vault.retention = 30
    assert client.set_secret(NAME, "one").properties.recovery_level == "CustomizedRecoverable"
    client.begin_delete_secret(NAME)
    assert refused(client.purge_deleted_secret, NAME)[:2] == (403, "Forbidden")


def test_a_vault_may_have_no_soft_delete(azure_double: AzureDouble, client: Client) -> None:
    azure_double.vault.retention = None
    assert client.set_secret(NAME, "one").properties.recovery_level == "Purgeable"
    assert client.begin_delete_secret(NAME).result().recovery_id is None
    assert list(client.list_deleted_secrets()) == []
    client.set_secret(NAME, "two")


def test_a_reset_leaves_an_ordinary_and_empty_vault(azure_double: AzureDouble, client: Client) -> None:
    client.set_secret(NAME, "one")
    azure_double.vault.purge_protection = True
    azure_double.vault.throttled = 5
    azure_double.reset()
    assert list(client.list_properties_of_secrets()) == []
    assert client.set_secret(NAME, "one").properties.recovery_level == "Recoverable+Purgeable"


# the definitions


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"value": "x", "attributes": {"enabled": True, "exp": 1}, "tags": {"a": "b"}}, 0),
        ({"value": "x", "secret": "y"}, 1), ({}, 1), ({"value": "x", "attributes": {"created": 1}}, 1),
        ({"value": "x", "attributes": {"exp": "2031"}}, 1), ({"value": "x", "tags": {"a": 1}}, 1),
        ({"value": "x", "attributes": {"enabled": "yes"}}, 1),
    ],
    ids=["right", "unknown", "no value", "read-only", "no time", "no text", "no boolean"],
)  # fmt: skip
def test_the_definitions_find_what_is_wrong_with_a_body(body: dict[str, Any], found: int) -> None:
    assert len(list(body_violations(body, "SecretSetParameters", sent=True))) == found


def test_the_resource_managers_definitions_find_what_is_wrong_with_a_body(resource_manager: Any) -> None:
    right = {"value": "x", "contentType": "t", "attributes": {"enabled": True, "nbf": 1, "exp": 1}, "tags": {"a": "b"}}
    assert resource_manager(right) == []
    assert len(resource_manager({"secret": "x", "attributes": {"created": 1, "expires": 1}})) == 3
