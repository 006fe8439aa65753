"""Secrets on your own machines: one SOPS file for each, made to be committed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NoReturn

import attrs

from shiftable import sops
from shiftable.errors import (
    Conflict,
    Fault,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    ParentNotFound,
    PreconditionFailed,
    Unauthenticated,
    classify_os,
)
from shiftable.features import Limit
from shiftable.masking import Masked
from shiftable.paging import Page
from shiftable.secrets.driver import (
    Secret,
    SecretInfo,
    SecretsDriver,
    SecretsFeatures,
    SecretsSpec,
    SecretVersion,
    Stage,
)
from shiftable.tokens import Token
from shiftable_baremetal._durable import for_writing, make_folder, sync
from shiftable_baremetal._secretfile import MAX_VERSIONS, RULE, Entry, Version, entry_of, number, tree_of

__all__ = ["FEATURES", "SopsDriver"]

logger = logging.getLogger(__name__)

FEATURES = SecretsFeatures(
    title="SOPS files with age",
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
    max_name=Limit(1024, "chosen; a path of Linux has 4,096 bytes, root and suffix included"),
    max_value=Limit(1_048_576, "chosen; the file holds all versions and is written anew each time"),
    max_labels=Limit(100, "chosen; they are read at each listing"),
    max_versions=Limit(MAX_VERSIONS, "chosen, as AWS Secrets Manager; the oldest without a stage go first"),
)

_SEGMENT = re.compile(r"[A-Za-z0-9_.+=@-]+")
_LONGEST_SEGMENT = 200
"""A file name of Linux has 255 bytes; the suffix and what an editor appends need some."""

_PAGE = 100


class Refusal(Exception):
    """What this store answers in place of an SDK's error; ``fault`` says what it means."""

    def __init__(self, error: type[OperationError], message: str) -> None:
        super().__init__(message)
        self.fault = Fault(error, message)


@attrs.frozen
class _File:
    """One file that was read and found whole."""

    entry: Entry
    document: sops.Document = attrs.field(repr=False)


