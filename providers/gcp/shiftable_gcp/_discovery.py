"""Check what goes over the wire against Google's own descriptions of its APIs, from google-api-python-client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

import attrs

from shiftable.testing.harness import Request, Response

__all__ = ["Discovery", "Method"]

_TIMES = {"date-time", "google-datetime"}
_INTEGERS = {"int32": (-(2**31), 2**31), "uint32": (0, 2**32), "int64": (-(2**63), 2**63), "uint64": (0, 2**64)}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}


@attrs.frozen
class Method:
    """One method of the API and how it was called."""

    id: str
    definition: Any = attrs.field(repr=False)
    upload: bool = False


class Discovery:
    """The description of one API.

    Args:
        document: name in google-api-python-client's cache, ``storage.v1``.
        reasons: errors have reasons and no status, as in the older kind of API, whatever kind it is else.
    """

    def __init__(self, document: str, *, reasons: bool = False) -> None:
        # Read as a file: the package's own reader wants oauth2client's successor and prints warnings.
        place = files("googleapiclient.discovery_cache") / "documents" / f"{document}.json"
        self._document: Any = json.loads(place.read_text(encoding="utf-8"))
        self._schemas = self._document["schemas"]
        self._canonical = self._document.get("fullyEncodeReservedExpansion", False)  # Google's newer kind of API
        self._reasons = reasons or not self._canonical
        self._routes = list(self._found(self._document["resources"]))

    def method(self, verb: str, target: str) -> Method | None:
        """Return the method that a request calls; ``None`` if it is none of this API's.

        Args:
            target: the path as it came, with what is percent-encoded in it.
        """
        path = target.partition("?")[0]
        for http, pattern, method in self._routes:
            if http == verb and pattern.fullmatch(path):
                return method
        return None

    def violations(self, request: Request, response: Response) -> Iterator[str]:
        """Say what of a request and its answer the description does not allow."""
        method = self.method(request.method, request.target)
        if method is None:
            return
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        yield from self._query(method, query)
        schema = method.definition.get("request")
        if request.body and not method.upload:
            if schema is None:
                yield f"{method.id} takes no body"
            else:
                yield from self._json("request", request.body, schema["$ref"])
        if response.code >= 400:
            yield from _error_body(response, canonical=not self._reasons)
        elif response.body and "alt=media" not in request.query and response.code != 308 and "fields" not in query:
            answer = method.definition.get("response")
            if answer is None:
                yield f"{method.id} answers no body"
            else:
                yield from self._json("answer", response.body, answer["$ref"])

    def _query(self, method: Method, query: dict[str, str]) -> Iterator[str]:
        known = self._document["parameters"] | {
            name: each for name, each in method.definition.get("parameters", {}).items() if each["location"] == "query"
        }
        if method.upload:
            known |= {"upload_id": {"type": "string"}}
        for name, value in query.items():
            if (name, value) == ("alt", "media") and method.definition.get("supportsMediaDownload"):
                continue  # older descriptions do not have it among the values
            if name not in known:
                yield f"{method.id} has no parameter {name!r}"
            else:
                yield from _parameter(f"{method.id}: {name}", value, known[name])
        yield from (
            f"{method.id} needs the parameter {name!r}"
            for name, each in known.items()
            if each.get("required") and name not in query
        )

    def _json(self, where: str, body: bytes, schema: str) -> Iterator[str]:
        try:
            value = json.loads(body)
        except ValueError:
            yield f"{where} is not JSON"
            return
        yield from self._value(where, value, {"$ref": schema})

    def _value(self, where: str, value: Any, schema: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"]] | {"$id": schema["$ref"]}
        kind = schema.get("type", "any")
        if where.startswith("request") and schema.get("format") in _INTEGERS and type(value) is int:
            value = str(value) if kind == "string" else value  # both are taken; Google's own client sends numbers
        if value is None and where.startswith("request"):
            return  # a patch deletes so
        if kind != "any" and (
            not isinstance(value, _TYPES[kind]) or (kind in {"integer", "number"} and isinstance(value, bool))
        ):
            yield f"{where} is {type(value).__name__}, not {kind}"
        elif kind == "object":
            yield from self._fields(where, value, schema)
        elif kind == "array":
            for number, each in enumerate(value):
                yield from self._value(f"{where}[{number}]", each, schema["items"])
        elif kind == "string":
            yield from _text(where, value, schema)

    def _fields(self, where: str, value: dict[str, Any], schema: Any) -> Iterator[str]:  # noqa: ANN401  the same
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            if name in known:
                yield from self._value(f"{where}.{name}", each, known[name])
            elif rest is not None:
                yield from self._value(f"{where}.{name}", each, rest)
            else:
                yield f"{where} has an unknown field {name!r}"

    def _found(self, resources: Any) -> Iterator[tuple[str, re.Pattern[str], Method]]:  # noqa: ANN401  the same
        base = "/" + self._document["servicePath"]
        for resource in resources.values():
            for each in resource.get("methods", {}).values():
                place = base + each.get("flatPath", each["path"])
                paths = [(place, False), ("/download" + place, False)]
                protocols = each.get("mediaUpload", {}).get("protocols", {})
                paths += [(protocol["path"], True) for protocol in protocols.values()]
                for path, upload in paths:
                    name = "[^/:]+" if self._canonical else "[^/]+"  # there a colon begins a verb
                    pattern = re.compile(re.sub(r"\\{\w+\\}", name, re.escape(path)))
                    yield each["httpMethod"], pattern, Method(each["id"], each, upload)
                    if upload:  # the bytes of a resumable upload, and its end
                        yield "PUT", pattern, Method(each["id"], {"parameters": {}} | each, upload)
            yield from self._found(resource.get("resources", {}))


def _parameter(where: str, value: str, schema: Any) -> Iterator[str]:  # noqa: ANN401  the same
    kind = schema["type"]
    if kind == "boolean" and value.lower() not in {"true", "false"}:
        yield f"{where} is {value!r}, not a boolean"
    elif kind == "integer" and not re.fullmatch(r"-?\d+", value):
        yield f"{where} is {value!r}, not an integer"
    elif kind == "string":
        yield from _text(where, value, schema)


def _text(where: str, value: str, schema: Any) -> Iterator[str]:  # noqa: ANN401  the same
    form = schema.get("format", "")
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} is {value!r}, which does not look like {schema['pattern']}"
    if form in _INTEGERS:
        low, high = _INTEGERS[form]
        if not re.fullmatch(r"-?\d+", value) or not low <= int(value) < high:
            yield f"{where} is {value!r}, not {form}"
    elif form in _TIMES:
        try:
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            yield f"{where} is {value!r}, not a time"


def _error_body(response: Response, *, canonical: bool) -> Iterator[str]:
    try:
        error = json.loads(response.body)["error"]
        complete = error["message"] and error["code"] == response.code
        complete = complete and (error["status"] if canonical else error["errors"][0]["reason"])
    except (ValueError, KeyError, TypeError, IndexError):
        complete = False
    if not complete:
        yield f"the error {response.code} has no body like the service's: {response.body[:200]!r}"
