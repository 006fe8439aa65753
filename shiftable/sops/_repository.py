"""The encrypted files of a repository: encrypted anew when readers change, and verified."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import attrs

from shiftable.errors import (
    ConfigError,
    IntegrityError,
    InvalidArgument,
    OperationError,
    Resource,
    Unauthenticated,
    Unsupported,
)
from shiftable.sops._age import Identities
from shiftable.sops._document import Document, Inspection, dump, from_plain, inspect, load
from shiftable.sops._leaves import Rule
from shiftable.sops._policy import FILE, Policy, same_key
from shiftable.sops._seal import EXPOSED_LABEL, SECRET_RULE, expose, is_secret, seal_fits, sealed
from shiftable.sops._text import Format, format_of

__all__ = ["Changed", "Finding", "Repository", "replace", "reseal", "root_of", "tracked"]

Change = Literal["kept", "widened", "rekeyed", "refused"]

_NO_SECRETS = frozenset({".gitignore", ".gitattributes", ".gitkeep", ".recipients", ".lock", ".new"})
_MARK = b"ENC[AES256_GCM,"
_NEW = FILE.parent / ".new"


@attrs.frozen
class Changed:
    """What became of one file.

    Args:
        change: ``widened``: more readers have its data key; ``rekeyed``: it has a new one, and all values are marked;
            ``refused``: it is as it was, and ``problem`` says why.
    """

    path: str
    change: Change
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    problem: str = ""


@attrs.frozen
class Finding:
    """What is wrong with a file.

    Args:
        kind: a word for machines; ``exposed`` is a note, everything else is a reason to fail.
        text: a sentence for people; never with a value.
    """

    path: str
    kind: Literal[
        "unreadable", "in-clear", "recipients", "rule", "no-rule", "tampered", "undecryptable", "moved", "exposed"
    ]
    text: str

    @property
    def fails(self) -> bool:
        """Whether it is a reason to fail."""
        return self.kind != "exposed"


@attrs.frozen
class Repository:
    """A folder with encrypted files.

    Args:
        policy: its rules; without them every SOPS file is looked at, and ``.recipients`` of a store says who reads.
    """

    root: Path
    policy: Policy | None
    _clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), repr=False)

    @classmethod
    def open(cls, start: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Repository:
        """Find the repository of a folder: by its rules, else by git, else the folder itself."""
        policy = Policy.find(start)
        return cls(policy.root if policy else root_of(start), policy, clock)

    def files(self) -> Iterator[Path]:
        """Yield the files that rules are for, and all others that are SOPS files, in order."""
        for path in tracked(self.root, untracked=True):
            if path.name in _NO_SECRETS or path == self.root / FILE or path.is_symlink():
                continue
            if (self.policy is not None and self.policy.rule_for(path) is not None) or _looks_encrypted(path):
                yield path

    # who reads

    def save(self, policy: Policy) -> Repository:
        """Write the rules."""
        with self._locked():
            replace(self.root / FILE, policy.rendered(), new=self.root / _NEW)
            self._let_git_see()
        return attrs.evolve(self, policy=policy)

    def _let_git_see(self) -> None:
        """Except the rules from what ``shiftable init`` lets git ignore: they are to be committed and reviewed."""
        if _git(self.root, "check-ignore", "--quiet", "--no-index", str(FILE)) is not None:
            ignore = (self.root / FILE).with_name(".gitignore")
            text = ignore.read_text() if ignore.exists() else ""
            ignore.write_text(f"{text}!secrets.yaml\n!allow.yaml\n")

    def sync(self, identities: Identities) -> Iterator[Changed]:
        """Encrypt each file for the readers that its rule names. Run it again after it was stopped.

        Who joins is given the data key. When somebody leaves, the file has a new one, and what they could read is
        marked as exposed: in the file of a secret by a label that makes its rotation due, else by a note in the file.
        Each file is replaced as a whole. One that cannot be read, by these identities or at all, does not keep the
        others from it.

        Raises:
            ConfigError: there are no rules.
        """
        if self.policy is None:
            raise ConfigError(f"there is no {FILE} in {self.root} or above it; it says who reads which files")
        with self._locked():
            for path in self.files():
                if self.policy.rule_for(path) is not None:
                    try:
                        yield self._sync_file(path, identities)
                    except OperationError as exc:
                        yield Changed(path.relative_to(self.root).as_posix(), "refused", problem=exc.message)

    def encrypt(self, path: Path) -> None:
        """Encrypt a file that is in clear, in its place, as its rule says.

        Raises:
            ConfigError: no rule is for it.
            IntegrityError: it is malformed.
            InvalidArgument: it is encrypted already, or holds what cannot be encrypted.
        """
        rule = self.policy.rule_for(path) if self.policy else None
        if self.policy is None or rule is None:
            raise ConfigError(f"no rule in {self.root / FILE} is for {path}; it says who would read it")
        style = format_of(path)
        content = path.read_bytes()
        if style == "binary" and _MARK in content and _is_document(path):
            raise InvalidArgument("it is encrypted already", resource=Resource("file", str(path)))
        try:
            data, comments = from_plain(content, format=style)
        except OperationError as exc:
            raise type(exc)(exc.message, resource=Resource("file", str(path))) from None
        document = Document(
            data,
            recipients=self.policy.keys(rule),
            rule=rule.rule or Rule(),
            mac_only_encrypted=bool(rule.mac_only_encrypted),
            comments=comments,
        )
        with self._locked():
            replace(path, dump(document, format=style, now=self._clock()), new=self.root / _NEW)

    def _sync_file(self, path: Path, identities: Identities) -> Changed:
        style = format_of(path)
        name = path.relative_to(self.root).as_posix()
        content = path.read_bytes()
        have = inspect(content, format=style, name=name).recipients
        wanted = self._wanted(path, have)
        left = tuple(key for key in have if key not in wanted)
        joined = tuple(key for key in wanted if key not in have)
        if not left and not joined:
            return Changed(name, "kept")
        with _store_locked(path, content, style):
            document = load(path.read_bytes(), identities, format=style, name=name)
            replace(path, self._for(document, wanted, style, rekey=bool(left)), new=self.root / _NEW)
        return Changed(name, "rekeyed" if left else "widened", joined, left)

    def _for(self, document: Document, wanted: tuple[str, ...], format: Format, *, rekey: bool) -> bytes:
        """Encrypt a document for others. Where nobody leaves, only the list of readers changes."""
        then = datetime.fromisoformat(document.lastmodified)
        if not rekey:
            return dump(document.for_recipients(wanted), format=format, now=then)
        now = self._clock()
        if is_secret(document.data):
            if not seal_fits(document.data):
                raise IntegrityError("what stands in clear was changed; put it back before readers change")
            document.data = expose(document.data, now)
        else:
            document.expose(now)
        return dump(document.for_recipients(wanted), format=format, now=now)

    def _wanted(self, path: Path, have: tuple[str, ...]) -> tuple[str, ...]:
        """Return for whom a file should be encrypted, in the words of the file where it has the key."""
        wanted = self._readers(path) or have
        return tuple(next((key for key in have if same_key(key, each)), each) for each in wanted)

    def _readers(self, path: Path) -> tuple[str, ...] | None:
        rule = self.policy.rule_for(path) if self.policy else None
        if self.policy and rule:
            return self.policy.keys(rule)
        for folder in path.parents:
            if (folder / ".recipients").is_file():
                lines = (folder / ".recipients").read_text(errors="replace").splitlines()
                return tuple(filter(None, (line.partition("#")[0].strip() for line in lines)))
            if folder == self.root:
                break
        return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out others that change readers."""
        (self.root / FILE).parent.mkdir(exist_ok=True)
        lock = os.open((self.root / FILE).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (self.root / _NEW).unlink(missing_ok=True)  # of a run that was killed
            yield
        finally:
            os.close(lock)

    # whether all is well

    def verify(self, identities: Identities | None) -> Iterator[tuple[str, tuple[Finding, ...]]]:
        """Check every file, one after the other.

        Args:
            identities: ``None``: check what can be checked without a key: structure, recipients, no value in clear.
        """
        for path in self.files():
            name = path.relative_to(self.root).as_posix()
            try:
                yield name, tuple(Finding(name, kind, text) for kind, text in self._verify_file(path, identities))
            except Unauthenticated as exc:
                yield name, (Finding(name, "undecryptable", exc.message),)
            except IntegrityError as exc:
                yield name, (Finding(name, "tampered", exc.message),)
            except (Unsupported, InvalidArgument) as exc:
                yield name, (Finding(name, "unreadable", exc.message),)
            except OSError as exc:
                yield name, (Finding(name, "unreadable", exc.strerror or "it cannot be read"),)

    def _verify_file(
        self, path: Path, identities: Identities | None
    ) -> Iterator[tuple[Literal["in-clear", "recipients", "rule", "no-rule", "tampered", "moved", "exposed"], str]]:
        style = format_of(path)
        content = path.read_bytes()
        if _MARK not in content and b"sops" not in content:
            yield "in-clear", "it is not encrypted, and a rule says that it is"
            return
        found = inspect(content, format=style)
        for place in found.in_clear:
            yield "in-clear", f"the value at {place!r} is in clear"
        yield from self._verify_rules(path, found)
        if identities is None:
            return
        document = load(content, identities, format=style)
        if is_secret(document.data):
            yield from _verify_secret(path, document)
        elif document.exposed:
            yield "exposed", f"who is a reader no more knows {', '.join(map(repr, document.exposed))}; change them"

    def _verify_rules(
        self, path: Path, found: Inspection
    ) -> Iterator[tuple[Literal["recipients", "rule", "no-rule"], str]]:
        rule = self.policy.rule_for(path) if self.policy else None
        readers = self._readers(path)
        if readers is None:
            if self.policy is not None:
                yield "no-rule", f"it is encrypted, and no rule in {FILE} is for it"
            return
        wanted = self._wanted(path, found.recipients)
        said = self.policy.name_of if self.policy else str
        for what, keys in (
            ("can read it and should not", [key for key in found.recipients if key not in wanted]),
            ("cannot read it and should", [key for key in wanted if key not in found.recipients]),
        ):
            if keys:
                yield "recipients", f"{', '.join(map(said, keys))} {what}; `shiftable secrets recipients sync`"
        if found.secret:
            if found.rule != SECRET_RULE or found.mac_only_encrypted:
                yield "rule", "it is the file of a secret, and does not encrypt what such files do"
            return
        if rule and rule.rule and rule.rule != found.rule:
            yield "rule", f"it has {found.rule.kind} {found.rule.pattern!r}, and the rule {rule.rule.pattern!r}"
        if rule and rule.mac_only_encrypted not in (None, found.mac_only_encrypted):
            yield "rule", f"mac_only_encrypted is not {str(rule.mac_only_encrypted).lower()}"


def _verify_secret(path: Path, document: Document) -> Iterator[tuple[Literal["tampered", "moved", "exposed"], str]]:
    if not seal_fits(document.data):
        yield "tampered", "what stands in clear was changed: names, labels, versions or stages"
        return
    name = document.data.get("name")
    place = "/.deleted/" if document.data.get("until") else "/"
    if not f"/{path.as_posix()}".endswith(f"{place}{name}.yaml") or ("/.deleted/" in path.as_posix()) != (place != "/"):
        yield "moved", f"it is not where it was written; it is the secret {name!r}"
    since = document.data["labels"].get(EXPOSED_LABEL)
    current = document.data["versions"].get(document.data.get("current"), {})
    if since is not None and str(current.get("created")) <= since:
        yield "exposed", f"who is a reader no more knows it since {since}; rotate it"


def _looks_encrypted(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return _MARK in stream.read(65536) and _is_document(path)
    except OSError:
        return False


def _is_document(path: Path) -> bool:
    """Tell a SOPS file from a text that speaks of them."""
    style = format_of(path)
    with contextlib.suppress(OperationError, OSError):
        inspect(path.read_bytes(), format=style)
        return True
    return (
        style != "binary"
        and re.search(rb"(?m)^(\[sops\]$|sops:$|sops_mac=|\s*\"sops\": ?\{)", path.read_bytes()) is not None
    )


def reseal(path: Path, identities: Identities) -> None:
    """Seal the file of a secret again that was changed by hand; its MAC must be right.

    Raises:
        IntegrityError: what it says now is no secret with versions.
    """
    style = format_of(path)
    with _store_locked(path, path.read_bytes(), style):
        document = load(path.read_bytes(), identities, format=style, name=str(path))
        try:
            document.data = sealed({**document.data, "revision": secrets.token_hex(8)})
        except (AttributeError, KeyError, TypeError, ValueError):
            document.data = {}
        if not is_secret(document.data):
            raise IntegrityError(f"{path}: it has no versions and stages as a secret has them")
        replace(path, dump(document, format=style), new=path.with_name(f".{path.name}.new"))


# the file system and git


def root_of(folder: Path) -> Path:
    """Return the root of git's working tree, or the folder itself."""
    said = _git(folder, "rev-parse", "--show-toplevel")
    return Path(os.fsdecode(said.removesuffix(b"\n"))) if said else folder.absolute()


def tracked(root: Path, *, untracked: bool = False) -> list[Path]:
    """Return the files below a folder that git knows, sorted; without git all of them.

    Args:
        untracked: also those that git does not know yet and does not ignore.
    """
    more = ("--others", "--exclude-standard") if untracked else ()
    said = _git(root, "ls-files", "-z", "--cached", *more)
    if said is None:
        walked = (Path(folder) / file for folder, _, files in os.walk(root) for file in files)
        return sorted(path for path in walked if ".git" not in path.relative_to(root).parts)
    names = sorted({os.fsdecode(name) for name in said.split(b"\0") if name})
    return [path for name in names if (path := root / name).is_file() or path.is_symlink()]


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)  # noqa: S603, S607
    except OSError:  # there is no git
        return None
    return done.stdout if done.returncode == 0 else None


def replace(path: Path, content: bytes, *, new: Path) -> None:
    """Replace a file as a whole, so that a reader, and a machine after a crash, sees the old one or the new one."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(new, flags, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _store_locked(path: Path, content: bytes, format: Format) -> Iterator[None]:
    """Keep out the writers of the store that a secret's file belongs to."""
    name = re.search(rb"(?m)^name: (\S+)$", content) if format == "yaml" else None
    depth = name[1].decode(errors="replace").strip('"').count("/") if name else 0
    root = path.parents[min(depth, len(path.parents) - 1)]
    root = root.parent if root.name == ".deleted" else root
    if not (root / ".lock").is_file():
        yield
        return
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
