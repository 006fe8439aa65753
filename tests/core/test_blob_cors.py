"""Rules which pages' scripts may use a bucket: what a declaration may say of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import jsonschema
import pytest

from shiftable.blob import BlobStore, BucketSpec, CorsRule
from shiftable.blob.driver import cors_rule, why_no_origin
from shiftable.config import Place, as_in_file, structure
from shiftable.errors import ConfigError, InvalidArgument
from shiftable.manifest import json_schema
from shiftable.memory.blob import MemoryBlobDriver

RULE: dict[str, Any] = {"origins": ["https://shop.example"], "methods": ["PUT"]}


def read(**rule: Any) -> CorsRule:
    (found,) = structure(BucketSpec, {"bucket": "shop", "cors": [RULE | rule]}, Place("blob.x")).cors
    return found


def test_rules_are_read_from_the_file_in_their_order() -> None:
    full = {
        "origins": ["https://shop.example", "http://localhost:3000"],
        "methods": ["PUT", "GET", "PUT"],
        "headers": ["x-b", "Content-Type", "content-type"],
        "exposed": ["ETag"],
        "max_age": "1h",
    }
    spec = structure(BucketSpec, {"bucket": "shop", "cors": [full, RULE, full]}, Place("blob.x"))
    expected = CorsRule(
        origins=("http://localhost:3000", "https://shop.example"),
        methods=("GET", "PUT"),
        headers=("content-type", "x-b"),
        exposed=("etag",),
        max_age=timedelta(hours=1),
    )
    assert spec.cors == (expected, CorsRule(origins=("https://shop.example",), methods=("PUT",)))
    assert as_in_file(spec.cors) == (
        '[{ origins = ["http://localhost:3000", "https://shop.example"], methods = ["GET", "PUT"], '
        'headers = ["content-type", "x-b"], exposed = ["etag"], max_age = "1h" }, '
        '{ origins = ["https://shop.example"], methods = ["PUT"] }]'
    )


def test_an_editor_is_told_the_keys_of_a_rule() -> None:
    manifest = {
        "project": {"name": "shop"},
        "environments": {"development": {"provider": "memory"}},
        "blob": {"x": {"bucket": "shop", "cors": [RULE | {"headers": ["*"], "max_age": "5m"}]}},
    }
    jsonschema.validate(manifest, json_schema())
    for wrong in ({"method": ["PUT"]}, {"methods": ["PATCH"]}, {"origins": "*"}, {"max_age": 5}):
        manifest["blob"] = {"x": {"bucket": "shop", "cors": [RULE | wrong]}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest, json_schema())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"origins": []}, "at least one"),
        ({"origins": ["https://shop.example/"]}, "is no origin"),
        ({"origins": ["https://shop.example/path"]}, "is no origin"),
        ({"origins": ["shop.example"]}, "is no origin"),
        ({"origins": ["https://"]}, "is no origin"),
        ({"origins": ["https://user@shop.example"]}, "is no origin"),
        ({"origins": ["https://Shop.example"]}, "no capitals"),
        ({"origins": ["https://käse.example"]}, "is no origin"),
        ({"origins": ["https://shop.example:0"]}, "is no origin"),
        ({"origins": ["null"]}, "is no origin"),
        ({"origins": ["https://shop.example:443"]}, "leave out the port"),
        ({"origins": ["http://shop.example:80"]}, "leave out the port"),
        ({"origins": ["https://*.shop.example"]}, "name each origin"),
        ({"origins": ["*", "https://shop.example"]}, "leave out the others"),
        ({"methods": []}, "at least one"),
        ({"methods": ["OPTIONS"]}, "must be one of"),
        ({"methods": ["put"]}, "must be one of"),
        ({"headers": ["*", "content-type"]}, "leave out the others"),
        ({"headers": ["x-amz-meta-*"]}, "write each one out"),
        ({"headers": ["content type"]}, "is no name of a header"),
        ({"headers": [""]}, "is no name of a header"),
        ({"exposed": ["*"]}, "write each one out"),
        ({"max_age": "0s"}, "at least one"),
        ({"max_age": timedelta(milliseconds=1500)}, "whole seconds"),
        ({"max_age": 60}, "duration"),
        ({"credentials": True}, "unknown"),
    ],
)
def test_what_no_browser_or_provider_takes_is_one_mistake_with_its_place(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**wrong)
    (problem,) = caught.value.problems
    assert why in problem.message
    (field,) = wrong
    assert f"cors.0.{field}" in problem.place


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "http://localhost:3000", "http://[::1]:8080", "https://xn--kse-qla.example", "capacitor://localhost"),
        *("http://shop.example:443", "https://shop.example:80", "chrome-extension://abcdefgh", "http://10.0.0.1"),
    ],
)
def test_what_browsers_tell_is_an_origin(origin: str) -> None:
    assert why_no_origin(origin) is None
    assert read(origins=[origin]).origins == (origin,)


def test_a_server_of_signed_urls_takes_the_same_origins() -> None:
    class Serving(MemoryBlobDriver):
        @property
        def features(self) -> Any:
            return attrs.evolve(super().features, serve=True)

    with pytest.raises(InvalidArgument, match="leave out the port"):
        BlobStore(Serving()).serve(0, origins=["https://shop.example:443"])


def test_what_a_provider_tells_is_a_rule_if_a_declaration_can_say_it() -> None:
    given = {"origins": ["https://shop.example"], "methods": ["PUT"], "headers": ["A"], "exposed": []}
    assert cors_rule(**given, seconds=60) == read(headers=["a"], max_age="1m")
    assert cors_rule(**given, seconds=None) == read(headers=["a"])
    for more in ({"origins": ["https://*.example"]}, {"methods": ["PATCH"]}, {"exposed": ["*"]}, {"origins": []}):
        assert cors_rule(**{**given, **more}, seconds=60) is None
    assert cors_rule(**given, seconds=0) is None


def test_the_order_of_rules_counts() -> None:
    store = BlobStore(MemoryBlobDriver())
    rules = (read(), read(origins=["*"]))
    store.create(BucketSpec(name="shop", cors=rules))
    (change,) = store.diff(BucketSpec(name="shop", cors=rules[::-1]))
    assert [(field.name, field.before, field.after) for field in change.fields] == [("cors", rules, rules[::-1])]
