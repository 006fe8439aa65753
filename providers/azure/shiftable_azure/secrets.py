"""Secrets in Azure Key Vault."""

from __future__ import annotations

import re
import string
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import attrs
from azure.core import exceptions as native
from azure.keyvault.secrets import DeletedSecret

from shiftable.errors import Fault, NotFound, Timeout
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretVersion,
    Stage,
)
from shiftable.secrets.names import NAME_LABEL, NameMap
from shiftable.tokens import Token
from shiftable.waiting import wait_until
from shiftable_azure._features import SECRETS
from shiftable_azure._vault import VaultRetries
from shiftable_azure._versions import (
    ENCODING_TAG,
    RESERVED,
    STATE_TAG,
    Record,
    Version,
    deleted_at,
    in_order,
    kept_as,
    micros,
)
from shiftable_azure.errors import VaultFailure, classify_vault

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient, SecretProperties

    from shiftable_azure._vault import VaultSession

__all__ = ["KeyVaultDriver"]

T = TypeVar("T")

_TAGS = "Azure Key Vault, about secrets: tags"
_NAMESPACE = uuid.UUID("b31c9f0e-5f0c-5b39-9c3a-3a6f5f1f2d90")  # of idempotency keys; never to be changed
_NAMES = NameMap("--", string.ascii_letters + string.digits + "-", longest=127, folds=True, beside=("pending",))
_ID = re.compile(r"[0-9a-f]{32}")
_PAGE = 25
_MOST_TAGS = 15
_TAG = 512
_ATTEMPTS = 4
_SETTLING = timedelta(minutes=2)
_QUICK = timedelta(milliseconds=100)
_LONGEST = timedelta(seconds=3)
_NEVER = datetime.min.replace(tzinfo=UTC)


@attrs.frozen
class _State:
    """A living secret: its latest version, and the stages that Key Vault does not know."""

    latest: Version
    previous: str | None
    pending: str | None

    @property
    def token(self) -> Token:
        return _token(self.latest.id, self.latest.record)

    def stages_of(self, version: str) -> frozenset[Stage]:
        stages: dict[Stage, str | None] = {
            "current": self.latest.logical, "previous": self.previous, "pending": self.pending
        }  # fmt: skip
        return frozenset(stage for stage, id_ in stages.items() if id_ == version)


@attrs.frozen(kw_only=True)
class _Write:
    """A new version in Key Vault's words."""

    native: str
    text: Masked
    tags: Mapping[str, str]
    record: Record
    expires: datetime | None = None
    content_type: str | None = None