@attrs.define
class SopsDriver(SecretsDriver):
    """Secrets as files below a folder: ``prod/db/password`` is ``<root>/prod/db/password.yaml``.

    Each file has the format of SOPS, so ``sops -d`` shows it, a review shows which secret, version or label changed,
    and two branches that change different secrets do not conflict. Everything but the values is in clear. A file is
    written by this driver only: an encrypted seal over all that is in clear, names of labels included, protects what
    SOPS's own MAC leaves open. A file that was edited, moved or renamed is refused. What no file can show is that it
    is a whole older one, or was written by somebody else who knows the public keys: sign your commits.

    **Keys.** Secrets are encrypted for the *recipients* in the settings or, without any there, for the readers that a
    rule in ``.shiftable/secrets.yaml`` names, in a folder above the root, or, without such a rule, in
    ``<root>/.recipients``: public keys (``age1…``, ``ssh-ed25519``, ``ssh-rsa``), one on each line, ``#`` begins a
    comment. They are read with the first private key that fits, see ``shiftable.sops.find_identities``:
    ``SHIFTABLE_AGE_KEY``, ``SHIFTABLE_AGE_KEY_FILE``, sops's own variables, ``~/.config/shiftable/age.key``, sops's key
    file, ``~/.ssh/id_ed25519``. ``create`` makes the folder and, where nobody can read yet, writes this user's public
    key to ``.recipients``, after making a key pair in ``~/.config/shiftable/age.key`` if there is none. Keep a copy of
    that file: without it the secrets are lost. A change of the recipients takes effect at the next write of each
    secret; what a person who left could read must be changed, not only encrypted anew. Whoever may change
    ``.recipients`` decides who reads what is written next: review it as you review code.

    **Permissions.** The folder must be writable by who writes. Its files are encrypted, meant to be committed and
    shared, and need no protection against reading: they get mode 0644 and folders 0755, less the umask. A private key
    gets 0600.

    **Writes** take an exclusive lock on ``<root>/.lock``, are synced to the disk and renamed into place: a reader, and
    a machine after a crash, sees the old file or the new one. The lock makes ``if_match`` atomic among the processes
    of one machine; between machines git's merge decides. A deleted secret waits in ``<root>/.deleted`` and ends at the
    first write after its time. The last 100 versions are kept, those with a stage in any case.

    Args:
        root: the folder; symbolic links below it are not followed.
        recipients: replace ``<root>/.recipients``.
        identity_file: replaces ``~/.config/shiftable/age.key``.
        clock: tells the time, for dates and recovery.
    """

    _root: Path = attrs.field(converter=Path)
    _recipients: tuple[str, ...] = ()
    _identity_file: Path | None = None
    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> SecretsFeatures:
        """What this driver can do: everything."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a refusal of the store or an error of the operating system means."""
        if isinstance(exc, Refusal):
            return exc.fault
        fault = classify_os(exc)
        if fault is not None and isinstance(exc, OSError) and isinstance(exc.filename, str | Path):
            return attrs.evolve(fault, message=f"{exc.filename}: {fault.message}")
        return fault

    def check_name(self, name: str) -> str | None:
        """Say why no secret could have that prefix."""
        return self.check_secret(name) if name else None

    def check_secret(self, name: str) -> str | None:
        """Say why a name would be no path below the root, or one that another secret needs."""
        segments = name.split("/")
        for segment in segments:
            if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
                return f"{segment!r} is no segment of a name: A-Z a-z 0-9 _ . + = @ - are possible, but not . and .."
            if len(segment) > _LONGEST_SEGMENT:
                return f"a segment of the name has {len(segment)} bytes; the limit is {_LONGEST_SEGMENT}"
        if segments[0].startswith("."):
            return "names that begin with a dot are the store's own"
        if any(segment.endswith(".yaml") for segment in segments[:-1]):
            return "only the last segment may end in .yaml: a folder of that name would stand where a file must"
        return super().check_secret(name)

    def check_labels(self, labels: Mapping[str, str]) -> str | None:
        """Say why YAML could not keep those labels."""
        try:
            "".join(part for label in labels.items() for part in label).encode()
        except UnicodeEncodeError:
            return "a label is not Unicode text"
        return super().check_labels(labels)

    # the store and its prefixes

    def create(self, spec: SecretsSpec) -> None:  # noqa: ARG002  a prefix needs no making, but the store does
        """Make the folder, and somebody who can read what will be in it. Again: no change."""
        make_folder(self._root)
        with self._locked():
            if not self._readers():
                header = "# who can read the secrets in this folder: age1…, ssh-ed25519 or ssh-rsa, one on each line\n"
                self._write(self._root / ".recipients", f"{header}{self._own_recipient()}\n".encode())
            if not (self._root / ".gitignore").exists():
                self._write(self._root / ".gitignore", b"/.lock\n/.new\n")

    def describe(self, name: str) -> SecretsSpec:
        """Return any prefix, once the store exists and somebody can read it."""
        if not self._root.is_dir() or not self._readers():
            raise FileNotFoundError(errno.ENOENT, "there is no store of secrets", str(self._root))
        return SecretsSpec(name=name)

    def destroy(self, name: str) -> None:
        """Fail while there are living secrets below the prefix; remove the folders that they left."""
        with self._locked():
            below = self._names(f"{name}/" if name else "")
            if below:
                _refuse(Conflict, f"{len(below):,} secrets remain; delete them first")
            if name:
                folder = self._real(self._root / name)
                for empty, _, _ in os.walk(folder, topdown=False):
                    with contextlib.suppress(OSError):  # somebody else's file
                        Path(empty).rmdir()

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the first segments of names, in order."""
        return _page(sorted({name.split("/")[0] for name in self._names("") if "/" in name}), cursor, limit)

    # secrets

    def get(self, name: str, *, stage: Stage | None, version: str | None) -> Secret:
        """Decrypt one version."""
        file = self._living(name)
        if stage is not None and stage not in file.entry.stages:
            _refuse(NotFound, f"it has no {stage} version")
        id_ = file.entry.stages[stage] if stage is not None else version or ""
        if not _version(file.entry, id_).enabled:
            _refuse(Conflict, f"its version {id_} is disabled")
        return _secret(file, id_)

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
        """Write a new version into the secret's file."""
        with self._locked():
            self._purge()
            if self._deleted(name) is not None:
                _refuse(Conflict, "it is deleted and can be recovered; restore it, or purge it")
            file = self._read(name)
            known = _known(file, value, idempotency_key)
            if file is not None and known is not None:
                return _secret(file, known)
            if if_absent and file is not None:
                _refuse(PreconditionFailed, "the secret exists")
            if if_match is not None and (file is None or _token(file) != if_match):
                _refuse(PreconditionFailed, "the secret was changed, or does not exist")
            if file is None and stage == "pending":
                _refuse(NotFound, "there is no such secret; store a current version first")
            entry = file.entry if file is not None else Entry(name)
            id_ = entry.add(Version(value, self._clock(), idempotency_key=idempotency_key))
            if stage == "current":
                entry.make_current(id_)
            else:
                entry.stages["pending"] = id_
            entry.labels = entry.labels if labels is None else dict(labels)
            entry.expires = entry.expires if expires is None else expires
            entry.touch()
            return _secret(self._save(entry, file), id_)

    def list(self, *, prefix: str, deleted: bool, cursor: str | None, limit: int | None) -> Page[SecretInfo]:
        """Return one page of secrets, in the order of their names. Every file is checked."""
        page = _page(self._names(prefix, deleted=deleted), cursor, limit)
        read = self._deleted if deleted else self._read
        return Page(tuple(_info(file) for file in map(read, page.items) if file is not None), page.next)

    def history(self, name: str, *, cursor: str | None, limit: int | None) -> Page[SecretVersion]:
        """Return versions, newest first; the cursor is the last one of the page before."""
        entry = self._living(name).entry
        left = [id_ for id_ in entry.versions if cursor is None or number(id_) < number(cursor)]
        shown = left[: _PAGE if limit is None else limit]
        return Page(
            tuple(
                SecretVersion(
                    name=name,
                    version=id_,
                    stages=entry.stages_of(id_),
                    created=entry.versions[id_].created,
                    enabled=entry.versions[id_].enabled,
                )
                for id_ in shown
            ),
            shown[-1] if len(left) > len(shown) else None,
        )

    def promote(self, name: str, version: str, *, if_match: Token | None) -> None:
        """Move the stages."""
        with self._locked():
            file = self._living(name)
            found = _version(file.entry, version)
            if file.entry.stages.get("current") == version:
                return
            if if_match is not None and _token(file) != if_match:
                _refuse(PreconditionFailed, "the secret was changed")
            if not found.enabled:
                _refuse(Conflict, f"its version {version} is disabled")
            file.entry.make_current(version)
            file.entry.touch()
            self._save(file.entry, file)

    def disable(self, name: str, version: str) -> None:
        """Mark one version. Its value stays in the file, encrypted."""
        with self._locked():
            file = self._living(name)
            if _version(file.entry, version).enabled:
                file.entry.versions[version] = attrs.evolve(file.entry.versions[version], enabled=False)
                self._save(file.entry, file)

    def delete(self, name: str, *, recovery: timedelta | None) -> None:
        """Move the file to where ``restore`` finds it, or remove it. In git's history it remains."""
        with self._locked():
            self._purge()
            if recovery is None:
                gone = [self._remove(name), self._remove(name, deleted=True)]
                if not any(gone):
                    _refuse(NotFound, "there is no such secret")
                return
            file = self._living(name)
            file.entry.deleted = self._clock()
            file.entry.until = file.entry.deleted + recovery
            self._save(file.entry, file)
            self._remove(name)

    def destroy_version(self, name: str, version: str) -> None:
        """Take one version out of the file. In git's history it remains, encrypted."""
        with self._locked():
            file = self._living(name)
            _version(file.entry, version)
            if file.entry.stages["current"] == version:
                _refuse(Conflict, f"its version {version} is current; promote another one first")
            del file.entry.versions[version]
            file.entry.stages = {stage: id_ for stage, id_ in file.entry.stages.items() if id_ != version}
            file.entry.touch()
            self._save(file.entry, file)

    def relabel(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        expires: datetime | Literal["never"] | None,
        if_match: Token | None,
    ) -> None:
        """Change labels and expiry in the secret's file."""
        with self._locked():
            file = self._living(name)
            if if_match is not None and _token(file) != if_match:
                _refuse(PreconditionFailed, "the secret was changed")
            file.entry.labels = file.entry.labels if labels is None else dict(labels)
            if expires is not None:
                file.entry.expires = None if expires == "never" else expires
            file.entry.touch()
            self._save(file.entry, file)

    def restore(self, name: str) -> None:
        """Move the file back."""
        with self._locked():
            if self._read(name) is not None:
                return
            file = self._deleted(name)
            if file is None:
                _refuse(NotFound, "there is no such secret, or its recovery is over")
            file.entry.deleted = file.entry.until = None
            self._save(file.entry, file)
            self._remove(name, deleted=True)

    # files; those that write are called under the lock

    def _path(self, name: str, *, deleted: bool = False) -> Path:
        why = self.check_secret(name)
        if why is not None:
            _refuse(InvalidArgument, why)
        return self._real((self._root / ".deleted" if deleted else self._root) / f"{name}.yaml")

    def _real(self, path: Path) -> Path:
        """Refuse a path that a symbolic link below the root may lead elsewhere."""
        for part in (path, *path.parents):
            if part == self._root:
                return path
            if part.is_symlink():
                _refuse(Conflict, f"{part} is a symbolic link; the store follows none")
        raise AssertionError(f"{path} is not below {self._root}")

    def _names(self, prefix: str, *, deleted: bool = False) -> tuple[str, ...]:
        """Return the names that begin so and have a file, in order."""
        top = self._root / ".deleted" if deleted else self._root
        folder = prefix.rpartition("/")[0]
        if self.check_name(folder) is not None:
            return ()
        found = _files(self._real(top / folder), f"{folder}/" if folder else "")
        return tuple(sorted(name for name in found if name.startswith(prefix) and self.check_secret(name) is None))

    def _living(self, name: str) -> _File:
        file = self._read(name)
        if file is None:
            _refuse(NotFound, "there is no such secret")
        return file

    def _deleted(self, name: str) -> _File | None:
        """Return a deleted secret that can be restored. One that lives was being moved when a machine went down."""
        file = self._read(name, deleted=True)
        over = file is None or file.entry.until is None or file.entry.until <= self._clock()
        return None if over or self._path(name).exists() else file

    def _read(self, name: str, *, deleted: bool = False) -> _File | None:
        path = self._path(name, deleted=deleted)
        try:
            content = _content(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            document = sops.load(content, sops.find_identities(self._identity_file), name=str(path))
            entry = entry_of(document)
        except (IntegrityError, Unauthenticated) as exc:
            raise Refusal(type(exc), f"{path}: {exc.message}") from exc
        if entry.name != name or (entry.until is not None) is not deleted:
            _refuse(IntegrityError, f"{path}: the file is not where it was written; it is the secret {entry.name!r}")
        return _File(entry, document)

    def _save(self, entry: Entry, file: _File | None) -> _File:
        """Write an entry to its file; what did not change keeps its ciphertext."""
        path = self._path(entry.name, deleted=entry.until is not None)
        readers = self._readers(path)
        if not readers:
            where = self._root / ".recipients"
            _refuse(ParentNotFound, f"nobody could read it: run `shiftable apply`, or write a public key to {where}")
        document = file.document if file is not None else sops.Document({}, recipients=readers, rule=RULE)
        if document.recipients != readers:
            if not set(document.recipients) <= set(readers):
                entry.labels = {**entry.labels, sops.EXPOSED_LABEL: _newest(document)}
            document = document.for_recipients(readers)
        document.data = tree_of(entry)
        content = sops.dump(document, now=self._clock())
        make_folder(path.parent)
        self._write(path, content)
        if entry.until is not None:
            os.utime(path, (entry.until.timestamp(), entry.until.timestamp()))  # so that _purge need not decrypt
        return _File(entry, document)

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a file as a whole. The temporary one has one name for all, so that none is left to look for."""
        new = self._root / ".new"
        try:
            with open(new, "wb", opener=for_writing) as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync(path.parent)

    def _remove(self, name: str, *, deleted: bool = False) -> bool:
        path = self._path(name, deleted=deleted)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync(path.parent)
        return True

    def _purge(self) -> None:
        """End the deleted secrets whose time is over. The date in the file decides; the file's own only hints at it."""
        now = self._clock()
        for name in self._names("", deleted=True):
            path = self._path(name, deleted=True)
            if path.stat().st_mtime > now.timestamp():
                continue
            try:
                file = self._read(name, deleted=True)
            except Refusal as exc:  # it is no reason to refuse the write of another secret
                logger.warning("a deleted secret cannot be ended: %s", exc)
                continue
            until = file.entry.until if file is not None else None
            if until is not None and until <= now:
                self._remove(name, deleted=True)
            elif until is not None:
                os.utime(path, (until.timestamp(), until.timestamp()))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out other writers, of this process and others, until the end of the block."""
        try:
            lock = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError as exc:
            raise Refusal(ParentNotFound, f"there is no folder {self._root}; run `shiftable apply`") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)  # which unlocks

    # keys

    def _readers(self, path: Path | None = None) -> tuple[str, ...]:
        """Return for whom to encrypt: one file, or any."""
        if self._recipients:
            return self._recipients
        policy = sops.Policy.find(self._root)
        rule = policy.rule_for(path or self._root / "any.yaml") if policy else None
        if policy and rule:
            return policy.keys(rule)
        try:
            text = _content(self._root / ".recipients").decode(errors="replace")
        except FileNotFoundError:
            return ()
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return tuple(dict.fromkeys(line for line in lines if line))

    def _own_recipient(self) -> str:
        """Return this user's public key; make a key pair if there is none."""
        own = sops.find_identities(self._identity_file)
        if own.recipients:
            return own.recipients[0]
        path = self._identity_file or Path.home() / ".config/shiftable/age.key"
        if path.exists():
            why = "; ".join(own.unusable) or f"{path} holds an ssh key; name its public key as a recipient"
            _refuse(Conflict, why)
        private, public = sops.generate_identity()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as stream:
            stream.write(f"# public key: {public}\n{private.reveal()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        sync(path.parent)
        logger.warning("made a private key in %s; keep a copy, without it the secrets are lost", path)
        return public


def _refuse(error: type[OperationError], message: str) -> NoReturn:
    raise Refusal(error, message)


# answers


def _known(file: _File | None, value: Masked, idempotency_key: str | None) -> str | None:
    """Return the version that was stored with that key before."""
    if file is None or idempotency_key is None:
        return None
    for id_, version in file.entry.versions.items():
        if version.idempotency_key == idempotency_key:
            if version.value.reveal_bytes() != value.reveal_bytes():
                _refuse(Conflict, "the idempotency key was used with another value")
            if not version.enabled:
                _refuse(Conflict, f"the idempotency key was used for version {id_}, which is disabled")
            return id_
    return None


def _version(entry: Entry, id_: str) -> Version:
    found = entry.versions.get(id_)
    if found is None:
        _refuse(NotFound, f"it has no version {id_!r}")
    return found


def _newest(document: sops.Document) -> str:
    """Say when the last version was made that those who could read the document until now know."""
    return str(max(version["created"] for version in document.data["versions"].values()))


def _token(file: _File) -> Token:
    """Return a token that a value changed with sops, which knows nothing of revisions, makes another one as well."""
    return Token(f"{file.entry.revision}-{file.document.fingerprint}")


def _secret(file: _File, id_: str) -> Secret:
    entry, version = file.entry, file.entry.versions[id_]
    return Secret(
        name=entry.name,
        value=version.value,
        version=id_,
        stages=entry.stages_of(id_),
        token=_token(file),
        created=version.created,
        labels=dict(entry.labels),
        expires=entry.expires,
    )


def _info(file: _File) -> SecretInfo:
    entry = file.entry
    return SecretInfo(
        name=entry.name,
        version=entry.stages.get("current"),
        modified=datetime.fromisoformat(file.document.lastmodified),
        labels=dict(entry.labels),
        expires=entry.expires,
        deleted=entry.deleted,
    )


def _page(names: Sequence[str], cursor: str | None, limit: int | None) -> Page[str]:
    """Cut one page of sorted names; the cursor is the last name of the page before."""
    left = names if cursor is None else [name for name in names if name > cursor]
    shown = tuple(left[: _PAGE if limit is None else min(limit, _PAGE)])
    return Page(shown, shown[-1] if len(left) > len(shown) else None)


# the file system


def _files(folder: Path, below: str) -> Iterator[str]:
    """Yield the names of the secrets in a folder and below it; a folder that is missing has none."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), f"{below}{entry.name}/")
        elif entry.name.endswith(".yaml") and entry.is_file(follow_symlinks=False):
            yield below + entry.name.removesuffix(".yaml")


def _content(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        return stream.read()
