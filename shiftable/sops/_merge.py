"""What git shows of encrypted files, and how it merges them."""

from __future__ import annotations

import copy
import hmac
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from shiftable.errors import IntegrityError, Unauthenticated
from shiftable.masking import Masked
from shiftable.sops._age import Identities
from shiftable.sops._comments import Comment
from shiftable.sops._document import Document, dump, inspect, load
from shiftable.sops._leaves import encrypted_leaves
from shiftable.sops._policy import Policy, same_key
from shiftable.sops._seal import EXPOSED_LABEL, is_secret, seal_fits, sealed, unsealed
from shiftable.sops._text import Format, parsed, rendered

__all__ = ["Merge", "merged", "shown", "tag_key"]

# what is shown


def shown(
    content: bytes,
    identities: Identities,
    *,
    format: Format,
    tag_key: Masked,
    policy: Policy | None,
    reveal: bool = False,
) -> str:
    """Return a document as text in which a value is a short tag that changes when the value does.

    Args:
        tag_key: of this clone; the tags tell nothing to who does not have it.
        policy: knows the names of readers.
        reveal: show the values themselves.

    Raises:
        IntegrityError: it is no SOPS file, or was changed.
    """
    inspection = inspect(content, format=format)
    try:
        document = load(content, identities, format=format)
        tree, comments = document.data, document.comments
    except Unauthenticated:  # who has no key sees what changed all the same, by the ciphertext
        tree, found = parsed(content, format)
        comments = tuple(Comment(each.text, *each.places[0]) for each in found)
        document = None
        tree.pop("sops")
    tree = {name: value for name, value in tree.items() if name not in {"seal", "revision"} or not is_secret(tree)}
    if not reveal or document is None:
        tree = _tagged(tree, inspection.rule.covers, tag_key.reveal_bytes(), ())
        comments = tuple(
            attrs.evolve(each, text=" ***") if each.text and inspection.rule.covers(each.place) else each
            for each in comments
        )
    readers = [policy.name_of(key) if policy else key for key in inspection.recipients]
    return rendered({**tree, "readers of this file": sorted(readers)}, comments, "yaml").decode()


def _tagged(node: Any, covers: Any, key: bytes, place: tuple[str | int, ...]) -> Any:  # noqa: ANN401  nested, and a method
    if isinstance(node, dict):
        return {name: _tagged(value, covers, key, (*place, name)) for name, value in node.items()}
    if isinstance(node, list):
        return [_tagged(value, covers, key, (*place, number)) for number, value in enumerate(node)]
    if node is None or node in ("", b"") or not covers(place):
        return node
    tag = hmac.digest(key, repr((place, node)).encode(errors="replace"), "sha256").hex()[:8]
    return f"*** {tag}"


# how it is merged


@attrs.frozen
class Merge:
    """A merged file.

    Args:
        content: ``None`` if there are conflicts.
        conflicts: places at which both sides changed the same thing, without values.
    """

    content: bytes | None = attrs.field(repr=False)
    conflicts: tuple[str, ...] = ()


_NOTHING = object()


def merged(
    base: bytes | None,
    ours: bytes,
    theirs: bytes,
    identities: Identities,
    *,
    format: Format,
    now: datetime | None = None,
) -> Merge:
    """Merge two files that were one, by their values, and encrypt the result for whom it then is.

    A reader that one side removed stays removed; what that reader could see of the other side is marked as exposed.

    Raises:
        Unauthenticated: none of the identities opens one of them.
        IntegrityError: one of them was changed by somebody without a key.
    """
    now = now or datetime.now(UTC)
    one, other = load(ours, identities, format=format), load(theirs, identities, format=format)
    root = load(base, identities, format=format) if base else None
    for each in (one, other):
        if is_secret(each.data) and not seal_fits(each.data):
            raise IntegrityError("what stands in clear was changed; put it back before it is merged")
    conflicts: list[str] = []
    data = _merged_data(root, one, other, conflicts)
    rule = _three(root.rule if root else _NOTHING, one.rule, other.rule, "the rule of what is encrypted", conflicts)
    only_encrypted = _three(
        root.mac_only_encrypted if root else _NOTHING,
        one.mac_only_encrypted,
        other.mac_only_encrypted,
        "mac_only_encrypted",
        conflicts,
    )
    readers = _merged_readers(root, one, other)
    if not readers:
        conflicts.append("its readers")
    if conflicts:
        return Merge(None, tuple(conflicts))
    result = copy.copy(one).for_recipients(readers)
    result.data, result.rule, result.mac_only_encrypted = data, rule, only_encrypted
    result.comments = _merged_comments(root, one, other)
    _mark(result, (one, other), now)
    return Merge(dump(result, format=format, now=now))