@attrs.define(eq=False)
class KeyVaultDriver(SecretsDriver):
    """Secrets in Azure Key Vault, through azure-keyvault-secrets.

    Credentials and permissions are those of ``AzureProvider``.

    * A name's slashes become two hyphens; what Key Vault could not tell back is escaped, with the name in a tag.
    * The current version is the latest, which is what every other reader gets. To make an older one current its value
      is set again: Key Vault counts that as another version, shiftable as the same one.
    * A pending version is a version of a second secret, ``NAME---pending``, since a later version would be current for
      other readers. What is previous and what is pending stands in a tag of the latest version, so that all stages
      move in the one write that makes a version current.
    * Labels are the tags, the expiry is ``exp``. Both belong to a version in Key Vault, and are carried on to the next.
      A version that another tool sets has its own tags, or none.
    * Bytes that are no text are kept as base64 under the tag ``file-encoding``, as the Azure CLI does with files.
    * Key Vault has no conditional writes: ``if_absent``, ``if_match`` and idempotency keys are looked at before the
      write, so two writers in the same moment can both win.
    * Recovery lasts as long as the vault says. A longer one is refused, as is deletion for good under purge protection.
    """

    _session: VaultSession

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "azure"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do."""
        return SECRETS

    @property
    def client(self) -> SecretClient:
        """The client that does the work."""
        return self._session.client

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify_vault(exc)

    def check_secret(self, name: str) -> str | None:
        """Apply the rules for names."""
        return super().check_secret(name) or _NAMES.refusal(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Apply the rules for tags."""
        seen: dict[str, str] = {}
        for name, value in labels.items():
            if name.lower() in RESERVED:
                return f"the label {name!r} is reserved"
            if len(name) > _TAG or len(value) > _TAG:
                return f"the label {name!r} or its value is longer than {_TAG} characters ({_TAGS})"
            twin = seen.setdefault(name.lower(), name)
            if twin != name:
                return f"Azure compares names of tags without their case: {twin!r} and {name!r} would be one"
        return super().check_labels(labels)

    # prefixes

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version. The current one takes one call, any other two or three."""
        state = self._living(name)
        if stage == "current" or version in {state.latest.id, state.latest.logical}:
            if not state.latest.enabled:
                _fail("SecretDisabled", "the version is disabled")
            return self._secret(name, state, state.latest)
        state = self._whole(name, state)
        wanted = {"previous": state.previous, "pending": state.pending, None: version}[stage]
        if wanted is None:
            _fail("SecretNotFound", f"the secret has no {stage} version")
        return self._secret(name, state, self._version(name, wanted))

    def put(
        self,
        name: str,
        value: Masked,
        *,
        stage: Literal["current", "pending"],
        if_absent: bool,
        if_match: Token | None,
        labels: Mapping[str, str] | None,
        expires: datetime | None,
        idempotency_key: str | None,
    ) -> Secret:
        """Store a new version, after a look at the one before: its labels, expiry and stages are carried on."""
        state = self._state(name)
        write = uuid.uuid4().hex if idempotency_key is None else uuid.uuid5(_NAMESPACE, idempotency_key).hex
        if state is not None:
            self._check_writable(name, state)
            state = self._whole(name, state)
            if idempotency_key is not None:
                earlier, done = self._written(name, write, value)
                if earlier is not None:
                    if done:
                        return self._secret(name, state, earlier)
                    return self._note(name, state, earlier, labels=labels, expires=expires)
            if if_absent:
                _fail("PreconditionFailed", "the secret exists")
        if if_match is not None and (state is None or state.token != if_match):
            _fail("PreconditionFailed", "the secret was changed, or does not exist")
        if stage == "pending":
            if state is None:
                _fail("SecretNotFound", "there is no such secret; store a current version first")
            made = self._set(name, value, record=Record(made=micros(state.latest), write=write), place=_beside(name))
            if idempotency_key is not None:
                made = self._first(name, made, write, value)
            return self._note(name, state, made, labels=labels, expires=expires, if_match=if_match)
        latest = state.latest if state else None
        made = self._set(
            name,
            value,
            record=Record(
                previous=latest.logical if latest else None,
                pending=state.pending if state else None,
                made=micros(latest),
                write=write,
            ),
            labels=latest.labels if latest and labels is None else labels,
            expires=latest.expires if latest and expires is None else expires,
            content_type=latest.content_type if latest and latest.encoding == kept_as(value)[1] else None,
        )
        return self._secret(name, _stages(made), made)

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets. Key Vault knows no prefixes, so they are looked at here."""
        size = min(limit, _PAGE) if limit is not None and not prefix else _PAGE
        listing: Any = self.client.list_deleted_secrets if deleted else self.client.list_properties_of_secrets
        pages = listing(max_page_size=size).by_page(continuation_token=cursor)
        found = (_info(item) for item in next(pages, ()) if not _NAMES.is_aside(_native_of(item)))
        return Page(tuple(info for info in found if info.name.startswith(prefix)), pages.continuation_token or None)

    def history(
        self,
        name: str,
        *,
        cursor: str | None,  # noqa: ARG002  one page holds all
        limit: int | None,  # noqa: ARG002
    ) -> Page[SecretVersion]:
        """Return all versions in one page: Key Vault lists them in the order of their ids, which are random.

        Values are not asked for, except where several versions were set within the latest second.
        """
        main = self._versions(_main(name))
        if not main:
            _fail("SecretNotFound", "there is no such secret")
        latest = self._latest_of(name, main)
        self._check_identity(name, latest)
        state = self._inherited(_stages(latest), main) if latest.record is None else _stages(latest)
        items: dict[str, SecretVersion] = {}
        for found in in_order([*main, *self._noted(name, main)], latest.id):
            current = found.logical == latest.logical
            items.setdefault(
                found.logical,
                SecretVersion(
                    name=name,
                    version=found.logical,
                    stages=state.stages_of(found.logical),
                    created=found.created,
                    enabled=latest.enabled if current else found.enabled,
                ),
            )
        return Page(tuple(reversed(items.values())))

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Set the value of that version again, as the latest one."""
        state = self._living(name)
        if version in {state.latest.id, state.latest.logical}:
            return
        self._check_writable(name, state)
        if if_match is not None and state.token != if_match:
            _fail("PreconditionFailed", "the secret was changed")
        found, state = self._version(name, version), self._whole(name, state)
        self._again(name, state, found, previous=state.latest.logical, expires=state.latest.expires)

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete a secret and what lies beside it, and wait until that is done."""
        state = self._state(name)
        if state is not None:
            self._check_writable(name, state)
            self._check_deletable(state.latest, recovery)
        elif recovery is not None or not self._is_deleted(_main(name)):
            _fail("SecretNotFound", "there is no such secret")
        for each in (_beside(name), _main(name)):
            if self._delete(each) and recovery is None:
                self._purge(each)

    def disable(self, name: str, version: str) -> None:
        """Disable a version wherever its value was set."""
        state = self._living(name)
        self._check_writable(name, state)
        main = self._versions(_main(name))
        places = [(_main(name), found) for found in main]
        places += [(_beside(name), found) for found in self._aside(name, main)]
        places = [(place, found) for place, found in places if version in {found.id, found.logical}]
        if not places:
            _fail("SecretNotFound", "no such version")
        for place, found in places:
            if found.enabled:
                self.client.update_secret_properties(place, found.id, enabled=False)

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change tags and ``exp`` of the latest version.

        Key Vault cannot take an ``exp`` away, only set a version without: the value is set again then.
        """
        state = self._living(name)
        self._check_writable(name, state)
        if if_match is not None and state.token != if_match:
            _fail("PreconditionFailed", "the secret was changed")
        labels = state.latest.labels if labels is None else labels
        if expires == "never" and state.latest.expires is not None:
            if not state.latest.enabled:
                _fail("SecretDisabled", "its latest version is disabled, and its expiry cannot be taken away")
            state = self._whole(name, state)
            self._again(name, state, state.latest, previous=state.previous, expires=None, labels=labels)
            return
        tags = _tags(name, labels, state.latest.record, state.latest.encoding)
        until = None if expires == "never" else expires
        self.client.update_secret_properties(_main(name), state.latest.id, tags=tags, expires_on=until)

    def restore(self, name: str) -> None:
        """Bring back a deleted secret, and what lay beside it."""
        if self._state(name) is None and not self._recover(_main(name)):
            _fail("SecretNotFound", "there is no such secret, or its recovery is over")
        self._recover(_beside(name))

    # reading

    def _state(self, name: str) -> _State | None:
        """Return a living secret, with the stages that its latest version tells; ``None`` if there is none."""
        latest = self._latest(_main(name))
        if latest is None:
            return None
        self._check_identity(name, latest)
        return _stages(latest)

    def _living(self, name: str) -> _State:
        state = self._state(name)
        if state is None:
            _fail("SecretNotFound", "there is no such secret")
        return state

    def _whole(self, name: str, state: _State) -> _State:
        """Return the state with all stages, also where another tool wrote the latest version."""
        if state.latest.record is not None:
            return state
        return self._inherited(state, self._versions(_main(name)))

    def _inherited(self, state: _State, known: Sequence[Version]) -> _State:
        """Take over the stages from before another tool wrote."""
        before = [found for found in in_order(known, state.latest.id) if found.logical != state.latest.logical]
        records = [found.record for found in before if found.record is not None]
        pending = records[-1].pending if records else None
        promoted = pending in {found.logical for found in known}
        return _State(state.latest, before[-1].logical if before else None, None if promoted else pending)

    def _check_identity(self, name: str, latest: Version) -> None:
        """Refuse a secret of another name. Without a tag the name is believed: it leads here, and to nowhere else."""
        kept = latest.tags.get(NAME_LABEL)
        if kept is not None and _NAMES.name(_main(name), kept) != name:
            _fail("Conflict", f"the id {_main(name)!r} belongs to the secret {kept!r}")

    def _latest_of(self, name: str, main: Sequence[Version]) -> Version:
        """Return which of all versions is the latest; Key Vault is asked where the last second does not tell."""
        newest = max(found.set_at or _NEVER for found in main)
        candidates = [found for found in main if (found.set_at or _NEVER) == newest]
        if len(candidates) > 1:
            latest = self._latest(_main(name))
            candidates = [found for found in candidates if latest is None or found.id == latest.id] or candidates
        return in_order(candidates)[-1]

    def _latest(self, place: str) -> Version | None:
        """Return the latest version of a secret in Key Vault's sense, with its value unless it is disabled."""
        try:
            found = self.client.get_secret(place)
        except native.HttpResponseError as exc:
            if _code(exc) == "SecretDisabled":
                return next(reversed(in_order(self._versions(place))), None)
            if _is_missing(exc):
                return None
            raise
        return Version.read(found.properties, Masked(found.value or ""))

    def _value(self, place: str, version: str) -> Version | None:
        """Return a version with its value; ``None`` if there is no such version or secret."""
        found = _unless_missing(lambda: self.client.get_secret(place, version))
        return None if found is None else Version.read(found.properties, Masked(found.value or ""))

    def _version(self, name: str, version: str) -> Version:
        """Return a version of the secret, by the id that users know, wherever its value is."""
        if not _ID.fullmatch(version):
            _fail("SecretNotFound", "no such version")
        found = self._value(_main(name), version) or self._value(_beside(name), version)
        if found is None:  # what lay beside is gone
            copies = [copy for copy in in_order(self._versions(_main(name))) if copy.logical == version]
            found = self._value(_main(name), copies[-1].id) if copies else None
        if found is None:
            _fail("SecretNotFound", "no such version")
        return found

    def _versions(self, place: str) -> tuple[Version, ...]:
        """Return all versions of a secret without their values; none, where there is no secret."""
        listed: Iterator[SecretProperties] = self.client.list_properties_of_secret_versions(place, max_page_size=_PAGE)
        return _unless_missing(lambda: tuple(Version.read(properties) for properties in listed)) or ()

    def _aside(self, name: str, main: Sequence[Version]) -> tuple[Version, ...]:
        """Return what lies beside, but for what is left of an earlier secret of that name."""
        began = min((found.set_at for found in main if found.set_at), default=_NEVER)
        return tuple(found for found in self._versions(_beside(name)) if (found.set_at or _NEVER) >= began)

    def _noted(self, name: str, main: Sequence[Version]) -> tuple[Version, ...]:
        """Return what lies beside if anything was ever pending; the last one may be of a write that was cut short."""
        records = [found.record for found in main if found.record is not None]
        if not any(record.pending or record.of for record in records):
            return ()
        beside = in_order(self._aside(name, main))
        return tuple(beside if not beside or _is_noted(beside[-1], main) else beside[:-1])

    def _secret(self, name: str, state: _State, found: Version) -> Secret:
        return Secret(
            name=name,
            value=found.value(),
            version=found.logical,
            stages=state.stages_of(found.logical),
            token=state.token,
            created=found.created,
            labels=state.latest.labels,
            expires=state.latest.expires,
        )

    # writing

    def _check_writable(self, name: str, state: _State) -> None:
        if state.latest.managed:
            _fail("Conflict", f"it belongs to the certificate {_main(name)!r}; change that one instead")

    def _written(self, name: str, write: str, value: Masked) -> tuple[Version | None, bool]:
        """Return what an earlier write of that mark has left, and whether it was carried through."""
        main = self._versions(_main(name))
        beside = in_order(self._aside(name, main))
        places = [(_main(name), found) for found in main] + [(_beside(name), found) for found in beside]
        for place, found in places:
            if found.record is None or found.record.write != write:
                continue
            kept = self._value(place, found.id)
            if kept is None:
                continue
            if kept.value().reveal_bytes() != value.reveal_bytes():
                _fail("Conflict", "the idempotency key was used with another value")
            return kept, found in main or found != beside[-1] or _is_noted(found, main)
        return None, False

    def _first(self, name: str, made: Version, write: str, value: Masked) -> Version:
        """Of several that stored a version beside under one mark at once, take the first, as all of them do."""
        beside = self._aside(name, self._versions(_main(name)))
        first = next((found for found in in_order(beside) if found.record and found.record.write == write), made)
        if first.id == made.id:
            return made
        kept = self._value(_beside(name), first.id)
        if kept is None or kept.value().reveal_bytes() != value.reveal_bytes():
            _fail("Conflict", "another writer has used the idempotency key with another value, just now")
        return kept

    def _note(
        self,
        name: str,
        state: _State,
        made: Version,
        *,
        labels: Mapping[str, str] | None = None,
        expires: datetime | None = None,
        if_match: Token | None = None,
    ) -> Secret:
        """Note what lies beside as pending, at the latest version, or at the one that came since."""
        for _ in range(_ATTEMPTS):
            if if_match is not None and self._living(name).token != if_match:
                _fail("PreconditionFailed", "the secret was changed meanwhile")
            latest = state.latest
            record = attrs.evolve(latest.record or Record(), previous=state.previous, pending=made.id)
            tags = _tags(name, latest.labels if labels is None else labels, record, latest.encoding)
            self.client.update_secret_properties(_main(name), latest.id, tags=tags, expires_on=expires)
            state = self._whole(name, self._living(name))
            if state.pending == made.id:
                return self._secret(name, state, made)
        raise VaultFailure("Conflict", "the secret changes faster than a pending version can be noted")

    def _again(
        self,
        name: str,
        state: _State,
        found: Version,
        *,
        previous: str | None,
        expires: datetime | None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Set the value of a version again, so that it is the latest, and still the same version to users."""
        created = found.created
        self._set(
            name,
            found.text or Masked(""),
            record=Record(
                of=found.logical,
                born=int(created.timestamp()) if created else None,
                previous=previous,
                pending=None if state.pending == found.logical else state.pending,
                made=micros(state.latest),
                write=uuid.uuid4().hex,
            ),
            labels=state.latest.labels if labels is None else labels,
            expires=expires,
            content_type=found.content_type,
            encoding=found.encoding,
        )

    def _set(
        self,
        name: str,
        value: Masked,
        *,
        record: Record,
        place: str | None = None,
        labels: Mapping[str, str] | None = None,
        expires: datetime | None = None,
        content_type: str | None = None,
        encoding: str | None = None,
    ) -> Version:
        """Make a new version; look for it before it is tried again, as each try would make another."""
        text, own = kept_as(value)
        limit = SECRETS.max_value
        if len(text.reveal_bytes()) > limit.value:
            _fail("BadParameter", f"as base64 the value has more than {limit} bytes, the limit ({limit.source})")
        tags = _tags(name, labels or {}, record, encoding or own)
        if len(tags) > _MOST_TAGS:
            _fail("BadParameter", f"another tool gave it so many tags that there would be more than {_MOST_TAGS}")
        write = _Write(
            native=place or _main(name),
            text=text,
            tags=tags,
            record=record,
            expires=expires,
            content_type=content_type,
        )
        retries = VaultRetries(self._session.attempts)
        for attempt in range(1, self._session.attempts + 1):
            try:
                return self._send(write)
            except native.AzureError as exc:
                _forget_frames(exc)
                if not _is_doubtful(exc):
                    raise
                for found in self._versions(write.native):
                    if found.record is not None and found.record.write == record.write:
                        return attrs.evolve(found, text=text)
                if attempt == self._session.attempts:
                    raise
            time.sleep(retries.pause(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _send(self, write: _Write) -> Version:
        """Send a new version, once; a name that is being given up by a deletion is waited for."""

        def sent() -> Version | None:
            try:
                made = self.client.set_secret(
                    write.native,
                    write.text.reveal(),
                    tags=dict(write.tags),
                    expires_on=write.expires,
                    content_type=write.content_type,
                )
            except native.HttpResponseError as exc:
                if _is_settling(exc):
                    return None
                if _NAMES.is_aside(write.native) and _code(exc) == "ObjectIsDeletedButRecoverable":
                    self._recover(write.native)  # left behind by a restoration that was cut short
                    return None
                raise
            return Version.read(made.properties, write.text)

        return _settled(sent, f"the name {write.native!r} to be free")

    # deleting

    def _check_deletable(self, latest: Version, recovery: timedelta | None) -> None:
        soft = latest.days > 0 or "Recoverable" in latest.level
        if recovery is None:
            if soft and "Purgeable" not in latest.level:
                _fail("Conflict", "the vault has purge protection, so nothing is deleted for good; give a recovery")
        elif not soft:
            _fail("NotSupported", "the vault has no soft delete, so nothing can be restored; purge it")
        elif latest.days and recovery > timedelta(days=latest.days):
            _fail("BadParameter", f"the vault keeps deleted secrets for {latest.days} days; recovery may not be longer")

    def _delete(self, place: str) -> bool:
        """Delete what is there, and wait until it can be restored or purged; tell whether it may have to be purged."""
        poller = _unless_missing(lambda: self.client.begin_delete_secret(place))
        if poller is None:  # there is none, or it is deleted, perhaps by the first of two tries
            return True
        if poller.result().recovery_id is None:
            return False
        _settled(lambda: self._is_deleted(place) or None, f"the deletion of {place!r}")
        return True

    def _purge(self, place: str) -> None:
        """Purge what is deleted, and wait until it is gone."""
        try:
            _unless_missing(lambda: self.client.purge_deleted_secret(place))
        except native.HttpResponseError as exc:
            if exc.status_code != 403:
                raise
            fault = classify_vault(exc)
            why = fault.message if fault else ""
            raise VaultFailure("Forbidden", f"it is deleted, and can be restored, but not purged: {why}") from exc
        _settled(lambda: not self._is_deleted(place) or None, f"the purge of {place!r}")

    def _recover(self, place: str) -> bool:
        """Recover what is deleted, and wait until it can be read; tell whether there was anything."""
        try:
            self.client.begin_recover_deleted_secret(place)
        except native.HttpResponseError as exc:
            if _is_missing(exc):
                return self._latest(place) is not None  # the first of two tries did it, or there was nothing
            raise
        _settled(lambda: self._latest(place), f"the recovery of {place!r}")
        return True

    def _is_deleted(self, place: str) -> bool:
        return _unless_missing(lambda: self.client.get_deleted_secret(place)) is not None


def _main(name: str) -> str:
    return _NAMES.native(name)


def _beside(name: str) -> str:
    return _NAMES.aside(_NAMES.native(name), "pending")


def _stages(latest: Version) -> _State:
    """Return the stages that a latest version tells."""
    record = latest.record or Record()
    return _State(latest, record.previous, record.pending)


def _is_noted(found: Version, main: Iterable[Version]) -> bool:
    """Tell whether what lies beside is or was pending: that any version says so, or holds its value."""
    records = [version.record for version in main if version.record is not None]
    return any(found.id in {record.pending, record.of} for record in records)


def _token(version: str, record: Record | None) -> Token:
    return Token(f"{version}.{record.pending or ''}" if record else f"{version}.")


def _tags(name: str, labels: Mapping[str, str], record: Record | None, encoding: str | None) -> dict[str, str]:
    original = _NAMES.original(name)
    return {
        **labels,
        **({} if record is None else {STATE_TAG: str(record)}),
        **({} if original is None else {NAME_LABEL: original}),
        **({} if encoding is None else {ENCODING_TAG: encoding}),
    }


def _native_of(item: SecretProperties | DeletedSecret) -> str:
    return item.name or ""


def _info(item: SecretProperties | DeletedSecret) -> SecretInfo:
    properties = item.properties if isinstance(item, DeletedSecret) else item
    found = Version.read(properties)
    return SecretInfo(
        name=_NAMES.name(_native_of(item), found.tags.get(NAME_LABEL)),
        version=None,
        modified=found.modified,
        labels=found.labels,
        expires=found.expires,
        deleted=deleted_at(item) if isinstance(item, DeletedSecret) else None,
    )


def _is_doubtful(exc: native.AzureError) -> bool:
    """Tell whether a write may have happened although it failed."""
    if isinstance(exc, native.HttpResponseError):
        return isinstance(exc, native.DecodeError) or (exc.status_code or 0) >= 500
    return isinstance(exc, native.ServiceRequestError | native.ServiceResponseError)


def _forget_frames(exc: BaseException | None) -> None:
    """Take away the frames that an error came through: they hold the value."""
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def _settled(probe: Callable[[], T | None], what: str) -> T:
    """Wait for what Key Vault does in the background, and return what the probe found."""
    try:
        return wait_until(probe, what=what, timeout=_SETTLING, interval=_QUICK, longest=_LONGEST)
    except Timeout as exc:
        raise VaultFailure("RequestTimeout", exc.message) from None


def _unless_missing(call: Callable[[], T]) -> T | None:
    """Return what a call answers; ``None`` if there is no such secret or version."""
    try:
        return call()
    except native.HttpResponseError as exc:
        if not _is_missing(exc):
            raise
    return None


def _is_missing(exc: native.HttpResponseError) -> bool:
    """Tell whether a secret is missing, and not the vault."""
    fault = classify_vault(exc)
    return fault is not None and fault.error is NotFound


def _code(exc: native.HttpResponseError) -> str:
    fault = classify_vault(exc)
    return fault.code if fault else ""


def _is_settling(exc: native.HttpResponseError) -> bool:
    """Tell whether a name is taken only until a deletion, purge or recovery that is under way ends."""
    return exc.status_code == 409 and (_code(exc).startswith("ObjectIsBeing") or "currently being" in str(exc))


def _fail(code: str, message: str) -> NoReturn:
    raise VaultFailure(code, message)
