"""URLs of Cloud Storage that are signed without a private key, by IAM."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import Credentials as Plain
from google.oauth2.credentials import Credentials

from shiftable.blob import BlobStore, Bucket, BucketSpec
from shiftable.errors import PermissionDenied, Unavailable, Unsupported
from shiftable_gcp import GcpProvider, GcpSettings
from shiftable_gcp._session import Session

if TYPE_CHECKING:
    from shiftable_gcp.double import GcpDouble

Connected = Callable[..., Bucket]


@pytest.fixture
def connected(gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connected]:
    """Return a bucket as credentials without a key see it."""
    made: list[GcpProvider] = []

    def bucket(credentials: Any = None, **settings: Any) -> Bucket:
        found = credentials or Credentials(gcp_double.make_token())  # type: ignore[no-untyped-call]
        monkeypatch.setattr(Session, "_credentials", lambda _: (found, gcp_double.project))
        provider = GcpProvider(GcpSettings(**{**gcp_double.config, "service_account": None, **settings}))
        made.append(provider)
        store = BlobStore(provider.blob())
        return store.bucket("shop") if store.exists("shop") else store.create(BucketSpec(name="shop"))

    yield bucket
    for provider in made:
        provider.close()


def opened(url: str, **how: Any) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, **how), timeout=10) as answer:  # noqa: S310  the double's
        return bytes(answer.read())


def test_iam_signs_in_the_name_of_an_account(connected: Connected, gcp_double: GcpDouble) -> None:
    bucket = connected(sign_as=gcp_double.email)
    bucket.put("a b/ü", b"content")
    url = bucket.sign("a b/ü", expires=timedelta(minutes=5))
    assert b"content" == opened(url)
    written = bucket.sign("new", method="PUT", content_type="text/x")
    opened(written, method="PUT", data=b"signed", headers=dict(written.headers))
    assert b"signed" == bucket.get("new")
    calls = [call for call in gcp_double.calls if call.service == "iamcredentials"]
    assert ["iamcredentials.projects.serviceAccounts.signBlob"] * 2 == [call.operation for call in calls]


def test_a_key_signs_by_itself_and_an_account_that_is_named_by_iam(gcp_double: GcpDouble) -> None:
    for sign_as, calls in ((None, 0), (gcp_double.email, 1)):
        provider = GcpProvider(GcpSettings(**gcp_double.config, sign_as=sign_as))
        before = len(gcp_double.calls)
        BlobStore(provider.blob()).bucket("shop").sign("key")
        assert calls == sum(call.service == "iamcredentials" for call in gcp_double.calls[before:])
        provider.close()


class Machine(Plain):  # type: ignore[misc]  # google-auth has no types
    """What a machine of Google's has: a token and the name of its account, which the first refresh tells."""

    def __init__(self, token: str, email: str) -> None:
        super().__init__()
        self.service_account_email = "default"
        self._told = token, email

    def refresh(self, request: object) -> None:
        self.token, self.service_account_email = self._told


def test_the_account_of_a_machine_signs(connected: Connected, gcp_double: GcpDouble) -> None:
    bucket = connected(Machine(gcp_double.make_token(), gcp_double.email))
    bucket.put("key", b"content")
    assert b"content" == opened(bucket.sign("key"))


def test_a_person_without_an_account_to_sign_as_is_refused(connected: Connected, gcp_double: GcpDouble) -> None:
    bucket = connected()
    with pytest.raises(Unsupported, match="name a service account that they may sign as"):
        bucket.sign("key")
    assert not [call for call in gcp_double.calls if call.service == "iamcredentials"]


def test_who_may_not_sign_is_told_the_permission(connected: Connected, gcp_double: GcpDouble) -> None:
    bucket = connected(sign_as=gcp_double.email)
    gcp_double.may_sign = False
    with pytest.raises(PermissionDenied, match=r"iam\.serviceAccounts\.signBlob"):
        bucket.sign("key")
    gcp_double.may_sign = True
    other = connected(sign_as="somebody@elsewhere.iam.gserviceaccount.com")
    with pytest.raises(PermissionDenied, match=r"iam\.serviceAccounts\.signBlob"):
        other.sign("key")


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "truncate", "status"])
def test_what_breaks_on_the_way_is_tried_again(connected: Connected, gcp_double: GcpDouble, kind: Any) -> None:
    bucket = connected(sign_as=gcp_double.email)
    bucket.put("key", b"content")
    broken = gcp_double.inject(kind, match=lambda call: call.service == "iamcredentials")
    assert b"content" == opened(bucket.sign("key"))
    assert 1 == broken.hits


def test_an_iam_that_stays_away_is_unavailable(connected: Connected, gcp_double: GcpDouble) -> None:
    bucket = connected(sign_as=gcp_double.email, retry_seconds=0)
    gcp_double.inject("status", times=None, match=lambda call: call.service == "iamcredentials")
    with pytest.raises(Unavailable):
        bucket.sign("key")


def test_no_token_shows_in_a_refusal(connected: Connected, gcp_double: GcpDouble) -> None:
    token = gcp_double.make_token()
    bucket = connected(Credentials(token), sign_as=gcp_double.email)  # type: ignore[no-untyped-call]
    gcp_double.may_sign = False
    with pytest.raises(PermissionDenied) as caught:
        bucket.sign("key")
    assert token not in f"{caught.value!r}{caught.value.__cause__!r}{vars(caught.value.__cause__)}"
