"""The way to one BMC: one request at a time through sushy, a session that is ended, and what servers do there."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import attrs
import requests
import sushy
import urllib3
from sushy import auth, connector, exceptions, utils
from sushy.resources.manager import virtual_media

from shiftable.config import Credential
from shiftable.errors import Conflict, Unavailable, Unsupported
from shiftable.waiting import retry_after
from shiftable_baremetal._failures import Broken, NeverSent, Stopped
from shiftable_baremetal._redfish_errors import Unsure, Untrusted
from shiftable_baremetal._redfish_settings import RedfishImageSettings

__all__ = ["Bmc", "Seen"]

logger = logging.getLogger(__name__)

Untyped = Any
"""What sushy and requests hand out: they have no types."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes of an answer
_LOCKED_OUT = 60.0
"""Seconds in which a login that was refused is not tried again: BMCs lock the account after a few."""
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED\] ([^(]*)")

_WAYS: Mapping[str, tuple[sushy.ResetType, ...]] = {
    "on": (sushy.ResetType.ON, sushy.ResetType.FORCE_ON),
    "shut down": (sushy.ResetType.GRACEFUL_SHUTDOWN, sushy.ResetType.FORCE_OFF),
    "off": (sushy.ResetType.FORCE_OFF, sushy.ResetType.GRACEFUL_SHUTDOWN),
    "restart": (sushy.ResetType.GRACEFUL_RESTART, sushy.ResetType.FORCE_RESTART, sushy.ResetType.POWER_CYCLE),
    "force restart": (
        sushy.ResetType.FORCE_RESTART,
        sushy.ResetType.POWER_CYCLE,
        sushy.ResetType.GRACEFUL_RESTART,
    ),
}
"""How a server is told, the best way first; a BMC says which of them it takes."""

_DISCS = {sushy.VirtualMediaType.CD, sushy.VirtualMediaType.DVD}
_ENDED_BADLY = frozenset({"Exception", "Killed", "Cancelled", "Interrupted"})


@attrs.frozen
class Seen:
    """A system as its BMC tells of it.

    Args:
        power: ``On``, ``Off``, ``PoweringOn``, ``PoweringOff``, ``Paused``.
        cpus: as its operating system counts them, where that is told.
        memory_gib: where that is told.
        reset_at: when it was reset last, where that is told.
    """

    power: str
    cpus: int | None
    memory_gib: int | None
    reset_at: str | None

    @classmethod
    def read(cls, told: Mapping[str, Untyped]) -> Seen:
        """Read a ComputerSystem, also one that lacks what it should have."""
        processors, memory = _table(told, "ProcessorSummary"), _table(told, "MemorySummary")
        counts = (processors.get(name) for name in ("LogicalProcessorCount", "CoreCount", "Count"))
        return cls(
            power=str(told.get("PowerState") or "unknown"),
            cpus=next((count for each in counts if (count := _whole(each))), None),
            memory_gib=_whole(memory.get("TotalSystemMemoryGiB")),
            reset_at=str(told["LastResetTime"]) if told.get("LastResetTime") else None,
        )


class Bmc:
    """One BMC, for all threads: it is asked one thing after another, which is all that most can do.

    A session is opened when it is first asked, replaced when it has expired, and ended by ``close``. Only one whose
    opening or ending the BMC did not confirm is left to end by itself.

    Args:
        verify: the file of certificates to trust, or whether the public ones are to be asked for.
    """

    def __init__(
        self,
        address: str,
        username: str,
        password: Credential,
        *,
        verify: str | bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address.rstrip("/")
        self._monotonic = monotonic
        self._username = username
        self._password = password
        self._verify = verify
        self._lock = threading.RLock()
        self._root: Untyped = None
        self._refused: tuple[float, Exception] | None = None
        self._paths: dict[str | None, str] = {}

    def __repr__(self) -> str:
        return f"<Bmc {self.address}>"

    def look(self, system: str | None) -> Seen:
        """Return a system as it is now."""
        with self._lock:
            return Seen.read(self._system(system).json)

    def reset(self, system: str | None, way: str) -> str | None:
        """Turn it on or off, in the best way that the BMC takes; return its task, if it makes one of it."""
        with self._lock:
            found = self._system(system)
            allowed = found.get_allowed_reset_system_values()
            chosen = next((each for each in _WAYS[way] if each in allowed), None)
            if chosen is None:
                takes = ", ".join(sorted(each.value for each in allowed)) or "nothing"
                raise Stopped(Unsupported, f"the BMC cannot {way} it: it takes {takes}")
            self._connector.task = None
            try:
                found.reset_system(chosen)
            except NeverSent:
                raise
            except Broken as exc:
                raise Unsure(str(exc), timeout=exc.timeout) from None
            return self._connector.task

    def prepare(self, system: str | None, image: RedfishImageSettings) -> None:
        """Have the next start be from an image."""
        with self._lock:
            found = self._system(system)
            if image.boot == "media":
                self._insert(found, image)
            source = {"media": sushy.BootSource.CD, "network": sushy.BootSource.PXE}.get(image.boot)
            if source is not None:
                found.set_system_boot_options(target=source, enabled=sushy.BootSourceOverrideEnabled.ONCE)

    def eject(self, system: str | None) -> None:
        """Take out what lies in its virtual drives for discs."""
        with self._lock:
            for drive in _drives(self._system(system)):
                _emptied(drive)

    def task_error(self, task: str) -> str | None:
        """Say how a task failed; ``None`` if it did not, or not yet."""
        with self._lock:
            self._opened()
            try:
                answer = self._connector.get(task)
            except exceptions.ResourceNotFoundError:
                return None  # done, and forgotten
            except exceptions.HTTPError as exc:
                if exc.status_code >= 500 or exc.status_code in {401, 403, 429}:
                    raise  # not of the task
                return f"the BMC's task failed: {exc.detail or exc.status_code}"
            told = _loaded(answer.content) or {}  # of one that has ended the monitor may say nothing
            state = told.get("TaskState")
            if state not in _ENDED_BADLY:
                return None
            messages = told.get("Messages")
            said = [str(each.get("Message", "")) for each in messages or () if isinstance(each, Mapping)]
            return f"the BMC's task ended as {state}: {' '.join(' '.join(said).split())[:300] or 'no reason is given'}"

    def close(self) -> None:
        """Log out: BMCs have few sessions."""
        with self._lock:
            root, self._root = self._root, None
            if root is not None:
                self._auth.log_out()
                self._connector.close()

    def _opened(self) -> Untyped:
        """Return the root of the service, logged in."""
        if self._root is None:
            if self._refused is not None and self._monotonic() - self._refused[0] < _LOCKED_OUT:
                raise self._refused[1]
            self._auth = _Auth(self._username, self._password)
            self._connector = _Connector(self.address, self._verify, self._auth)
            try:
                self._root = sushy.Sushy(self.address, auth=self._auth, connector=self._connector)
            except exceptions.AccessError as exc:
                self._refused = (self._monotonic(), exc)
                raise
        return self._root

    def _system(self, system: str | None) -> Untyped:
        root = self._opened()
        try:
            found = root.get_system(self._paths.get(system, system))
        except exceptions.AccessError as exc:
            if exc.status_code == 401:  # not by a session that has expired: that was replaced
                self.close()
                self._refused = (self._monotonic(), exc)
            raise
        self._paths[system] = found.path  # so that the only one is asked for once
        return found

    def _insert(self, system: Untyped, image: RedfishImageSettings) -> None:
        drive = next(iter(_drives(system)), None)
        if drive is None:
            raise Stopped(Unsupported, "the BMC has no virtual drive for discs; boot from the network instead")
        _emptied(drive)  # also of the same image: what is behind its URL may be another by now
        password = image.password.reveal() if image.password is not None else None
        with self._connector.hiding(*_secret_parts(image.url or ""), password):
            drive.insert_media(image.url, username=image.username, password=password)


class _Auth(auth.SessionAuth):  # type: ignore[misc]  # sushy has no types
    """A session where the BMC has them, else the password with each request."""

    def __init__(self, username: str, password: Credential) -> None:
        super().__init__(username, "")
        self._secret = password

    def _do_authenticate(self) -> None:
        self._password = self._secret.reveal()
        try:
            told = self._root_resource.json
            if "SessionService" in told or _table(told, "Links").get("Sessions"):
                self.log_out()
                super()._do_authenticate()
            else:
                self._connector.set_http_basic_auth(self._username, self._password)
        finally:
            self._password = ""

    def close(self) -> None:
        """Do nothing: sushy calls it when it is collected, at whatever time that is."""

    def log_out(self) -> None:
        """End the session; one that ended by itself is no error, and one that cannot be ended expires."""
        uri = self._session_resource_id
        if uri is not None:
            try:
                self._connector.end(uri)
            except Exception as exc:  # noqa: BLE001  it is over, and no failure of what went before
                logger.info("a session of a BMC was not ended and will expire: %s", type(exc).__name__)
            self.reset_session_attrs()

    def secrets(self) -> tuple[str, ...]:
        """Return what no error may show."""
        return tuple(filter(None, (self._secret.reveal(), self._session_key)))


class _Connector(connector.Connector):  # type: ignore[misc]  # sushy has no types
    """Sushy's way to send, but once: its own sends a power action again whose answer was lost, and sleeps in between.

    Nothing goes to another address than the BMC's, by no proxy and with no password of ~/.netrc.

    Attributes:
        task: where the last answer said that it goes on.
    """

    def __init__(self, address: str, verify: str | bool, logins: _Auth) -> None:  # noqa: FBT001  as requests has it
        super().__init__(address)  # not verify: sushy would silence urllib3 for the whole process
        self._verify = verify
        self._session.trust_env = False
        self._logins = logins
        self._hidden: tuple[str, ...] = ()
        self.task: str | None = None

    @contextlib.contextmanager
    def hiding(self, *secrets: str | None) -> Iterator[None]:
        """Keep something out of errors."""
        self._hidden = tuple(filter(None, secrets))
        try:
            yield
        finally:
            self._hidden = ()

    def end(self, session: str) -> None:
        """Delete a session, without a login if it is no longer one."""
        self._op("DELETE", _here(session), allow_reauth=False)

    def _op(  # as the one of sushy; what it has more is not asked for
        self,
        method: str,
        path: str = "",
        data: Untyped = None,
        headers: Mapping[str, str] | None = None,
        *,
        allow_reauth: bool = True,
        **_: Untyped,
    ) -> Untyped:
        url = self._target(path)
        answer = self._sent(method, url, data, headers)
        if answer.status_code == 401 and allow_reauth and self._logins.get_session_key() is not None:
            self._logins.authenticate()  # the session has expired, and nothing was executed
            answer = self._sent(method, url, data, headers)
        if method == "GET" and answer.is_redirect:  # the same with or without a slash, or by another name
            url = self._target(answer.headers["Location"])
            answer = self._sent(method, url, data, headers)
        if answer.status_code >= 300:
            self._refuse(method, url, answer)
        if method == "GET" and answer.content and not isinstance(_loaded(answer.content), Mapping):
            raise Broken(f"the BMC at {self._url} answers no JSON object")
        if answer.status_code == 202:
            self.task = _here(answer.headers.get("Location", "")) or None
        return answer

    def _target(self, path: str) -> str:
        url = urljoin(f"{self._url}/", path)
        if urlsplit(url)[:2] != urlsplit(self._url)[:2]:
            raise Stopped(Conflict, f"the BMC at {self._url} sends us to another address, where we do not go")
        return url

    def _sent(self, method: str, url: str, data: Untyped, headers: Mapping[str, str] | None) -> Untyped:
        own = {"Accept": "application/json", "Accept-Encoding": "identity", "OData-Version": "4.0"}
        failure: Exception
        try:
            return self._session.request(
                method,
                url,
                json=data,
                headers={**own, **(headers or {})},
                timeout=_TIMEOUT,
                verify=self._verify,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as exc:
            failure = Untrusted(_tls_problem(self._url, exc))
        except requests.exceptions.ConnectTimeout:
            failure = NeverSent(f"the BMC at {self._url} cannot be reached", timeout=True)
        except requests.exceptions.Timeout:
            failure = Broken(f"the BMC at {self._url} did not answer in time", timeout=True)
        except requests.exceptions.ConnectionError as exc:
            cause = getattr(exc.args[0] if exc.args else None, "reason", None)
            new = isinstance(cause, urllib3.exceptions.NewConnectionError)
            made = f"the BMC at {self._url} cannot be reached" if new else f"the BMC at {self._url} broke off"
            failure = NeverSent(made) if new else Broken(made)
        except requests.exceptions.RequestException as exc:
            failure = Broken(f"the BMC at {self._url} did not answer whole ({type(exc).__name__})")
        raise failure  # not from theirs, which hold the request and so the password

    def _refuse(self, method: str, url: str, answer: Untyped) -> None:
        """Raise sushy's error, with nothing in it that is secret, and nothing that it cannot read."""
        shown = SimpleNamespace(status_code=max(answer.status_code, 400), json=lambda: self._said(answer))
        try:
            exceptions.raise_for_response(method, url, shown)
        except exceptions.HTTPError as exc:
            exc.address = self._url
            exc.status_code = answer.status_code
            exc.retry_after = retry_after(answer.headers.get("Retry-After"))
            raise

    def _said(self, answer: Untyped) -> Untyped:
        text = answer.content.decode(errors="replace")
        for secret in (*self._logins.secrets(), *self._hidden):
            text = text.replace(json.dumps(secret)[1:-1], "***").replace(secret, "***")
        error = _table(_loaded(text), "error")
        more = error.get("@Message.ExtendedInfo")
        known = [each for each in (more if isinstance(more, list) else [more]) if isinstance(each, Mapping)]
        words = {name: str(error.get(name) or "") for name in ("code", "message")}
        return {"error": {**words, "@Message.ExtendedInfo": known or None}}


def _secret_parts(url: str) -> tuple[str, ...]:
    """Return what of a URL an error may quote: all, what follows the server's name, and the signature alone."""
    _, _, target = url.partition("://")[2].partition("/")
    return url, f"/{target}" if target else "", urlsplit(url).query


class _Drive(virtual_media.VirtualMedia):  # type: ignore[misc]  # sushy has no types
    """A virtual drive, of which sushy does not log what lies in it: its URL may bear a signature."""

    _log_resource_body = False


class _Drives(virtual_media.VirtualMediaCollection):  # type: ignore[misc]  # sushy has no types
    """The virtual drives of a system or a manager."""

    @property
    def _resource_type(self) -> type[_Drive]:
        return _Drive

    @classmethod
    def of(cls, owner: Untyped) -> Untyped:
        """Return the collection; it is missing where the BMC has none."""
        path = utils.get_sub_resource_path_by(owner, "VirtualMedia")
        return cls(owner._conn, path, redfish_version=owner.redfish_version, root=owner.root)  # noqa: SLF001  as sushy


def _loaded(content: bytes | str) -> Untyped:
    """Return the JSON of an answer; ``None`` if it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def _emptied(drive: Untyped) -> None:
    """Take out what is in a drive, and see that it is out: sushy passes over most refusals."""
    if drive.inserted:
        drive.eject_media()
        drive.refresh(force=True)
        if drive.inserted:
            raise Stopped(Unavailable, "the BMC has not ejected what is in its virtual drive")


def _here(location: str) -> str:
    """Return what a BMC calls a place of its own, without its address: that is often one that only it can see."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _tls_problem(address: str, exc: Exception) -> str:
    found = _CERTIFICATE.search(str(exc))
    why = found[1].strip() if found else "there is no TLS with it"
    return f"the BMC at {address} does not prove who it is: {why}; ca_bundle names the certificates to trust"


def _drives(system: Untyped) -> list[Untyped]:
    """Return the virtual drives that take discs: of the system itself, else of its managers, where they were before."""
    owners: tuple[Callable[[], Untyped], ...] = (lambda: [system], lambda: system.managers)
    for each in owners:
        with contextlib.suppress(exceptions.MissingAttributeError):
            found = [drive for owner in each() for drive in _Drives.of(owner).get_members()]
            if discs := [drive for drive in found if _DISCS & set(drive.media_types or ())]:
                return discs
    return []


def _table(told: Untyped, name: str) -> Mapping[str, Untyped]:
    found = told.get(name) if isinstance(told, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _whole(value: Untyped) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 else None
