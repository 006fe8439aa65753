"""Secrets on a HashiCorp Vault or OpenBao server: the KV engine of version 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, NoReturn

import attrs

from shiftable.errors import (
    ConfigError,
    Conflict,
    Fault,
    NotFound,
    OperationError,
    PreconditionFailed,
)
from shiftable.features import Limit
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
from shiftable.tokens import Token
from shiftable_baremetal._vault_layout import (
    MARK,
    OWN,
    SUFFIX,
    CasMismatch,
    Document,
    Mark,
    Meta,
    Refusal,
    Track,
    digest,
    fields_of,
    marked,
    moment,
    ranges,
    unranged,
)
from shiftable_baremetal._vault_state import (
    DELETED,
    DISABLED,
    NONE,
    PENDING,
    About,
    State,
    announced,
    changed,
    expires_of,
    info_of,
    is_deletion,
    labels_of,
    settled,
    token_of,
)

if TYPE_CHECKING:
    from shiftable_baremetal import VaultSettings
    from shiftable_baremetal._vault_engine import KvEngine
    from shiftable_baremetal._vault_session import VaultSession

__all__ = ["FEATURES", "VaultDriver", "open_vault"]

_KV = "Vault and OpenBao, KV version 2"

FEATURES = SecretsFeatures(
    title="Vault, OpenBao",
    binary=True,
    labels=True,
    expiry=True,
    if_absent=True,
    if_match=True,
    atomic_if_match=True,
    pending=True,
    history=True,
    disable=True,
    recovery=True,
    update=True,
    destroy=True,
    max_name=Limit(512, "chosen, as AWS Secrets Manager; a server's storage may take less"),
    max_value=Limit(262_144, "Vault limits: an entry of 512 KiB on Consul, less base64 or escapes"),
    max_labels=Limit(59, f"{_KV}: 64 custom metadata, less the five of this driver"),
    max_versions=Limit(10, f"{_KV}: max_versions of the mount, 10 by default; a promotion counts as one, too"),
)

_LONGEST_LABEL, _LONGEST_LABEL_VALUE = 128, 512
_PAGE = 100
_ATTEMPTS = 12


def open_vault(settings: VaultSettings) -> VaultDriver:
    """Make the driver for a Vault or OpenBao server. Calls nobody.

    Raises:
        ConfigError: hvac is not installed; the settings are wrong.
    """
    if settings.auth == "kubernetes" and not settings.role:
        raise ConfigError("vault.role is missing: auth = 'kubernetes' needs it")
    try:
        from shiftable_baremetal._vault_engine import KvEngine
        from shiftable_baremetal._vault_session import VaultSession
    except ImportError as exc:
        raise ConfigError(f'vault needs hvac: pip install "shiftable-baremetal[vault]" ({exc})') from exc
    session = VaultSession(settings)
    return VaultDriver(session, KvEngine(session))


@attrs.define(eq=False)
class VaultDriver(SecretsDriver):
    """Secrets in a KV engine of version 2 of HashiCorp Vault or OpenBao, through hvac.

    The secret ``shop/key`` is the path ``shop/key`` below the mount; its value is the field ``value``. Bytes are
    base64 there, beside ``encoding = "base64"``. What another tool stored with other fields is read as the text of a
    JSON object with all of them, names in order; ``put`` stores ``value`` and no other field.

    **What other tools see** is the current version, always: the newest of the engine is the current one. To promote an
    older one stores it again, with one more field, ``shiftable``, that says which it is. A pending version lies beside,
    at ``shop/key.shiftable-pending``, which no listing of ours shows. Labels are the custom metadata of the path; names
    that begin with ``shiftable-`` are this driver's own. Whoever replaces all custom metadata (``vault kv metadata
    put``) ends what is pending, and a promoted version counts as a new one until the next promotion.

    **Conditions** are the engine's check-and-set: every write has one, so ``if_absent`` and ``if_match`` are decided by
    the server. Two writers of the same moment, of which one stores a current and the other a pending version, are told
    apart by a read before the write only, as are changes of labels: metadata have no check-and-set.

    **Deleting** with a recovery deletes all versions as ``vault kv delete -versions=…`` does; ``restore`` undeletes
    them. It does not end by itself: Vault has no clock for that. A secret whose newest version another tool deleted is
    one that can be restored. ``disable`` deletes one version, and marks the current one as disabled, not deleted.

    **Versions** are those that the engine keeps, ten by default; each ``put`` and ``promote`` takes one.

    **Credentials**: ``[providers.x.vault]`` says how to log in: ``token`` (a reference, else ``VAULT_TOKEN``, else
    ``~/.vault-token``), ``approle``, ``jwt`` or ``kubernetes``. A token is renewed after two thirds of its life; where
    that fails, a login is made again. **Permissions**, for secrets below ``shop``::

        path "secret/data/shop/*"      { capabilities = ["create", "update", "read"] }
        path "secret/metadata/shop/*"  { capabilities = ["read", "list", "patch", "delete"] }
        path "secret/delete/shop/*"    { capabilities = ["update"] }
        path "secret/undelete/shop/*"  { capabilities = ["update"] }
        path "secret/destroy/shop/*"   { capabilities = ["update"] }

    Who only reads current values needs ``read`` on ``secret/data/shop/*``, and nothing else.

    It needs Vault 1.10 or OpenBao. It was tested on a double of the engine, and not on a live server.
    """

    _session: VaultSession
    _engine: KvEngine

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do: everything."""
        return FEATURES

    @property
    def session(self) -> VaultSession:
        """The login; its ``client`` is hvac's, for what only Vault has."""
        return self._session

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        from shiftable_baremetal._vault_session import classify

        return classify(exc)

    def check_name(self, name: str) -> str | None:
        """Say why no secret could have that prefix."""
        return super().check_name(name) or (self.check_secret(name) if name else None)

    def check_secret(self, name: str) -> str | None:
        """Say why a name would be no path, or another one than is written here."""
        if not name.isprintable():
            return "the name has a character that does not print, which the server refuses"
        for segment in name.split("/"):
            if segment in (".", ".."):
                return f"{segment!r} is no segment of a path"
            if segment != segment.strip():
                return f"the segment {segment!r} begins or ends with a space, which Vault's own client cuts"
            if segment.endswith(SUFFIX):
                return f"names that end in {SUFFIX} are for versions that are pending"
        if len(name.encode()) > self.features.max_name.value:
            return f"the name has {len(name.encode()):,} bytes; the limit is {self.features.max_name}"
        return super().check_secret(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Apply the rules for custom metadata."""
        for name, value in labels.items():
            if name.startswith(OWN):
                return f"the label {name!r} is reserved"
            if not value:
                return f"the label {name!r} has no value, which custom metadata must have"
            if not (name.isprintable() and value.isprintable()):
                return f"the label {name!r} has a character that does not print"
            if len(name.encode()) > _LONGEST_LABEL or len(value.encode()) > _LONGEST_LABEL_VALUE:
                return (
                    f"the label {name!r} has more than {_LONGEST_LABEL} bytes, or its value than {_LONGEST_LABEL_VALUE}"
                )
        return super().check_labels(labels)

    # prefixes

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:  # noqa: ARG002  one page holds all
        """Return the folders of the mount, in one page: Vault tells them in one answer."""
        return Page(tuple(entry[:-1] for entry in self._engine.entries("") if entry.endswith("/")))

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Return one version; the current one in one call, which only needs the permission to read data."""
        if stage == "current":
            return self._current(name)
        state = self._living(name)
        wanted = state.version(stage) if stage is not None else version
        if wanted is None or not state.known(wanted):
            _refuse(NotFound, f"it has no {stage} version" if stage else f"it has no version {version!r}")
        document = self._document(name, state, wanted)
        if document is None:
            _refuse(Conflict, f"its version {wanted} is disabled")
        return self._secret(name, state, wanted, document)

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
        """Store a new version, always with the engine's check-and-set; then the metadata that go with it."""
        key, about = digest(idempotency_key) if idempotency_key is not None else "", About(labels, expires)
        for attempt in range(_ATTEMPTS):
            state = self._state(name, beside=bool(key) or stage == "pending", whole=bool(key))
            if state is not None and state.is_deleted:
                _refuse(Conflict, "it is deleted and can be recovered; restore it, or purge it")
            known = state.keyed(key) if state is not None and key else None
            if state is not None and known is not None:
                return self._again(name, state, known, value)
            _check_put(state, stage, if_match, if_absent=if_absent)
            try:
                if stage == "pending" and state is not None:
                    return self._put_pending(name, value, state, key, about)
                return self._put_current(name, value, state, key, about)
            except CasMismatch:
                if if_match is not None and not key:
                    _refuse(PreconditionFailed, "the secret was changed")
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets, in the order of their names. Vault tells names only: one call more for each."""
        size = _PAGE if limit is None else min(limit, _PAGE)
        found: list[SecretInfo] = []
        for looked_at, name in enumerate(self._names(prefix, cursor), 1):
            meta = self._engine.meta(name)
            info = info_of(name, meta) if meta is not None else None
            if info is not None and (info.deleted is not None) is deleted:
                found.append(info)
            if len(found) == size or looked_at == _PAGE:
                return Page(tuple(found), name)
        return Page(tuple(found))

    def history(
        self,
        name: str,
        *,
        cursor: str | None,  # noqa: ARG002  one page holds all
        limit: int | None,  # noqa: ARG002
    ) -> Page[SecretVersion]:
        """Return all versions in one page: the engine tells them in one answer."""
        state = self._living(name)
        items = (
            SecretVersion(
                name=name,
                version=version,
                stages=state.stages_of(version),
                created=created,
                enabled=state.readable(version) is not None,
            )
            for version, created in state.history()
        )
        return Page(tuple(items))

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Store the version again as the newest, under check-and-set; then it is no longer pending."""
        for attempt in range(_ATTEMPTS):
            state = self._living(name, whole=True)
            if not state.known(version):
                _refuse(NotFound, f"it has no version {version!r}")
            if state.current == version:
                return
            if if_match is not None and state.token != if_match:
                _refuse(PreconditionFailed, "the secret was changed")
            document = self._document(name, state, version)
            if document is None:
                _refuse(Conflict, f"its version {version} is disabled")
            if MARK in document.content:
                _refuse(Conflict, f"its version {version} has a field {MARK!r} of its own, where the mark would stand")
            mark, before = Mark(version), state.main.meta.custom
            try:
                stored = self._store(name, document.content, state.main, mark)
            except CasMismatch:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            custom = _indexed(state.main, stored.number, mark)
            custom |= {PENDING: settled(version)} if before.get(PENDING) == version else {}
            custom |= {DELETED: None} if DELETED in before else {}
            self._annotate(name, custom)
            return

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Delete all versions so that they can be undeleted, or the path with everything."""
        if recovery is None:
            if self._engine.meta(name) is None:
                _refuse(NotFound, "there is no such secret")
            self._engine.erase(name + SUFFIX)
            self._engine.erase(name)
            return
        state = self._living(name, whole=True)
        numbers = [[number for number, each in track.meta.numbers.items() if each.readable] for track in state.tracks]
        self._remember(name, state)
        self._annotate(name, {DELETED: " ".join(map(ranges, numbers)) or NONE})
        for path, some in zip((name, name + SUFFIX), numbers, strict=False):
            self._engine.delete(path, some)

    def disable(self, name: str, version: str) -> None:
        """Delete a version wherever it is stored, so that ``vault kv undelete`` brings it back."""
        state = self._living(name, whole=True)
        self._end(name, state, version, self._engine.delete)

    def destroy_version(self, name: str, version: str) -> None:
        """Destroy a version wherever it is stored."""
        state = self._living(name, whole=True)
        if state.current == version:
            _refuse(Conflict, f"its version {version} is current; promote another one first")
        self._end(name, state, version, self._engine.destroy)

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change the custom metadata."""
        state = self._living(name)
        if if_match is not None and state.token != if_match:
            _refuse(PreconditionFailed, "the secret was changed")
        self._annotate(name, About(labels, expires).changes(state.main.meta.custom))

    def restore(self, name: str) -> None:
        """Undelete what the deletion deleted; of another tool's, the newest version."""
        state = self._state(name, beside=True)
        if state is None:
            _refuse(NotFound, "there is no such secret")
        if not state.is_deleted:
            return
        marker = state.main.meta.custom.get(DELETED)
        main, _, beside = (marker or str(state.newest)).partition(" ")
        self._engine.undelete(name + SUFFIX, unranged(beside))
        self._engine.undelete(name, unranged(main))
        self._annotate(name, {DELETED: None} if marker else {})

    # reading

    def _state(self, name: str, *, beside: bool = False, whole: bool = False) -> State | None:
        """Return what is known of a secret, also a deleted one; ``None`` if there is none.

        Args:
            beside: look for pending versions even if the metadata do not speak of any.
            whole: look for marks even if there is no index of them.
        """
        meta = self._engine.meta(name)
        if meta is None:
            return None
        main = Track.read(meta, lambda number: self._engine.read(name, number), whole=whole)
        if not beside and PENDING not in meta.custom:
            return State(main, None)
        path = name + SUFFIX
        other = self._engine.meta(path)
        if other is None:
            return State(main, None)
        return State(main, Track.read(other, lambda number: self._engine.read(path, number), letter="p", whole=whole))

    def _living(self, name: str, *, whole: bool = False) -> State:
        state = self._state(name, whole=whole)
        if state is None:
            _refuse(NotFound, "there is no such secret")
        if state.is_deleted:
            _refuse(NotFound, "the secret is deleted; it can still be restored")
        return state

    def _current(self, name: str) -> Secret:
        document = self._engine.read(name)
        if document is None:
            _refuse(NotFound, "there is no such secret")
        version = document.mark.version if document.mark else str(document.number)
        if document.fields is None:
            if is_deletion(document.custom, document.number, destroyed=document.destroyed):
                _refuse(NotFound, "the secret is deleted; it can still be restored")
            _refuse(Conflict, "its current version is disabled")
        return Secret(
            name=name,
            value=document.value,
            version=version,
            stages=frozenset({"current"}),
            token=token_of(document.number, document.created, document.custom),
            created=moment(document.created) if document.mark is None or version == str(document.number) else None,
            labels=labels_of(document.custom),
            expires=expires_of(document.custom),
        )

    def _document(self, name: str, state: State, version: str) -> Document | None:
        """Read a version; ``None`` if it cannot be read, also if it was deleted just now."""
        place = state.readable(version)
        if place is None:
            return None
        track, number = place
        document = self._engine.read(name + SUFFIX if track.letter else name, number)
        return document if document is not None and document.fields is not None else None

    def _secret(self, name: str, state: State, version: str, document: Document) -> Secret:
        return Secret(
            name=name,
            value=document.value,
            version=version,
            stages=state.stages_of(version),
            token=state.token,
            created=state.created(version),
            labels=labels_of(state.main.meta.custom),
            expires=expires_of(state.main.meta.custom),
        )

    def _names(self, prefix: str, after: str | None) -> Iterator[str]:
        """Yield the names that begin with a prefix, in order, from after one; pending ones are left out."""
        folder, _, _ = prefix.rpartition("/")
        if folder and self.check_secret(folder) is not None:
            return
        yield from self._below(f"{folder}/" if folder else "", prefix, after or "")

    def _below(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        for entry in self._engine.entries(folder.rstrip("/")):
            name = folder + entry
            if name.endswith("/"):
                inside = name.startswith(prefix) or prefix.startswith(name)
                if inside and (name > after or after.startswith(name)):
                    yield from self._below(name, prefix, after)
            elif name.startswith(prefix) and name > after and not name.endswith(SUFFIX):
                yield name

    # writing

    def _put_current(self, name: str, value: Masked, state: State | None, key: str, about: About) -> Secret:
        newest = state.newest if state is not None else 0
        track = state.main if state is not None else None
        mark = Mark(str(newest + 1), key) if key else None
        stored = self._store(name, fields_of(value), track, mark)
        before = track.meta.custom if track is not None else stored.custom
        custom = {**about.changes(before), **_indexed(track, stored.number, mark)}
        if state is not None:
            custom |= {DELETED: None} if DELETED in before else {}
            if state.named is not None and state.pending is None:
                custom[PENDING] = settled(state.named)  # it was promoted, and the one who did it did not get here
        self._annotate(name, custom)
        after = changed(before, custom)
        token = token_of(stored.number, stored.created, after)
        return _answer(name, value, str(stored.number), "current", token, stored, after)

    def _put_pending(self, name: str, value: Masked, state: State, key: str, about: About) -> Secret:
        path, track = name + SUFFIX, state.beside
        version = f"p{track.meta.newest + 1 if track is not None else 1}"
        mark = Mark(version, key) if key else None
        stored = self._store(path, fields_of(value), track, mark)
        self._annotate(path, _indexed(track, stored.number, mark))
        before = state.main.meta.custom
        custom = {**about.changes(before), PENDING: version}
        self._annotate(name, custom)
        after = changed(before, custom)
        here = state.main.meta.numbers.get(state.newest)
        token = token_of(state.newest, here.created if here else "", after)
        return _answer(name, value, version, "pending", token, stored, after)

    def _store(self, path: str, fields: Mapping[str, object], track: Track | None, mark: Mark | None) -> Document:
        """Store fields as the next number. Before the first mark there must be an index, so that it is looked for."""
        newest = track.meta.newest if track is not None else 0
        if mark is not None and track is not None and not track.indexed:
            self._annotate(path, track.index(newest))
        return self._engine.write(path, marked(fields, newest + 1, mark), newest)

    def _annotate(self, path: str, custom: Mapping[str, str | None]) -> None:
        if custom:
            self._engine.annotate(path, custom)

    def _again(self, name: str, state: State, version: str, value: Masked) -> Secret:
        """Answer what was stored with the same key before; if it was to be pending and is not said to be, say so."""
        document = self._document(name, state, version)
        if document is None:
            _refuse(Conflict, f"the idempotency key was used for version {version}, which is disabled")
        if document.value.reveal_bytes() != value.reveal_bytes():
            _refuse(Conflict, "the idempotency key was used with another value")
        beside = state.beside
        if beside is not None and version == beside.version(beside.meta.newest) and version.startswith("p"):
            promoted = version in {mark.version for mark in state.main.marks.values()}
            if not promoted and announced(state.main.meta.custom) < beside.meta.newest:
                self._engine.annotate(name, {PENDING: version})
                state = self._living(name)
        return self._secret(name, state, version, document)

    def _end(self, name: str, state: State, version: str, act: Callable[[str, Iterable[int]], None]) -> None:
        """Delete or destroy a version wherever it is stored, after the index knows what it was."""
        if not state.known(version):
            _refuse(NotFound, f"it has no version {version!r}")
        self._remember(name, state)
        if state.current == version:
            self._annotate(name, {DISABLED: str(state.newest), DELETED: None})
        for path, track in zip((name, name + SUFFIX), state.tracks, strict=False):
            act(path, [number for number in track.numbers(version) if not track.meta.numbers[number].destroyed])

    def _remember(self, name: str, state: State) -> None:
        """Have the marks in the index before what they stand in can no longer be read."""
        for path, track in zip((name, name + SUFFIX), state.tracks, strict=False):
            if track.marks:
                self._annotate(path, track.index(track.meta.newest))


def _refuse(error: type[OperationError], message: str) -> NoReturn:
    raise Refusal(error, message)


def _check_put(state: State | None, stage: Stage, if_match: Token | None, *, if_absent: bool) -> None:
    if if_absent and state is not None:
        _refuse(PreconditionFailed, "the secret exists")
    if if_match is not None and (state is None or state.token != if_match):
        _refuse(PreconditionFailed, "the secret was changed, or does not exist")
    if stage == "pending" and state is None:
        _refuse(NotFound, "there is no such secret; store a current version first")


def _indexed(track: Track | None, number: int, mark: Mark | None) -> dict[str, str | None]:
    """Return the change of the index after a number was stored: none where there is no mark and never was."""
    before = track or Track(Meta(0, {}, {}, None), {}, indexed=False)
    return before.with_mark(number, mark).index(number) if mark is not None or before.indexed else {}


def _answer(
    name: str, value: Masked, version: str, stage: Stage, token: Token, stored: Document, custom: Mapping[str, str]
) -> Secret:
    return Secret(
        name=name,
        value=value,
        version=version,
        stages=frozenset({stage}),
        token=token,
        created=moment(stored.created),
        labels=labels_of(custom),
        expires=expires_of(custom),
    )
