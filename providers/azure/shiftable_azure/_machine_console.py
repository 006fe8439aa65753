"""The serial console of a machine, by the URL that Azure signs for it."""

from __future__ import annotations

from urllib.parse import urlsplit

import requests

from shiftable_azure.errors import ArmFailure

__all__ = ["fetched"]

_CONSOLE = 2**20  # bytes, the last of it
_PAGE = 512  # bytes: the last page of a log is filled up with zeros


def fetched(url: str) -> bytes:
    """Fetch what a signed URL is for. It gets no token; and nobody is shown the signature."""
    if urlsplit(url).scheme != "https" and urlsplit(url).hostname != "127.0.0.1":
        raise ArmFailure("ConsoleUnavailable", "Azure names a console log that is not reached by https")
    kept = b""
    try:
        with requests.get(url, stream=True, timeout=(20, 60), auth=_nobody, allow_redirects=False) as answer:
            if answer.status_code == requests.codes.not_found:
                return b""
            if answer.status_code != requests.codes.ok:
                why = f"the console log is answered with {answer.status_code}"
                raise ArmFailure("ConsoleUnavailable", why)
            for chunk in answer.iter_content(2**16):
                kept = (kept + chunk)[-_CONSOLE - _PAGE :]
    except requests.RequestException as exc:
        why = f"the console log cannot be fetched ({type(exc).__name__})"
        raise ArmFailure("ConsoleUnavailable", why) from None
    return kept.rstrip(b"\0")[-_CONSOLE:]


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Say who asks: nobody, whatever a file on this machine has for that host."""
    return request
