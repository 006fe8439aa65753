"""Who may ask the double: shared keys, shared access signatures and tokens, checked as Azure's documentation says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

import attrs

from shiftable_azure._double_wire import Asked, Refusal

__all__ = ["Keys", "authorize"]

_CLOCK = timedelta(minutes=15)
_SIGNED_HEADERS = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
_TENANT = "00000000-0000-0000-0000-000000000000"


@attrs.frozen
class Keys:
    """The secrets of the double's one account.

    Args:
        account_key: base64.
        token: what a bearer has.
        delegation_key: base64, of user delegation keys.
    """

    account: str
    account_key: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    delegation_key: str = attrs.field(repr=False)


def authorize(asked: Asked, keys: Keys, now: datetime) -> frozenset[str]:
    """Return what the request may do, as letters of a SAS's permissions; ``*`` is everything.

    Raises:
        Refusal: it may not come in at all.
    """
    header = asked.headers.get("Authorization", "")
    if "sig" in asked.query:
        return _by_sas(asked, keys, now)
    if not header:
        challenge = (
            f"Bearer authorization_uri=https://login.microsoftonline.com/{_TENANT}/oauth2/authorize "
            "resource_id=https://storage.azure.com"
        )
        raise Refusal(401, "NoAuthenticationInformation", "no credentials", {"WWW-Authenticate": challenge})
    if not asked.inner and not asked.headers.get("x-ms-version"):
        raise Refusal(400, "MissingRequiredHeader", "an authorized request states x-ms-version")
    scheme, _, value = header.partition(" ")
    if scheme == "SharedKey":
        _check_date(asked.headers.get("x-ms-date") or asked.headers.get("Date", ""), now)
        account, _, signature = value.partition(":")
        expected = {_signature(keys.account_key, text) for text in _texts(asked, keys.account)}
        if account != keys.account or not any(hmac.compare_digest(signature, each) for each in expected):
            raise _failed("the signature is not that of the request")
        return frozenset("*")
    if scheme == "Bearer" and hmac.compare_digest(value, keys.token):
        return frozenset("*")
    raise _failed("the credentials are not known")


def _failed(detail: str) -> Refusal:
    return Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.", detail=detail)


def _check_date(text: str, now: datetime) -> None:
    try:
        stated = parsedate_to_datetime(text)
    except ValueError:
        raise _failed("the request is not dated") from None
    if abs(stated - now) > _CLOCK:
        raise _failed("the request's date is more than 15 minutes off")


def _signature(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()


def _texts(asked: Asked, account: str) -> Iterable[str]:
    """Yield what may have been signed: Azure sorts headers by culture, in which hyphens count last."""
    named = {name.lower(): value for name, value in asked.headers.items()}
    plain = {name: named.get(name, "") for name in _SIGNED_HEADERS}
    if plain["content-length"] == "0":
        plain["content-length"] = ""
    if "x-ms-date" in named:
        plain["date"] = ""
    own = {name: _one_blank(value) for name, value in named.items() if name.startswith("x-ms-")}
    resource = f"/{account}{asked.raw_path}" + "".join(
        f"\n{name.lower()}:{','.join(sorted(values))}" for name, values in sorted(asked.raw_query.items())
    )
    for order in (lambda name: name, lambda name: (name.replace("-", ""), name)):
        headers = "".join(f"{name}:{own[name]}\n" for name in sorted(own, key=order))
        yield "\n".join([asked.method, *plain.values()]) + "\n" + headers + resource


def _one_blank(value: str) -> str:
    return re.sub(r"\s+", " ", value).strip()


def _by_sas(asked: Asked, keys: Keys, now: datetime) -> frozenset[str]:
    query = asked.query
    for name in ("sv", "se", "sp"):
        if name not in query:
            raise _failed(f"the signature has no {name}")
    text, key = (_account_text(query, keys), keys.account_key) if "ss" in query else _service_text(asked, keys)
    if not hmac.compare_digest(_signature(key, text), query["sig"]):
        raise _failed("the signature does not match")
    if now >= _moment(query["se"]) or ("st" in query and now + _CLOCK < _moment(query["st"])):
        raise _failed("the signature is not valid at this time")
    if "ss" in query and "b" not in query["ss"]:
        raise Refusal(403, "AuthorizationServiceMismatch", "the signature is for another service")
    if "https" in query.get("spr", "http") and "http" not in query.get("spr", "http").split(","):
        raise Refusal(403, "AuthorizationProtocolMismatch", "the signature is for https alone")
    return frozenset(query["sp"])


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _failed("a time of the signature is none") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _account_text(query: Mapping[str, str], keys: Keys) -> str:
    fields = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
    return "\n".join([keys.account, *(query.get(name, "") for name in fields), ""])


def _service_text(asked: Asked, keys: Keys) -> tuple[str, str]:
    query = asked.query
    place = f"/blob/{keys.account}/{asked.container}" + ("" if query.get("sr") == "c" else f"/{asked.sent_key}")
    if query.get("sr") not in {"b", "c", "bv"}:
        raise _failed("the signature is for no known kind of resource")
    fields = [query.get(name, "") for name in ("sp", "st", "se")] + [place]
    version = query.get("versionid", "") if query.get("sr") == "bv" else ""
    tail = [query.get(name, "") for name in ("sip", "spr", "sv", "sr")] + [version, query.get("ses", "")]
    overrides = [query.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct")]
    if "skoid" not in query:
        return "\n".join([*fields, query.get("si", ""), *tail, *overrides]), keys.account_key
    delegated = ("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid", "skdutid", "sduoid")
    fields += [query.get(name, "") for name in delegated]
    return "\n".join([*fields, *tail, "", "", *overrides]), keys.delegation_key


def decoded(text: str) -> str:
    """Return a part of a URL as Azure reads it."""
    return unquote(text, errors="strict")
