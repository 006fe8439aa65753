"""Requests to and answers of Route 53 as XML, read and written by botocore's own model of the service."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from shiftable_aws._strict_refused import Refused

__all__ = ["arguments", "document", "error", "operations"]

_NAMESPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
_BY_VALUE: Mapping[str, Callable[[str], Any]] = {"boolean": lambda text: text == "true", "integer": int, "long": int}


@functools.cache
def _service() -> ServiceModel:
    return botocore.session.get_session().get_service_model("route53")


def operations() -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each operation with its method and path."""
    for name in _service().operation_names:
        yield name, _service().operation_model(name).http


def arguments(operation: str, bound: Mapping[str, str], query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the arguments of a request, as the SDK's caller gave them.

    Raises:
        Refused: the model does not know one of them, or allows it no such value.
    """
    shape = _service().operation_model(operation).input_shape
    if not isinstance(shape, StructureShape):
        return {}
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        place, wire = member.serialization.get("location"), member.serialization.get("name", name)
        source = {"uri": bound, "querystring": query}.get(place or "", {})
        if wire in source:
            found[name] = source[wire]
    if body:
        found |= _read(shape, _root(body))
    for wrong in (*_report(found, shape), *_not_allowed(found, shape)):
        raise Refused("InvalidInput", f"Invalid XML ; {wrong}")
    return found


def document(operation: str, answer: Mapping[str, Any]) -> bytes:
    """Write an answer; what the model requires of it has to be there."""
    shape = _service().operation_model(operation).output_shape
    assert shape is not None  # noqa: S101  every operation that is answered here has one
    missing = _report(answer, shape)
    if missing:
        raise AssertionError(f"the answer to {operation} is not as the model says: {missing}")
    body = "".join(_written(shape, answer))
    return f'<?xml version="1.0"?>\n<{operation}Response xmlns="{_NAMESPACE}">{body}</{operation}Response>'.encode()


def error(code: str, message: str) -> bytes:
    """Write an error as Route 53 does."""
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
    request = "<RequestId>double-request</RequestId>"
    return f'<ErrorResponse xmlns="{_NAMESPACE}"><Error>{inner}</Error>{request}</ErrorResponse>'.encode()


def _root(body: bytes) -> ET.Element:
    try:
        return ET.fromstring(body)  # noqa: S314  a test's own client wrote it
    except ET.ParseError as exc:
        raise Refused("InvalidInput", f"Invalid XML ; {exc}") from exc


def _read(shape: Shape, node: ET.Element) -> Any:  # noqa: ANN401  whatever the model says
    if isinstance(shape, StructureShape):
        members = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
        found: dict[str, Any] = {}
        for child in node:
            tag = child.tag.removeprefix(f"{{{_NAMESPACE}}}")
            if tag not in members:
                raise Refused("InvalidInput", f"Invalid XML ; cvc-complex-type: invalid content, element '{tag}'")
            name, member = members[tag]
            found[name] = _read(member, child)
        return found
    if isinstance(shape, ListShape):
        return [_read(shape.member, child) for child in node]
    return _BY_VALUE.get(shape.type_name, str)(node.text or "")


def _written(shape: Shape, value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the elements of a structure in the model's order."""
    assert isinstance(shape, StructureShape)  # noqa: S101  mypy: every answer is one
    for name, member in shape.members.items():
        if value.get(name) is None or member.serialization.get("location") == "header":
            continue
        tag = member.serialization.get("name", name)
        yield f"<{tag}>{''.join(_inner(member, value[name]))}</{tag}>"


def _inner(shape: Shape, value: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(shape, StructureShape):
        yield from _written(shape, value)
    elif isinstance(shape, ListShape):
        tag = shape.member.serialization.get("name", "member")
        for item in value:
            yield f"<{tag}>{''.join(_inner(shape.member, item))}</{tag}>"
    else:
        yield escape(str(value).lower() if isinstance(value, bool) else str(value))


def _report(value: Mapping[str, Any], shape: Shape) -> list[str]:
    """Say what is missing, too long or of another type."""
    found = ParamValidator().validate(value, shape)
    return [found.generate_report()] if found.has_errors() else []


def _not_allowed(value: Any, shape: Shape) -> Iterator[str]:  # noqa: ANN401
    """Say which values are none of the model's, or are longer than it allows; botocore checks neither of strings."""
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            if name in value:
                yield from _not_allowed(value[name], member)
    elif isinstance(shape, ListShape):
        for item in value:
            yield from _not_allowed(item, shape.member)
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield f"Value '{value}' is not facet-valid with respect to enumeration '[{', '.join(shape.enum)}]'"
    elif shape.type_name in {"string", "long", "integer"} and "max" in shape.metadata:
        size = len(value) if isinstance(value, str) else value
        if size > shape.metadata["max"]:
            yield f"Value '{str(value)[:40]}' is not facet-valid with respect to maximum {shape.metadata['max']}"
