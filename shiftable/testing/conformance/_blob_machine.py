"""Drive a store and the memory model with the same calls, and compare what they answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from shiftable.blob import BlobStore, Bucket, BucketSpec, CommonPrefix, Headers, ObjectInfo, ObjectSummary, Token
from shiftable.errors import OperationError
from shiftable.memory.blob import MemoryBlobDriver

__all__ = ["blob_machine"]

_PLAIN_KEYS = ("a", "b/1", "b/2", "b/c/3", "c d", "é", "\U0001f600", "\uff5e")
_ANY_KEYS = (*_PLAIN_KEYS, "a/", "a//x", "b", "A", "%41", "b+1", "e\u0301")

_PREFIXES = ("", "a", "b/", "b/c", "z")


@attrs.frozen
class _Failed:
    """A call that raised an error of this class."""

    error: str


def blob_machine(make_store: Callable[[], BlobStore]) -> type[RuleBasedStateMachine]:
    """Return a state machine for a store; its ``TestCase`` is a test.

    Args:
        make_store: called for each example; the bucket that it works in is deleted afterwards.
    """

    class Machine(_BlobMachine):
        def make_store(self) -> BlobStore:
            return make_store()

    return Machine


class _BlobMachine(RuleBasedStateMachine):
    """The rules. No content is written twice: where a token is a digest, the same content has the same token."""

    def __init__(self) -> None:
        super().__init__()
        name = f"machine-{uuid.uuid4().hex[:12]}"
        self._store = self.make_store()
        self._real = self._store.create(BucketSpec(name=name))
        self._model = BlobStore(MemoryBlobDriver()).create(BucketSpec(name=name))
        self._features = self._real.features
        self._keys = _ANY_KEYS if self._features.any_key else _PLAIN_KEYS
        self._tokens: dict[str, list[tuple[Token, Token]]] = {}
        self._writes = 0

    def make_store(self) -> BlobStore:
        """Return the store under test."""
        return BlobStore(MemoryBlobDriver())

    def teardown(self) -> None:
        """Leave nothing behind."""
        assert self._real.delete_many([item.key for item in self._real.list()]) == {}
        self._store.delete(self._real.name)

    number = st.integers(0, 10_000)

    @rule(number=number, size=st.sampled_from([0, 1, 5000]))
    def put(self, number: int, size: int) -> None:
        self._put(self._key(number), size)

    @rule(number=number)
    def put_if_absent(self, number: int) -> None:
        if self._features.if_absent:
            self._put(self._key(number), 3, if_absent=True)

    @rule(number=number, which=number)
    def put_if_match(self, number: int, which: int) -> None:
        key = self._key(number)
        tokens = self._token(key, which)
        if self._features.if_match and tokens is not None:
            self._put(key, 4, tokens)

    @rule(number=number, start=st.integers(0, 20), length=st.none() | st.integers(0, 20))
    def get(self, number: int, start: int, length: int | None) -> None:
        key, stop = self._key(number), None if length is None else start + length
        self._same(lambda bucket, _: bucket.get(key, start=start, stop=stop))

    @rule(number=number, which=number)
    def get_if_match(self, number: int, which: int) -> None:
        key = self._key(number)
        tokens = self._token(key, which)
        if tokens is not None:
            self._same(lambda bucket, token: bucket.get(key, if_match=token), tokens)

    @rule(number=number)
    def stat(self, number: int) -> None:
        key = self._key(number)
        self._same(lambda bucket, _: _plain(bucket.stat(key)))

    @rule(number=number)
    def exists(self, number: int) -> None:
        key = self._key(number)
        self._same(lambda bucket, _: bucket.exists(key))

    @rule(number=number)
    def delete(self, number: int) -> None:
        key = self._key(number)
        self._same(lambda bucket, _: bucket.delete(key))

    @rule(number=number, which=number)
    def delete_if_match(self, number: int, which: int) -> None:
        key = self._key(number)
        tokens = self._token(key, which)
        if self._features.delete_if_match and tokens is not None:
            self._same(lambda bucket, token: bucket.delete(key, if_match=token), tokens)

    @rule(numbers=st.lists(number, max_size=3))
    def delete_many(self, numbers: list[int]) -> None:
        keys = [self._key(number) for number in numbers]
        self._same(lambda bucket, _: bucket.delete_many(keys))

    @rule(number=number, to=number)
    def copy(self, number: int, to: int) -> None:
        key, to_key = self._key(number), self._key(to)
        if key == to_key:
            return
        copied = self._same(lambda bucket, _: bucket.copy(key, to_key), compare=_plain)
        if copied is not None:
            # Forget older tokens of the target: a digest may be the source's, and come back with the next copy.
            self._tokens[to_key] = [(copied[0].token, copied[1].token)]

    @rule(prefix=st.sampled_from(_PREFIXES), after=st.none() | number, limit=st.none() | st.integers(0, 5))
    def list(self, prefix: str, after: int | None, limit: int | None) -> None:
        start_after = None if after is None else self._key(after)
        self._same(
            lambda bucket, _: [
                (item.key, item.size) for item in bucket.list(prefix, start_after=start_after, limit=limit)
            ]
        )

    @rule(prefix=st.sampled_from(_PREFIXES), delimiter=st.sampled_from("/c"), limit=st.none() | st.integers(0, 5))
    def list_folder(self, prefix: str, delimiter: str, limit: int | None) -> None:
        self._same(
            lambda bucket, _: [_named(item) for item in bucket.list_folder(prefix, delimiter=delimiter, limit=limit)]
        )

    def _key(self, number: int) -> str:
        return self._keys[number % len(self._keys)]

    def _token(self, key: str, which: int) -> tuple[Token, Token] | None:
        tokens = self._tokens.get(key)
        return tokens[which % len(tokens)] if tokens else None

    def _put(self, key: str, size: int, tokens: tuple[Token, Token] | None = None, *, if_absent: bool = False) -> None:
        self._writes += 1
        data = b"%d:" % self._writes + b"x" * size
        headers = Headers(content_type="text/x-machine") if self._features.headers else None
        metadata = {"write": str(self._writes)} if self._features.metadata else None

        def write(bucket: Bucket, token: Token | None) -> ObjectInfo:
            return bucket.put(key, data, headers=headers, metadata=metadata, if_absent=if_absent, if_match=token)

        written = self._same(write, tokens, compare=_plain)
        if written is not None:
            self._tokens.setdefault(key, []).append((written[0].token, written[1].token))

    def _same(
        self,
        call: Callable[[Bucket, Token | None], Any],
        tokens: tuple[Token, Token] | None = None,
        *,
        compare: Callable[[Any], Any] = lambda result: result,
    ) -> tuple[Any, Any] | None:
        """Make one call of both; return both results if they are alike and no errors."""
        real_token, model_token = tokens or (None, None)
        expected = _tried(call, self._model, model_token)
        found = _tried(call, self._real, real_token)
        if isinstance(expected, _Failed) or isinstance(found, _Failed):
            assert found == expected
            return None
        assert compare(found) == compare(expected)
        return found, expected


def _tried(call: Callable[[Bucket, Token | None], Any], bucket: Bucket, token: Token | None) -> Any:  # noqa: ANN401  whatever the call answers
    try:
        return call(bucket, token)
    except OperationError as exc:
        return _Failed(type(exc).__name__)


def _plain(info: ObjectInfo) -> tuple[str, int, str | None, dict[str, str]]:
    """Return what two stores must agree on."""
    return info.key, info.size, info.headers.content_type, dict(info.metadata)


def _named(item: ObjectSummary | CommonPrefix) -> tuple[str, int | None]:
    return (item.prefix, None) if isinstance(item, CommonPrefix) else (item.key, item.size)
