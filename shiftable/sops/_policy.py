"""``.shiftable/secrets.yaml``: which files are encrypted, for whom, and what of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

import attrs

from shiftable.errors import ConfigError, IntegrityError, InvalidArgument, Problem
from shiftable.sops._age import wrapped
from shiftable.sops._comments import Comment
from shiftable.sops._leaves import Rule, RuleKind
from shiftable.sops._text import parsed, rendered

__all__ = ["FileRule", "Policy", "same_key"]

FILE = PurePosixPath(".shiftable/secrets.yaml")
_RULES: tuple[RuleKind, ...] = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")
_HEADER = (
    Comment(" Which files are encrypted, and who can read them. The first rule whose path fits a file counts."),
    Comment(" Change readers with `shiftable secrets recipients`, which encrypts the files anew."),
)


@attrs.frozen
class FileRule:
    """One rule of the file.

    Args:
        path: of files, from the repository's root; ``*`` stops at a slash, ``**`` does not, a folder ends in one.
        readers: names of recipients.
        rule: which values are encrypted; ``None``: what each file says.
        mac_only_encrypted: as in ``Document``; ``None``: what each file says.
    """

    path: str
    readers: tuple[str, ...]
    rule: Rule | None = None
    mac_only_encrypted: bool | None = None

    def fits(self, path: str) -> bool:
        """Tell whether it is for a file, by its path from the repository's root."""
        return _glob(self.path).fullmatch(path) is not None


def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a pattern; ``**/`` is also no folder at all."""
    pattern = pattern + "**" if pattern.endswith("/") else pattern
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    found = re.findall(r"\*\*/|\*+|\?|[^*?]+", pattern)
    return re.compile("".join(parts.get(part) or (".*" if part[0] == "*" else re.escape(part)) for part in found))


@attrs.frozen
class Policy:
    """All rules of a repository.

    Args:
        root: of the repository: the folder that holds ``.shiftable``.
        recipients: public keys by the names that rules use.
    """

    root: Path
    recipients: Mapping[str, str]
    rules: tuple[FileRule, ...]
    _comments: tuple[Comment, ...] = attrs.field(default=_HEADER, repr=False)

    @classmethod
    def find(cls, start: Path) -> Self | None:
        """Read the file of a folder or of the nearest one above it, up to where git's working tree begins.

        Raises:
            ConfigError: it is malformed, or somebody else's, who would then decide who reads.
        """
        start = start.resolve()
        for folder in (start, *start.parents):
            if (folder / FILE).is_file():
                if (folder / FILE).stat().st_uid not in {os.geteuid(), 0}:
                    raise ConfigError(f"{folder / FILE} belongs to another user; it says who reads your secrets")
                return cls.read(folder)
            if (folder / ".git").exists():
                break
        return None

    @classmethod
    def read(cls, root: Path) -> Self:
        """Read the file of a repository.

        Raises:
            ConfigError: with everything that is wrong in it.
        """
        file = root / FILE
        try:
            tree, found = parsed(file.read_bytes(), "yaml")
        except OSError as exc:
            raise ConfigError(f"{file} cannot be read: {exc.strerror}") from exc
        except IntegrityError as exc:
            raise ConfigError(f"{file}: {exc.message}") from exc
        problems = list(_problems(tree))
        if problems:
            raise ConfigError(Problem(str(file), problem) for problem in problems)
        comments = tuple(Comment(each.text, *each.places[0]) for each in found)
        return cls(root, tree["recipients"], tuple(map(_rule, tree["rules"])), comments)

    def rule_for(self, path: Path) -> FileRule | None:
        """Return the first rule that fits a file, or ``None``."""
        try:
            name = (path.parent.resolve() / path.name).relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return None
        return next((rule for rule in self.rules if rule.fits(name)), None)

    def keys(self, rule: FileRule) -> tuple[str, ...]:
        """Return the public keys of a rule's readers."""
        return tuple(self.recipients[name] for name in rule.readers)

    def name_of(self, key: str) -> str:
        """Return the name of a public key, or the key itself, cut."""
        named = (name for name, each in self.recipients.items() if same_key(each, key))
        return next(named, key if len(key) < 70 else f"{key[:32]}…{key[-12:]}")

    def with_reader(self, name: str, key: str, paths: Sequence[str]) -> Self:
        """Return it with a reader of the rules of those paths, or of all rules.

        Raises:
            InvalidArgument: it is no public key; the name is another one's; there is no such rule.
        """
        if self.recipients.get(name, key) != key:
            raise InvalidArgument(f"{name!r} is the name of another key; remove it first, or choose another name")
        wrapped(b"", key)  # which refuses what is no key
        rules = [
            attrs.evolve(rule, readers=(*rule.readers, name)) if chosen and name not in rule.readers else rule
            for rule, chosen in self._chosen(paths)
        ]
        return attrs.evolve(self, recipients={**self.recipients, name: key}, rules=tuple(rules))

    def without_reader(self, name: str, paths: Sequence[str]) -> Self:
        """Return it without a reader of those rules; the name goes with the last of them.

        Raises:
            InvalidArgument: nobody would be left to read; there is no such rule.
        """
        rules = [
            attrs.evolve(rule, readers=tuple(each for each in rule.readers if each != name)) if chosen else rule
            for rule, chosen in self._chosen(paths)
        ]
        empty = [rule.path for rule in rules if not rule.readers]
        if empty:
            raise InvalidArgument(f"nobody could read {', '.join(empty)}; add another reader first")
        left = any(name in rule.readers for rule in rules)
        recipients = {each: key for each, key in self.recipients.items() if each != name or left}
        return attrs.evolve(self, recipients=recipients, rules=tuple(rules))

    def _chosen(self, paths: Sequence[str]) -> list[tuple[FileRule, bool]]:
        unknown = set(paths) - {rule.path for rule in self.rules}
        if unknown:
            known = ", ".join(rule.path for rule in self.rules)
            raise InvalidArgument(f"there is no rule for {', '.join(sorted(unknown))}; there are {known}")
        return [(rule, not paths or rule.path in paths) for rule in self.rules]

    def rendered(self) -> bytes:
        """Write the file, its comments included."""
        tree = {"recipients": dict(self.recipients), "rules": [_said(rule) for rule in self.rules]}
        return rendered(tree, self._comments, "yaml")


