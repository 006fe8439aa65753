"""Requests and answers of the services with the query protocol, RDS and EC2, by botocore's models of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from moto.core.parse import EC2QueryParser, QueryParser
from moto.core.serialize import EC2Serializer, QuerySerializer
from moto.core.utils import get_service_model
from werkzeug.datastructures import MultiDict

from shiftable.testing.harness import Headers, Response

__all__ = ["operation_of", "read", "written"]


def operation_of(body: bytes) -> str:
    """Name the operation of a request."""
    return dict(parse_qsl(body.decode("utf-8", "replace"))).get("Action", "")


def read(service: str, body: bytes) -> Mapping[str, Any]:
    """Return the arguments of a request."""
    model = get_service_model(service).operation_model(operation_of(body))
    values = MultiDict(parse_qsl(body.decode(), keep_blank_values=True))
    given: Any = {"body": body, "headers": Headers(), "method": "POST", "url_params": {}, "url_path": "/"}
    given["values"] = values
    parser = EC2QueryParser if service == "ec2" else QueryParser
    found: Mapping[str, Any] = parser(model, timestamp_parser=_moment).parse(given)
    return found


def written(service: str, operation: str, answer: Mapping[str, Any]) -> Response:
    """Answer a request."""
    model = get_service_model(service).operation_model(operation)
    serializer = EC2Serializer if service == "ec2" else QuerySerializer
    text = serializer(model).serialize(answer)["body"]
    headers = Headers({"Content-Type": "text/xml", "x-amzn-RequestId": "double-request"})
    return Response("200 OK", headers, text.encode() if isinstance(text, str) else text)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
