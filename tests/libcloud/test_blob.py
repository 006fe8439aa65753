"""Object storage of hosters keeps the rules, at a server of the S3 protocol that stands in for theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from shiftable.blob import BlobStore, BucketSpec
from shiftable.config import Credential
from shiftable.errors import ConfigError, Unsupported
from shiftable.testing.conformance.blob import BlobConformance, BlobOracle
from shiftable_libcloud import LibcloudProvider, LibcloudSettings
from shiftable_libcloud.blob import ENDPOINTS, FEATURES, open_blob
from shiftable_s3.driver import S3Driver

KEYS = {"access_key": Credential.literal("key"), "secret_key": Credential.literal("a canary, no secret")}


class Inside:
    """Looks into the server's own tables."""

    def __init__(self, double: Any) -> None:
        self._s3: Any = double.backend("s3", "aws")

    def put_raw(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(bucket, key, data)

    def get_raw(self, bucket: str, key: str) -> bytes | None:
        found = self._s3.get_object(bucket, key)
        return None if found is None else found.value

    def keys(self, bucket: str) -> list[str]:
        return [key for key in self._s3.buckets[bucket].keys if self._s3.get_object(bucket, key) is not None]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Any:
    """Return moto's S3 behind the AWS double, taken for what it is here: a hoster's object storage."""
    pytest.importorskip("shiftable_aws.double", reason="the server is that of shiftable-aws[testing]")
    return request.getfixturevalue("aws_double")


def opened(server: Any, hoster: Any) -> S3Driver:
    config = server.config
    keys = {"access_key": config["access_key"], "secret_key": config["secret_key"]}
    return open_blob(LibcloudSettings(hoster=hoster, region="us-east-1", storage_endpoint=config["endpoint"], **keys))


class TestSpaces(BlobConformance):
    hoster = "digitalocean"

    @pytest.fixture
    def driver(self, server: Any) -> Iterator[S3Driver]:
        made = opened(server, self.hoster)
        yield made
        made.close()

    @pytest.fixture
    def oracle(self, server: Any) -> BlobOracle:
        return Inside(server)


@pytest.mark.parametrize("hoster", sorted(ENDPOINTS))
def test_every_hoster_keeps_an_object_and_what_its_features_say(server: Any, hoster: str) -> None:
    driver = opened(server, hoster)
    bucket = BlobStore(driver).create(BucketSpec(name=f"shop-{hoster}"))
    bucket.put("a/b", b"content", metadata={"team": "shop"})
    assert (b"content", {"team": "shop"}) == (bucket.get("a/b"), bucket.stat("a/b").metadata)
    if FEATURES[hoster].tags:
        bucket.put("tagged", b"", tags={"a": "b"})
        assert {"a": "b"} == bucket.tags("tagged")
    else:
        with pytest.raises(Unsupported):
            bucket.put("tagged", b"", tags={"a": "b"})
    assert "libcloud" == bucket.provider
    driver.close()


@pytest.mark.parametrize(
    ("hoster", "region", "url"),
    [
        ("digitalocean", "fra1", "https://fra1.digitaloceanspaces.com"),
        ("linode", "eu-central-1", "https://eu-central-1.linodeobjects.com"),
        ("ovh", "gra", "https://s3.gra.io.cloud.ovh.net"),
        ("vultr", "ewr1", "https://ewr1.vultrobjects.com"),
    ],
)
def test_the_endpoint_is_the_hosters_in_the_region(hoster: Any, region: str, url: str) -> None:
    driver = open_blob(LibcloudSettings(hoster=hoster, region=region, **KEYS))
    client: Any = driver.client
    assert (url, region) == (client.meta.endpoint_url, client.meta.region_name)
    driver.close()


@pytest.mark.parametrize("region", [None, "", "evil.example/", "fra1.evil.example", "a@b", "FRA1"])
def test_a_region_that_is_none_is_refused(region: str | None) -> None:
    with pytest.raises(ConfigError, match="region"):
        open_blob(LibcloudSettings(hoster="ovh", region=region, **KEYS))


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_amazons_keys_are_sent_to_nobody_else(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "amazons")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "amazons")
    with pytest.raises(ConfigError, match="access_key and secret_key"):
        open_blob(LibcloudSettings(hoster="vultr", region="ewr1", **{**KEYS, missing: None}))


def test_no_key_is_shown() -> None:
    settings = LibcloudSettings(hoster="ovh", region="gra", **KEYS)
    driver = open_blob(settings)
    assert "canary" not in repr(settings) + repr(driver) + repr(BlobStore(driver))
    driver.close()


def test_without_the_s3_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("shiftable_s3", "shiftable_libcloud._spaces"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "shiftable_s3", None)
    with pytest.raises(ConfigError, match=r"shiftable-libcloud\[s3\]"):
        open_blob(LibcloudSettings(hoster="ovh", region="gra", **KEYS))


@pytest.mark.parametrize(("hoster", "service"), [("ovh", "dns"), ("ovh", "compute"), ("vultr", "compute")])
def test_what_a_hoster_is_not_spoken_to_about_is_refused(hoster: Any, service: str) -> None:
    provider = LibcloudProvider(LibcloudSettings(hoster=hoster, region="gra", token=Credential.literal("x")))
    with pytest.raises(Unsupported, match=f"no .* of {hoster} yet, only of digitalocean, linode"):
        getattr(provider, service)()


@pytest.mark.parametrize("field", ["endpoint", "storage_endpoint"])
@pytest.mark.parametrize("value", ["ftp://x", "x", "https://", "https://x/path", "https://x?query"])
def test_an_endpoint_that_is_no_address_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: .* is no address"):
        LibcloudSettings(**{"hoster": "ovh", field: value})  # type: ignore[arg-type]  # one of several fields


@pytest.mark.parametrize("field", ["endpoint", "storage_endpoint"])
def test_a_password_in_an_endpoint_is_refused_and_not_shown(field: str) -> None:
    with pytest.raises(ValueError, match="a credential stands in the URL") as caught:
        LibcloudSettings(**{"hoster": "ovh", field: "https://me:canary@x"})  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)