def same_key(one: str, other: str) -> bool:
    """Compare public keys without the comment that ends an ssh key."""
    return one.split()[:2] == other.split()[:2]


def _said(rule: FileRule) -> dict[str, Any]:
    return {
        "path": rule.path,
        "readers": list(rule.readers),
        **({rule.rule.kind: rule.rule.pattern} if rule.rule else {}),
        **({"mac_only_encrypted": rule.mac_only_encrypted} if rule.mac_only_encrypted is not None else {}),
    }


def _rule(tree: dict[str, Any]) -> FileRule:
    rules = [Rule(kind, tree[kind]) for kind in _RULES if kind in tree]
    return FileRule(tree["path"], tuple(tree["readers"]), rules[0] if rules else None, tree.get("mac_only_encrypted"))


def _problems(tree: dict[str, Any]) -> Iterable[str]:
    recipients, rules = tree.get("recipients"), tree.get("rules")
    if set(tree) != {"recipients", "rules"} or not isinstance(recipients, dict) or not isinstance(rules, list):
        yield "it has 'recipients', a mapping of names to public keys, and 'rules', a list, and nothing else"
        return
    for name, key in recipients.items():
        if not isinstance(key, str) or not re.match(r"age1|ssh-(ed25519|rsa) ", key):
            yield f"recipients.{name} is no public key of the kind age1…, ssh-ed25519 or ssh-rsa"
    for number, rule in enumerate(rules, 1):
        yield from (f"rule {number}: {problem}" for problem in _rule_problems(rule, cast("dict[str, Any]", recipients)))


def _rule_problems(rule: Any, recipients: dict[str, Any]) -> Iterable[str]:  # noqa: ANN401  what the file says
    if not isinstance(rule, dict):
        yield "it is no mapping"
        return
    unknown = set(rule) - {"path", "readers", "mac_only_encrypted", *_RULES}
    if unknown:
        yield f"there is no {', '.join(sorted(unknown))}"
    if not isinstance(rule.get("path"), str) or not rule["path"] or rule["path"].startswith("/"):
        yield "'path' is a path from the repository's root, like secrets/prod/**"
    readers = rule.get("readers")
    if not isinstance(readers, list) or not readers:
        yield "'readers' is a list of names, and not an empty one"
    else:
        nobody = [str(name) for name in readers if not isinstance(name, str) or name not in recipients]
        if nobody:
            yield f"{', '.join(nobody)}: no such recipient"
    kinds = [kind for kind in _RULES if kind in rule]
    if len(kinds) > 1 or any(not isinstance(rule[kind], str) or not rule[kind] for kind in kinds):
        yield f"one of {', '.join(_RULES)} is possible, and it is text"
    elif kinds and kinds[0].endswith("regex"):
        try:
            re.compile(rule[kinds[0]])
        except re.error:
            yield f"{kinds[0]} is no regular expression"
    if not isinstance(rule.get("mac_only_encrypted", False), bool):
        yield "'mac_only_encrypted' is true or false"