def _merged_data(root: Document | None, one: Document, other: Document, conflicts: list[str]) -> dict[str, Any]:
    before: Any = root.data if root else _NOTHING
    if not (is_secret(one.data) and is_secret(other.data)):
        data: dict[str, Any] = _three(before, one.data, other.data, "", conflicts)
        return data
    tree = _three(_bare(before), _bare(one.data), _bare(other.data), "", conflicts)
    if conflicts:
        return {}
    versions = dict(sorted(tree["versions"].items(), key=lambda pair: -int(pair[0].partition("-")[0])))
    staged = {tree[stage] for stage in ("current", "previous", "pending") if tree[stage] is not None}
    if not staged <= set(versions):
        conflicts.append("a version that has a stage on one side is gone on the other")
        return {}
    ordered = {"name": tree["name"], "revision": secrets.token_hex(8), **tree, "versions": versions}
    return sealed(ordered)


def _bare(tree: Any) -> Any:  # noqa: ANN401  a document, or nothing
    """Return the document of a secret without what each write makes anew."""
    return tree if tree is _NOTHING else {k: v for k, v in tree.items() if k not in {"revision", "seal"}}


def _three(base: Any, ours: Any, theirs: Any, place: str, conflicts: list[str]) -> Any:  # noqa: ANN401  any values
    """Merge one value of three; ``_NOTHING`` where there is none."""
    if _same(ours, theirs) or _same(base, theirs):
        return ours
    if _same(base, ours):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        before = base if isinstance(base, dict) else {}
        found = {}
        for key in dict.fromkeys([*ours, *theirs]):
            below = f"{place}.{key}" if place else key
            before_, ours_, theirs_ = (each.get(key, _NOTHING) for each in (before, ours, theirs))
            value = _three(before_, ours_, theirs_, below, conflicts)
            if value is not _NOTHING:
                found[key] = value
        return found
    if place == f"labels.{EXPOSED_LABEL}" and isinstance(ours, str) and isinstance(theirs, str):
        return max(ours, theirs)
    conflicts.append(place or "the document")
    return ours


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401  any values
    """Compare with types and order: 1, 1.0 and True differ."""
    return one is other or repr(one) == repr(other)


def _merged_readers(root: Document | None, one: Document, other: Document) -> tuple[str, ...]:
    before = root.recipients if root else ()

    def has(keys: tuple[str, ...], key: str) -> bool:
        return any(same_key(each, key) for each in keys)

    every: list[str] = []
    for key in (*one.recipients, *other.recipients):
        both = has(one.recipients, key) and has(other.recipients, key)
        if (both or not has(before, key)) and not has(tuple(every), key):
            every.append(key)
    return tuple(every)


def _merged_comments(root: Document | None, one: Document, other: Document) -> tuple[Comment, ...]:
    before = root.comments if root else ()
    kept = [each for each in one.comments if each in other.comments or each not in before]
    return (*kept, *(each for each in other.comments if each not in before and each not in kept))


def _mark(result: Document, sides: tuple[Document, Document], now: datetime) -> None:
    """Note what readers knew who are none of the result, and what was noted before."""
    for side in sides:
        gone = [key for key in side.recipients if key not in result.recipients]
        if is_secret(result.data):
            if gone:
                newest = max(str(version["created"]) for version in side.data["versions"].values())
                mark = max(newest, str(result.data["labels"].get(EXPOSED_LABEL, "")))
                labels = {**result.data["labels"], EXPOSED_LABEL: mark}
                result.data = sealed({**unsealed(result.data), "labels": labels})
            continue
        noted = side.exposed
        for since in sorted(set(noted.values())):
            result.note_exposed(side, [place for place, when in noted.items() if when == since], since)
        if gone:
            places = [place for place, _ in encrypted_leaves(side.data, side.rule)]
            result.note_exposed(side, places, now.astimezone(UTC).isoformat())


def tag_key(git_dir: Path) -> Masked:
    """Return the key of this clone's tags; make one if there is none."""
    path = git_dir / "shiftable" / "tags.key"
    for _ in range(2):
        try:
            key = path.read_bytes()
            if len(key) == 32:
                return Masked(key)
        except FileNotFoundError:
            pass
        path.parent.mkdir(exist_ok=True)
        made = path.with_name(f"tags.{secrets.token_hex(4)}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            os.link(made, path)  # the first of two wins
        except FileExistsError:
            path.unlink() if path.stat().st_size != 32 else None
        finally:
            made.unlink()
    return Masked(path.read_bytes())
