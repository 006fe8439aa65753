"""Lost answers, kills, other writers and other tools: no value is lost, none is stored twice, no reader sees a half."""

from __future__ import annotations

import base64
import contextlib
import doctest
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftable.config import Credential
from shiftable.errors import (
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Throttled,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from shiftable.secrets import Secret, Secrets, SecretStore
from shiftable.testing.harness import Call, Kind
from shiftable_gcp import GcpProvider, GcpSettings, _secret_state
from shiftable_gcp._crc32c import crc32c
from shiftable_gcp._secret_manager import StoredSecret
from shiftable_gcp._secret_state import Entry, Journal, mark_of
from shiftable_gcp._secret_writes import Write as Put
from shiftable_gcp.double import GcpDouble
from shiftable_gcp.secrets import SecretManagerDriver

from .hostile import meanwhile, opened
from .wire import Outsider

pytestmark = pytest.mark.usefixtures("short_waits")

SOON = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def store(provider: GcpProvider) -> SecretStore:
    return Secrets(provider.secrets()).store("shop")


@pytest.fixture
def impatient(hasty: GcpProvider) -> SecretStore:
    """Return a store that gives up soon."""
    return Secrets(hasty.secrets()).store("shop")


def stored(double: GcpDouble, id_: str = "shop__key") -> StoredSecret:
    return double.secrets.secrets[double.secrets.number(double.project), id_]


def versions(double: GcpDouble) -> list[tuple[int, str, bytes | None]]:
    return [(each.number, each.state, each.payload) for each in stored(double).versions.values()]


def calls_of(double: GcpDouble) -> list[str]:
    return [call.operation.rpartition("secrets.")[2] for call in double.calls if call.service == "secretmanager"]


def of(operation: str) -> Callable[[Call], bool]:
    return lambda call: call.operation == f"secretmanager.projects.secrets.{operation}"


def to_secrets(call: Call) -> bool:
    return call.service == "secretmanager"


def error(code: int, status: str, reason: str = "") -> dict[str, Any]:
    details = [{"reason": reason}] if reason else []
    body = {"error": {"code": code, "message": "said", "status": status, "details": details}}
    return {"status": code, "body": json.dumps(body).encode()}


class Foreign(Outsider):
    def __init__(self, double: GcpDouble) -> None:
        super().__init__(double.secrets, f"/v1/projects/{double.project}/secrets")
        self.double = double

    def create(self, id_: str, *values: bytes, **facts: Any) -> None:
        self.ask("POST", f"?secretId={id_}", {"replication": {"automatic": {}}, **facts})
        for value in values:
            self.add(id_, value)

    def add(self, id_: str, value: bytes) -> None:
        self.ask("POST", f"/{id_}:addVersion", {"payload": {"data": base64.b64encode(value).decode()}})

    def turn(self, id_: str, number: int, verb: str) -> None:
        self.ask("POST", f"/{id_}/versions/{number}:{verb}", {})

    def patch(self, id_: str, **facts: Any) -> None:
        self.ask("PATCH", f"/{id_}?updateMask={','.join(facts)}", facts)


@pytest.fixture
def foreign(gcp_double: GcpDouble) -> Foreign:
    return Foreign(gcp_double)


# what goes wrong on the way


@attrs.frozen
class Write:
    """One way to write, the call that the fault strikes, and what is there in the end: values by stage, and all."""

    name: str
    act: Callable[[SecretStore], object]
    strikes: str
    stages: dict[str, bytes]
    values: tuple[bytes, ...]


def first(store: SecretStore) -> str:
    return next(entry.version for entry in store.history("key") if not entry.stages)


OLD = {"current": b"two", "previous": b"one", "pending": b"three"}
NEW = {"current": b"new", "previous": b"two", "pending": b"three"}
ALL = (b"zero", b"one", b"two", b"three")
WRITES = (
    Write("put", lambda s: s.put("key", "new"), "addVersion", NEW, (*ALL, b"new")),
    Write("put settles", lambda s: s.put("key", "new"), "patch", NEW, (*ALL, b"new")),
    Write("keyed", lambda s: s.put("key", "new", idempotency_key="k"), "addVersion", NEW, (*ALL, b"new")),
    Write("swap", lambda s: s.put("key", "new", if_match=s.get("key").token), "addVersion", NEW, (*ALL, b"new")),
    Write("swap settles", lambda s: s.put("key", "new", if_match=s.get("key").token), "patch", NEW, (*ALL, b"new")),
    Write(
        "pending",
        lambda s: s.put("key", "new", stage="pending"),
        "addVersion",
        {**OLD, "pending": b"new"},
        (*ALL, b"new"),
    ),
    Write("create", lambda s: s.put("fresh", "new", if_absent=True), "create", OLD, ALL),
    Write("create adds", lambda s: s.put("fresh", "new", if_absent=True), "addVersion", OLD, ALL),
    Write("create settles", lambda s: s.put("fresh", "new", if_absent=True), "patch", OLD, ALL),
    Write(
        "promote",
        lambda s: s.promote("key", s.get("key", stage="pending").version),
        "patch",
        {"current": b"three", "previous": b"two"},
        ALL,
    ),
    Write("disable", lambda s: s.disable("key", first(s)), "versions.disable", OLD, ALL),
    Write("destroy", lambda s: s.destroy("key", first(s)), "versions.destroy", OLD, ALL[1:]),
    Write("relabel", lambda s: s.update("key", labels={"a": "B c"}, expires=SOON), "patch", OLD, ALL),
    Write(
        "relabel swaps",
        lambda s: s.update("key", labels={"a": "B c"}, if_match=s.get("key").token),
        "patch",
        OLD,
        ALL,
    ),
)
FAULTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    ("drop_before", {}),
    ("drop_after", {}),
    ("truncate", {}),
    ("status", error(503, "UNAVAILABLE")),
    ("status", error(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED")),
    ("status", {"status": 502, "body": b"<html>a proxy's page</html>"}),
)
NAMES = ("drop before", "drop after", "truncate", "unavailable", "throttled", "proxy")


@pytest.fixture
def filled(store: SecretStore, gcp_double: GcpDouble) -> SecretStore:
    """Return a store with a secret of four versions, one of which has no stage."""
    for value in ("zero", "one", "two"):
        store.put("key", value)
    store.put("key", "three", stage="pending")
    gcp_double._calls.clear()
    return store


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)
@pytest.mark.parametrize(("kind", "options"), FAULTS, ids=NAMES)
def test_a_write_is_executed_once_whatever_happens_to_its_answer(
    filled: SecretStore, gcp_double: GcpDouble, write: Write, kind: Kind, options: dict[str, Any]
) -> None:
    fault = gcp_double.inject(kind, match=of(write.strikes), **options)

    write.act(filled)

    secret = stored(gcp_double)
    assert fault.hits == 1
    assert {stage: secret.versions[number].payload for stage, number in secret.aliases.items()} == write.stages
    assert tuple(each.payload for each in secret.versions.values() if each.payload is not None) == write.values
    if "create" in write.name:
        assert [(1, "ENABLED", b"new")] == [
            (each.number, each.state, each.payload) for each in stored(gcp_double, "shop__fresh").versions.values()
        ]
        assert filled.get("fresh").reveal() == "new"


@pytest.mark.parametrize(("kind", "options"), FAULTS, ids=NAMES)
def test_a_deletion_is_executed_once_whatever_happens_to_its_answer(
    filled: SecretStore, gcp_double: GcpDouble, kind: Kind, options: dict[str, Any]
) -> None:
    fault = gcp_double.inject(kind, match=of("delete"), **options)

    filled.purge("key")

    assert fault.hits == 1
    assert not filled.exists("key")
    with pytest.raises(NotFound):
        filled.purge("key")


@pytest.mark.parametrize("operation", ["get", "versions.access", "versions.list", "list"])
@pytest.mark.parametrize(("kind", "options"), FAULTS, ids=NAMES)
def test_a_read_is_asked_for_again(
    filled: SecretStore, gcp_double: GcpDouble, operation: str, kind: Kind, options: dict[str, Any]
) -> None:
    fault = gcp_double.inject(kind, match=of(operation), **options)

    assert filled.get("key").reveal() == "two"
    assert [entry.version for entry in filled.history("key")] == ["4", "3", "2", "1"]
    assert [info.name for info in filled.list()] == ["key"]
    assert fault.hits == 1


@pytest.mark.parametrize("operation", ["get", "versions.access", "versions.list", "list"])
def test_answers_that_always_end_early_are_never_taken_for_whole(
    filled: SecretStore, impatient: SecretStore, gcp_double: GcpDouble, operation: str
) -> None:
    gcp_double.inject("truncate", match=of(operation), times=None)

    with pytest.raises(Unavailable):
        list(impatient.list()), list(impatient.history("key")), impatient.get("key")


def test_throttling_that_does_not_end_is_throttled_and_nothing_is_stored(
    filled: SecretStore, impatient: SecretStore, gcp_double: GcpDouble
) -> None:
    slow = error(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED")
    gcp_double.inject("status", match=of("addVersion"), times=None, headers=[("Retry-After", "7")], **slow)

    with pytest.raises(Throttled) as caught:
        impatient.put("key", "new")

    assert (caught.value.code, caught.value.retry_after) == ("RATE_LIMIT_EXCEEDED", 7.0)
    assert len(stored(gcp_double).versions) == 4


def test_the_quotas_of_a_project_are_kept_and_told(impatient: SecretStore, gcp_double: GcpDouble) -> None:
    impatient.put("key", "value")
    gcp_double.limit_secrets(read=3)

    for _ in range(3):
        impatient.get("key")
    with pytest.raises(Throttled):
        impatient.get("key")
    gcp_double.clock.advance(timedelta(minutes=1))
    assert impatient.get("key").reveal() == "value"


# a put that ends in the middle


def test_a_put_that_died_before_its_stage_was_moved_is_not_seen_and_the_next_one_heals(
    filled: SecretStore, impatient: SecretStore, gcp_double: GcpDouble
) -> None:
    stop = gcp_double.inject("drop_before", match=of("patch"), times=None)
    with pytest.raises(Unavailable):
        impatient.put("key", "new", idempotency_key="k")
    stop.times = 0

    assert len(stored(gcp_double).versions) == 5
    assert (filled.get("key").reveal(), filled.get("key", stage="previous").reveal()) == ("two", "one")

    healed = filled.put("key", "new", idempotency_key="k")

    assert (healed.version, healed.stages) == ("5", {"current"})
    assert filled.get("key").reveal() == "new"
    assert [(5, "ENABLED", b"new"), (6, "DESTROYED", None)] == versions(gcp_double)[4:]
    assert ["5", "4", "3", "2", "1"] == [entry.version for entry in filled.history("key")]


def test_a_put_that_died_leaves_the_next_one_of_another_value_alone(
    filled: SecretStore, impatient: SecretStore, gcp_double: GcpDouble
) -> None:
    stop = gcp_double.inject("drop_before", match=of("patch"), times=None)
    with pytest.raises(Unavailable):
        impatient.put("key", "lost", idempotency_key="k")
    stop.times = 0

    filled.put("key", "new", idempotency_key="l")

    assert (filled.get("key").reveal(), filled.get("key", stage="previous").reveal()) == ("new", "two")
    again = filled.put("key", "lost", idempotency_key="k")  # it never became part of the secret, so it is stored now
    assert (again.stages, filled.get("key", stage="previous").reveal()) == ({"current"}, "new")


@pytest.mark.parametrize("operation", ["addVersion", "patch"])
def test_a_secret_that_was_only_half_made_is_as_if_it_were_not_there(
    store: SecretStore, impatient: SecretStore, gcp_double: GcpDouble, operation: str
) -> None:
    stop = gcp_double.inject("drop_before", match=of(operation), times=None)
    with pytest.raises(Unavailable):
        impatient.put("key", "lost", labels={"of": "the-lost"})
    stop.times = 0

    assert stored(gcp_double)
    assert not store.exists("key")
    assert [] == list(store.list())
    for act in (lambda: store.get("key"), lambda: store.put("key", "x", stage="pending"), lambda: store.history("key")):
        with pytest.raises(NotFound):
            list(act())  # type: ignore[call-overload]  # a history is read when it is iterated
    made = store.put("key", "new", if_absent=True)
    assert (dict(made.labels), made.stages) == ({}, {"current"})
    assert store.get("key").reveal() == "new"
    with pytest.raises(NotFound):
        store.get("key", stage="previous")


def test_a_process_that_is_killed_between_both_calls_leaves_the_old_value_current(
    filled: SecretStore, gcp_double: GcpDouble, tmp_path: Path
) -> None:
    (tmp_path / "shiftable.toml").write_text(
        f'[project]\nname = "shop"\n[environments.production]\nprovider = "g"\n[secrets.app]\nprefix = "shop"\n'
        f'[providers.g]\ntype = "gcp"\nproject = "{gcp_double.project}"\nendpoint = "{gcp_double.url}"\n'
    )
    stop = gcp_double.inject("drop_before", match=of("patch"), times=None)
    environ = {**os.environ, "SHIFTABLE_ENV": "production"}
    command = [str(Path(sys.executable).parent / "shiftable"), "secrets", "set", "app", "key"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"new")
        process.stdin.close()
        while not stop.hits:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    stop.times = 0

    assert len(stored(gcp_double).versions) == 5
    assert (filled.get("key").reveal(), filled.get("key", stage="pending").reveal()) == ("two", "three")
    assert filled.put("key", "newer").stages == {"current"}
    assert (filled.get("key").reveal(), filled.get("key", stage="previous").reveal()) == ("newer", "two")


def from_call(number: int) -> Callable[[Call], bool]:
    """Match that call to Secret Manager and all that follow."""
    seen = itertools.count(1)
    return lambda call: to_secrets(call) and next(seen) >= number


def left(foreign: Foreign, scenario: str) -> None:
    """Make what is there before: nothing, another tool's secret, or one of ours."""
    if scenario == "theirs":
        foreign.create("shop__key", b"old", b"older")
        foreign.turn("shop__key", 2, "disable")
    elif scenario == "ours":
        provider = opened(foreign.double)
        Secrets(provider.secrets()).store("shop").put("key", "old")
        provider.close()


@pytest.mark.parametrize("last", ["drop_before", "drop_after"])
@pytest.mark.parametrize(
    ("scenario", "stage"),
    [("nothing", "current"), ("theirs", "current"), ("theirs", "pending"), ("ours", "current"), ("ours", "pending")],
)
def test_wherever_a_put_ends_readers_see_the_old_or_the_new_value_and_the_same_put_heals(
    store: SecretStore,
    impatient: SecretStore,
    foreign: Foreign,
    gcp_double: GcpDouble,
    scenario: str,
    stage: Literal["current", "pending"],
    last: Kind,
) -> None:
    """The process ends after so many calls, of which the last one was executed or not."""
    expected = {"current": b"new", "pending": b"old"}[stage]
    for calls in range(1, 9):
        gcp_double.reset()
        left(foreign, scenario)
        gcp_double.inject(last, match=from_call(calls))
        gcp_double.inject("drop_before", match=from_call(calls), times=None)  # it has not seen that one
        try:
            impatient.put("key", "new", stage=stage, idempotency_key="k")
            ended = False
        except Unavailable:
            ended = True
        gcp_double._injections.clear()

        seen = store.get("key").reveal_bytes() if scenario != "nothing" or store.exists("key") else None
        assert seen in ({b"old", expected} if scenario != "nothing" else {None, b"new"})

        healed = store.put("key", "new", stage=stage, idempotency_key="k")

        assert healed.stages == {stage}
        assert store.get("key").reveal_bytes() == expected
        assert 1 == [payload for _, _, payload in versions(gcp_double)].count(b"new")
        if scenario != "nothing" and stage == "current":
            assert store.get("key", stage="previous").reveal() == "old"
        if not ended:
            break
    else:
        pytest.fail("it never ended by itself")


# other writers


def test_whoever_moves_the_stages_first_wins_and_the_loser_s_version_is_destroyed(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    token = filled.get("key").token
    meanwhile(watched, "addVersion", lambda: impatient.put("key", "theirs"))

    with pytest.raises(PreconditionFailed):
        filled.put("key", "ours", if_match=token)

    assert filled.get("key").reveal() == "theirs"
    assert [(5, "DESTROYED", None), (6, "ENABLED", b"theirs")] == versions(watched)[4:]


def test_of_two_without_conditions_the_later_is_current_and_the_other_previous(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    meanwhile(watched, "addVersion", lambda: impatient.put("key", "theirs", labels={"by": "them"}))

    ours = filled.put("key", "ours")

    assert (ours.stages, dict(ours.labels)) == ({"current"}, {"by": "them"})
    assert (filled.get("key").reveal(), filled.get("key", stage="previous").reveal()) == ("ours", "theirs")


def test_of_two_with_the_same_idempotency_key_one_stores(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    other: list[str] = []
    meanwhile(
        watched,
        "addVersion",
        lambda: other.append(impatient.put("key", "same", idempotency_key="k").version),
    )

    ours = filled.put("key", "same", idempotency_key="k")

    assert [ours.version] == other
    assert 1 == [payload for _, _, payload in versions(watched)].count(b"same")
    assert filled.get("key").stages == ours.stages == {"current"}


def test_a_version_that_another_put_took_over_is_not_destroyed_by_the_one_that_gave_up(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    """Ours adds; theirs, with the same value and an idempotency key, finds it and takes it; ours loses."""
    token = filled.get("key").token
    meanwhile(watched, "addVersion", lambda: impatient.put("key", "same", idempotency_key="k"))

    with contextlib.suppress(PreconditionFailed):
        filled.put("key", "same", if_match=token)

    assert filled.get("key").reveal() == "same"
    assert filled.put("key", "same", idempotency_key="k").version == filled.get("key").version


def test_who_gave_up_cannot_destroy_what_was_taken_over(
    filled: SecretStore, foreign: Foreign, gcp_double: GcpDouble
) -> None:
    driver = filled.unwrap(SecretManagerDriver)
    write = Put("shop/key", "shop__key", b"same", "current", False, None, None, None, True, "x" * 12)
    state = driver._api.read("shop/key")
    assert state is not None
    foreign.add("shop__key", b"same")
    added = foreign.ask("GET", "/shop__key/versions/5")

    taken = driver._writes._adopted(state, write)
    driver._writes._discard("shop__key", added)

    assert (taken["name"], taken["etag"] != added["etag"]) == (added["name"], True)
    assert versions(gcp_double)[4:] == [(5, "ENABLED", b"same")]
    driver._writes._discard("shop__key", taken)
    assert versions(gcp_double)[4:] == [(5, "DESTROYED", None)]
    assert driver._writes._adopted(state, write) is None


def test_two_puts_of_one_value_are_two_versions_also_when_an_answer_is_lost(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    """Ours is not executed; theirs is, with the same value, while ours looks what became of it."""
    watched.inject("status", match=of("addVersion"), **error(503, "UNAVAILABLE"))
    theirs: list[str] = []
    meanwhile(watched, "secrets.get", lambda: theirs.append(impatient.put("key", "same").version), at=2)

    ours = filled.put("key", "same", stage="pending")

    assert (["5"], "6", {"pending"}) == (theirs, ours.version, ours.stages)
    assert filled.get("key").version == "5"


def something(store: SecretStore, chance: random.Random, value: str) -> Secret | None:
    """Do one of all things that writers do."""
    match chance.choice(("put", "put", "keyed", "swap", "create", "pending", "promote")):
        case "keyed":
            return store.put("key", value, idempotency_key=f"{chance.randrange(3)}-{value}")
        case "swap":
            return store.put("key", value, if_match=store.get("key").token)
        case "create":
            return store.put("key", value, if_absent=True)
        case "pending":
            return store.put("key", value, stage="pending")
        case "promote":
            store.promote("key", chance.choice(list(store.history("key"))).version)
            return None
        case _:
            return store.put("key", value)


@pytest.mark.parametrize("seed", range(6))
def test_what_was_said_to_be_stored_is_stored_whatever_writers_and_faults_meet(
    store: SecretStore, gcp_double: GcpDouble, seed: int
) -> None:
    """Five writers, of whom many store the same value; each fourth call goes wrong."""

    def strikes(chance: random.Random) -> Callable[[Call], bool]:
        return lambda call: to_secrets(call) and chance.random() < 0.06

    kinds: tuple[Kind, ...] = ("drop_before", "drop_after", "truncate", "status")
    for number, kind in enumerate(kinds):
        gcp_double.inject(kind, match=strikes(random.Random(f"{seed} {number}")), times=None)  # noqa: S311

    def write(writer: int) -> list[Secret]:
        chance = random.Random(f"{seed} writer {writer}")  # noqa: S311
        made = []
        for number in range(5):
            with contextlib.suppress(PreconditionFailed, NotFound, Conflict, Timeout, Unavailable):
                made.append(something(store, chance, chance.choice(("same", f"{writer}-{number}"))))
        return [secret for secret in made if secret is not None]

    with ThreadPoolExecutor(5) as pool:
        told = [secret for made in pool.map(write, range(5)) for secret in made]

    there = {str(each.number): each.payload for each in stored(gcp_double).versions.values() if each.state == "ENABLED"}
    assert {secret.version: secret.reveal_bytes() for secret in told}.items() <= there.items()
    assert {str(number) for number in stored(gcp_double).aliases.values()} <= set(there)


def test_a_secret_that_is_deleted_while_it_is_written_is_made_again(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    meanwhile(watched, "addVersion", lambda: impatient.purge("key"))

    assert filled.put("key", "new").version == "1"
    assert filled.get("key").reveal() == "new"


def test_a_change_by_another_tool_while_a_version_is_added_is_kept(
    filled: SecretStore, watched: GcpDouble, foreign: Foreign
) -> None:
    meanwhile(watched, "addVersion", lambda: foreign.patch("shop__key", labels={"by": "gcloud"}))

    assert dict(filled.put("key", "new").labels) == {"by": "gcloud"}


def test_a_promotion_that_another_overtakes_is_done_anyway(
    filled: SecretStore, watched: GcpDouble, impatient: SecretStore
) -> None:
    meanwhile(watched, "versions.get", lambda: impatient.put("key", "theirs"))

    filled.promote("key", "1")

    assert (filled.get("key").reveal(), filled.get("key", stage="previous").reveal()) == ("zero", "theirs")


def test_a_refusal_for_another_reason_than_the_etag_is_not_taken_for_a_lost_race(
    filled: SecretStore, gcp_double: GcpDouble
) -> None:
    refusal = gcp_double.inject("status", match=of("patch"), times=None, **error(400, "FAILED_PRECONDITION"))

    with pytest.raises(Conflict, match="said"):
        filled.put("key", "new")

    assert refusal.hits == 1
    assert versions(gcp_double)[4:] == [(5, "DESTROYED", None)]


def test_a_refused_change_of_aliases_leaves_no_version_behind(filled: SecretStore, gcp_double: GcpDouble) -> None:
    gcp_double.inject("status", match=of("patch"), **error(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"))

    with pytest.raises(PermissionDenied) as caught:
        filled.put("key", "new")

    assert caught.value.code == "IAM_PERMISSION_DENIED"
    assert versions(gcp_double)[4:] == [(5, "DESTROYED", None)]


def test_a_version_that_may_be_current_already_is_never_destroyed(filled: SecretStore, gcp_double: GcpDouble) -> None:
    """The aliases were moved, the answer was lost, and then we were no longer let in."""
    gcp_double.inject("drop_after", match=of("patch"))
    gcp_double.inject("status", match=of("patch"), **error(403, "PERMISSION_DENIED"))

    with pytest.raises(PermissionDenied):
        filled.put("key", "new")

    assert filled.get("key").reveal() == "new"


def test_a_lost_answer_to_the_first_alias_of_another_tool_s_secret_is_no_failed_precondition(
    store: SecretStore, foreign: Foreign, gcp_double: GcpDouble
) -> None:
    foreign.create("shop__key", b"one")
    token = store.get("key").token
    drop = gcp_double.inject("drop_after", match=of("patch"))

    assert store.put("key", "two", if_match=token).stages == {"current"}
    assert (drop.hits, store.get("key", stage="previous").reveal()) == (1, "one")


def test_a_version_that_is_current_counts_also_when_the_journal_is_wiped(
    filled: SecretStore, watched: GcpDouble, foreign: Foreign
) -> None:
    watched.inject("drop_after", match=of("patch"))
    meanwhile(watched, "secrets.patch", lambda: foreign.patch("shop__key", annotations={}))

    assert filled.put("key", "new").stages == {"current"}
    assert filled.get("key").reveal() == "new"


def test_a_version_that_may_not_be_destroyed_is_left_and_told(
    filled: SecretStore, gcp_double: GcpDouble, caplog: pytest.LogCaptureFixture
) -> None:
    gcp_double.inject("status", match=of("patch"), **error(403, "PERMISSION_DENIED"))
    gcp_double.inject("status", match=of("versions.destroy"), **error(403, "PERMISSION_DENIED"))

    with pytest.raises(PermissionDenied):
        filled.put("key", "new")

    assert "version 5 of shop__key is left over: Forbidden" in caplog.text
    assert filled.get("key").reveal() == "two"


# who asks


def test_a_wrong_key_is_unauthenticated_and_told_without_it(gcp_double: GcpDouble) -> None:
    key = json.loads(gcp_double.config["service_account"].reveal())
    with GcpDouble() as other:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        wrong = {**key, "private_key": private.decode(), "token_uri": f"{other.url}/token"}
        provider = opened(gcp_double, service_account=Credential.literal(json.dumps(wrong)))
        with pytest.raises(Unauthenticated) as caught:
            Secrets(provider.secrets()).store("shop").put("key", "value")
        provider.close()
    body = private.decode().splitlines()[1]
    assert body not in f"{caught.value} {caught.value.__cause__!r}"
    assert calls_of(gcp_double) == []


def test_a_token_that_is_refused_is_unauthenticated(gcp_double: GcpDouble, store: SecretStore) -> None:
    answer = error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED")
    gcp_double.inject("status", match=of("get"), times=None, **answer)

    with pytest.raises(Unauthenticated) as caught:
        store.get("key")

    assert caught.value.code == "ACCESS_TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("status", "reason"),
    [("PERMISSION_DENIED", "SERVICE_DISABLED"), ("PERMISSION_DENIED", ""), ("PERMISSION_DENIED", "?")],
)
def test_what_is_refused_is_not_missing(gcp_double: GcpDouble, store: SecretStore, status: str, reason: str) -> None:
    gcp_double.inject("status", match=to_secrets, times=None, **error(403, status, reason))

    for act in (lambda: store.exists("key"), lambda: store.get("key"), lambda: store.put("key", "value")):
        with pytest.raises(PermissionDenied) as caught:
            act()
        assert caught.value.code == (reason if len(reason) > 1 else status)


def test_a_project_is_needed(gcp_double: GcpDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    provider = GcpProvider(GcpSettings(endpoint=gcp_double.url))

    with pytest.raises(ConfigError, match="project"):
        Secrets(provider.secrets()).store("shop").get("key")

    provider.close()


# what arrives is what was sent


def test_a_checksum_goes_with_every_value(store: SecretStore, gcp_double: GcpDouble) -> None:
    store.put("key", "value")

    assert [each.checksum_sent for each in stored(gcp_double).versions.values()] == [True]


@pytest.mark.parametrize(
    "payload",
    [
        {"data": base64.b64encode(b"valuf").decode(), "dataCrc32c": str(crc32c(b"value"))},
        {"data": "%%%", "dataCrc32c": "1"},
        {"dataCrc32c": "1"},
        {},
    ],
    ids=["another value", "no base64", "no value", "nothing"],
)
def test_a_value_that_is_not_what_its_checksum_says_is_refused_and_not_shown(
    store: SecretStore, gcp_double: GcpDouble, payload: dict[str, str]
) -> None:
    store.put("key", "value")
    body = json.dumps({"name": "projects/1/secrets/shop__key/versions/1", "payload": payload}).encode()
    gcp_double.inject("status", status=200, match=of("versions.access"), body=body)

    with pytest.raises(IntegrityError, match="checksum") as caught:
        store.get("key")

    assert not {"valuf", *payload.values()} & set(f"{caught.value!r}{caught.value.__cause__!r}".split())


def test_a_service_that_does_not_compare_is_asked_what_it_has(store: SecretStore, gcp_double: GcpDouble) -> None:
    def forgetful(value: bytes) -> None:
        store.put("key", "first")
        body = {"name": "projects/1/secrets/shop__key/versions/2", "createTime": "2026-01-02T03:04:05Z", "etag": '"1"'}
        Foreign(gcp_double).add("shop__key", value)
        gcp_double.inject("status", status=200, match=of("addVersion"), body=json.dumps(body).encode())

    forgetful(b"second")
    assert store.put("key", "second").version == "2"
    store.purge("key")
    forgetful(b"secone")
    with pytest.raises(IntegrityError):
        store.put("key", "second")
    assert store.get("key").reveal() == "first"


def test_no_log_record_holds_a_value_whatever_is_logged(
    store: SecretStore, gcp_double: GcpDouble, caplog: pytest.LogCaptureFixture
) -> None:
    canary = uuid.uuid4().hex
    google = logging.getLogger("google")
    before = google.level, google.propagate
    google.setLevel(logging.DEBUG)
    google.propagate = True
    try:
        with caplog.at_level(logging.DEBUG):
            store.put("key", canary)
            gcp_double.inject("status", status=503)
            store.get("key")
            with pytest.raises(PreconditionFailed):
                store.put("key", canary, if_absent=True)
    finally:
        google.level, google.propagate = before
    said = [repr(vars(record)) for record in caplog.records]
    assert any("google" in text for text in said)
    for form in (canary, base64.b64encode(canary.encode()).decode()[:24]):
        assert not [text for text in said if form in text]


@pytest.mark.parametrize("fault", [{"kind": "status", **error(400, "INVALID_ARGUMENT")}, {"kind": "drop_before"}])
def test_no_error_carries_the_request_that_held_the_value(
    impatient: SecretStore, gcp_double: GcpDouble, fault: dict[str, Any]
) -> None:
    canary = uuid.uuid4().hex
    gcp_double.inject(match=of("addVersion"), times=None, **fault)

    with pytest.raises(OperationError) as caught:
        impatient.put("key", canary)

    chain: BaseException | None = caught.value
    while chain is not None:
        for held in vars(chain).values():
            assert not getattr(held, "body", None)
            assert not getattr(getattr(held, "request", None), "body", None)
        chain = chain.__cause__ or chain.__context__


# other tools' secrets


def test_without_aliases_the_newest_enabled_version_is_current(store: SecretStore, foreign: Foreign) -> None:
    foreign.create("shop__key", b"one", b"two", b"three", b"four")
    foreign.turn("shop__key", 4, "disable")
    foreign.turn("shop__key", 3, "destroy")

    found = store.get("key")

    assert (found.reveal(), found.version, found.stages) == ("two", "2", {"current"})
    assert found.created is not None
    assert [("4", False, frozenset()), ("2", True, {"current"}), ("1", True, frozenset())] == [
        (entry.version, entry.enabled, entry.stages) for entry in store.history("key")
    ]
    with pytest.raises(NotFound):
        store.get("key", stage="previous")
    with pytest.raises(NotFound):
        store.get("key", version="3")
    with pytest.raises(Conflict):
        store.get("key", version="4")
    assert [("key", None)] == [(info.name, info.version) for info in store.list()]


def test_a_write_over_another_tool_s_secret_keeps_all_that_it_has(
    store: SecretStore, foreign: Foreign, gcp_double: GcpDouble
) -> None:
    foreign.create("shop__key", b"one", b"two", labels={"team": "core"}, annotations={"their.own": "x"})
    foreign.patch("shop__key", versionAliases={"prod": "1"})

    store.put("key", "three", labels={"Team": "Core & Web", "env": "prod"})

    secret = stored(gcp_double)
    assert secret.aliases == {"prod": 1, "current": 3, "previous": 2}
    assert secret.facts["labels"] == {"env": "prod"}
    assert secret.facts["annotations"]["their.own"] == "x"
    assert dict(store.get("key").labels) == {"Team": "Core & Web", "env": "prod"}


def test_a_pending_version_of_another_tool_s_secret_is_never_current(
    store: SecretStore, foreign: Foreign, watched: GcpDouble
) -> None:
    foreign.create("shop__key", b"one")
    seen: list[str] = []
    meanwhile(watched, "addVersion", lambda: seen.append(store.get("key").reveal()))

    store.put("key", "two", stage="pending")

    assert (seen, store.get("key").reveal(), store.get("key", stage="pending").reveal()) == (["one"], "one", "two")


def test_a_version_that_another_tool_adds_does_not_move_what_has_an_alias(store: SecretStore, foreign: Foreign) -> None:
    mine = store.put("key", "mine")
    foreign.add("shop__key", b"theirs")

    assert (store.get("key").reveal(), store.get("key").token) == ("mine", mine.token)
    store.promote("key", "2")
    assert (store.get("key").reveal(), store.get("key", stage="previous").reveal()) == ("theirs", "mine")


def test_a_version_that_another_tool_adds_to_its_own_secret_makes_a_new_token(
    store: SecretStore, foreign: Foreign
) -> None:
    foreign.create("shop__key", b"one")
    token = store.get("key").token
    foreign.add("shop__key", b"two")

    with pytest.raises(PreconditionFailed):
        store.put("key", "three", if_match=token)
    assert store.get("key").reveal() == "two"


def test_the_current_version_of_another_tool_s_secret_stays_current_when_it_is_disabled(
    store: SecretStore, foreign: Foreign
) -> None:
    foreign.create("shop__key", b"one", b"two")

    store.disable("key", "2")

    with pytest.raises(Conflict):
        store.get("key")
    assert store.get("key", version="1").reveal() == "one"


def test_aliases_that_another_tool_took_away_are_made_again_by_a_write(
    filled: SecretStore, foreign: Foreign, gcp_double: GcpDouble
) -> None:
    foreign.patch("shop__key", versionAliases={})

    assert filled.get("key").reveal() == "three"  # the newest enabled one
    filled.put("key", "new")
    assert stored(gcp_double).aliases == {"current": 5, "previous": 4}


@pytest.mark.parametrize("verb", ["disable", "destroy"])
def test_a_current_version_that_another_tool_took_away_is_said_to_be(
    filled: SecretStore, foreign: Foreign, verb: str
) -> None:
    foreign.turn("shop__key", 3, verb)

    with pytest.raises(Conflict if verb == "disable" else NotFound):
        filled.get("key")
    assert filled.exists("key")
    with pytest.raises(PreconditionFailed):
        filled.put("key", "new", if_absent=True)
    assert filled.put("key", "new").stages == {"current"}
    assert filled.get("key").reveal() == "new"


def test_a_secret_without_any_version_can_be_filled_but_not_read(
    store: SecretStore, foreign: Foreign, gcp_double: GcpDouble
) -> None:
    foreign.create("shop__key", labels={"made": "by-terraform"})

    assert not store.exists("key")
    with pytest.raises(NotFound):
        store.get("key")
    with pytest.raises(NotFound):
        store.update("key", labels={})
    assert dict(store.put("key", "value", if_absent=True).labels) == {"made": "by-terraform"}
    assert store.get("key").reveal() == "value"


def test_a_secret_of_which_all_versions_are_disabled_exists(store: SecretStore, foreign: Foreign) -> None:
    foreign.create("shop__key", b"one")
    foreign.turn("shop__key", 1, "disable")

    assert store.exists("key")
    with pytest.raises(NotFound):
        store.get("key")
    with pytest.raises(NotFound, match="current version first"):
        store.put("key", "x", stage="pending")
    with pytest.raises(PreconditionFailed):
        store.put("key", "x", if_absent=True)
    assert store.put("key", "two").version == "2"
    with pytest.raises(NotFound):
        store.get("key", stage="previous")


def test_a_delayed_destruction_shows_as_disabled(store: SecretStore, foreign: Foreign, gcp_double: GcpDouble) -> None:
    foreign.create("shop__key", b"one", b"two", versionDestroyTtl="86400s")

    store.destroy("key", "1")

    assert [True, False] == [entry.enabled for entry in store.history("key")]
    gcp_double.clock.advance(timedelta(days=2))
    assert ["2"] == [entry.version for entry in store.history("key")]


def test_google_s_own_expiry_is_shown_and_not_used(store: SecretStore, foreign: Foreign, gcp_double: GcpDouble) -> None:
    gone = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    foreign.create("shop__key", b"one", expireTime=gone.isoformat())
    store.put("ours", "value", expires=gone)

    assert store.get("key").expires == store.get("ours").expires == gone
    for act in (
        lambda: store.put("key", "two", expires=gone + timedelta(days=1)),
        lambda: store.update("key", expires="never"),
    ):
        with pytest.raises(Conflict, match="Google deletes the secret"):
            act()
    sooner = gone - timedelta(days=1)
    assert store.put("key", "two", expires=sooner).expires == sooner
    gcp_double.clock.advance(timedelta(days=31))
    assert ["ours"] == [info.name for info in store.list()]
    assert store.get("ours").reveal() == "value"


def test_annotations_of_ours_that_somebody_wrote_wrong_are_no_crash(store: SecretStore, foreign: Foreign) -> None:
    wrong = {
        "shiftable-labels": "[1]",
        "shiftable-expires": "soon",
        "shiftable-writes": "x 1=short 99999999999999999999 2@zz",
        "shiftable-name": "other",
    }
    foreign.create("shop__key", b"one", annotations=wrong)
    foreign.create(
        "shop__kez", b"one", annotations={"shiftable-labels": "{", "shiftable-expires": "2031-01-01T00:00:00"}
    )

    for key in ("key", "kez"):
        found = store.get(key)
        assert (found.reveal(), dict(found.labels), found.expires) == ("one", {}, None)
    assert store.put("key", "two", labels={"A": "b"}, idempotency_key="k").version == "2"
    assert dict(store.get("key").labels) == {"A": "b"}


# names


def test_names_that_are_no_ids_are_escaped_and_known_by_an_annotation(
    provider: GcpProvider, gcp_double: GcpDouble
) -> None:
    everything = Secrets(provider.secrets()).store("")
    everything.put("shop/stripe.key", "value", labels={"team": "core"})

    (secret,) = gcp_double.secrets.secrets.values()
    assert secret.id == "shop__stripe-key___6b284bf0b63e472835c96b99"
    assert secret.facts["annotations"]["shiftable-name"] == "shop/stripe.key"
    assert [("shop/stripe.key", {"team": "core"})] == [(info.name, dict(info.labels)) for info in everything.list()]
    assert dict(everything.get("shop/stripe.key").labels) == {"team": "core"}
    with pytest.raises(InvalidArgument, match="reserved"):
        everything.put("shop/stripe.key", "value", labels={"shiftable-name": "x"})


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("DB_PASSWORD", "DB_PASSWORD"),
        ("db-password", "db-password"),
        ("shop__db__password", "shop/db/password"),
        ("a__B", "a__B"),
        ("-", "-"),
        ("_", "_"),
        ("a___0123456789abcdef01234567", "~a___0123456789abcdef01234567"),
    ],
)
def test_every_secret_of_another_tool_has_a_name_that_reaches_it(
    provider: GcpProvider, foreign: Foreign, id_: str, name: str
) -> None:
    everything = Secrets(provider.secrets()).store("")
    foreign.create(id_, b"theirs")

    assert [name] == [info.name for info in everything.list()]
    assert everything.get(name).reveal() == "theirs"
    assert [name] == [info.name for info in everything.list(name[:1])]
    everything.put(name, "ours")
    assert [id_] == [secret.id for secret in foreign.double.secrets.secrets.values()]
    everything.purge(name)


def test_a_name_whose_id_another_name_has_is_refused_and_nothing_is_overwritten(
    provider: GcpProvider, foreign: Foreign
) -> None:
    everything = Secrets(provider.secrets()).store("")
    everything.put("a.b", "value")
    (secret,) = foreign.double.secrets.secrets.values()

    for act in (
        lambda: everything.put(f"~{secret.id}", "x"),
        lambda: everything.get(f"~{secret.id}"),
        lambda: everything.purge(f"~{secret.id}"),
    ):
        with pytest.raises(Conflict, match=r"taken by the secret 'a\.b'"):
            act()
    foreign.patch(secret.id, annotations={})
    with pytest.raises(Conflict, match="taken by the secret '~a-b___"):
        everything.put("a.b", "x")
    assert everything.get(f"~{secret.id}").reveal() == "value"


def test_a_name_that_is_too_long_as_an_id_is_refused_before_anything_is_sent(
    store: SecretStore, gcp_double: GcpDouble
) -> None:
    with pytest.raises(InvalidArgument, match="the limit is 255"):
        store.put("/".join(["a"] * 90), "value")
    assert gcp_double.calls == ()


def test_a_listing_asks_only_for_what_begins_so(store: SecretStore, gcp_double: GcpDouble, foreign: Foreign) -> None:
    for key in ("db/a", "db.b", "x"):
        store.put(key, "value")
    foreign.create("other__shop__db__a", b"x")
    gcp_double._calls.clear()

    assert ["db.b", "db/a"] == sorted(info.name for info in store.list("db"))

    (call,) = gcp_double.calls
    assert "filter=name%3Ashop__db" in call.query


# what is Google's own


def test_stages_are_aliases_that_other_tools_read(filled: SecretStore, foreign: Foreign, gcp_double: GcpDouble) -> None:
    def read(alias: str) -> bytes:
        return base64.b64decode(foreign.ask("GET", f"/shop__key/versions/{alias}:access")["payload"]["data"])

    assert OLD == {stage: read(stage) for stage in OLD}
    assert read("latest") == b"three"  # whatever was added last: the page of the driver says so


def test_a_new_value_costs_three_calls_and_reading_it_two(store: SecretStore, gcp_double: GcpDouble) -> None:
    store.put("key", "one")
    store.put("key", "two")
    store.get("key")

    assert calls_of(gcp_double) == [
        *("get", "create", "addVersion", "patch"),
        *("get", "addVersion", "patch"),
        *("get", "versions.access"),
    ]


def test_what_a_put_tells_of_its_version_is_what_is_read_later(store: SecretStore) -> None:
    made = store.put("key", "one", labels={"a": "b", "C": "D"}, expires=SOON, idempotency_key="k")
    found = store.get("key")

    assert made == found
    assert made == store.put("key", "one", idempotency_key="k")
    assert [made.created] == [entry.created for entry in store.history("key")]


@pytest.mark.parametrize(
    ("region", "replication"),
    [
        ("europe-west3", {"userManaged": {"replicas": [{"location": "europe-west3"}]}}),
        ("EUROPE-WEST3", {"userManaged": {"replicas": [{"location": "europe-west3"}]}}),
        ("EU", {"automatic": {}}),
        (None, {"automatic": {}}),
    ],
)
def test_secrets_are_kept_in_the_region_if_one_is_named(
    gcp_double: GcpDouble, region: str | None, replication: dict[str, Any]
) -> None:
    provider = opened(gcp_double, region=region)

    Secrets(provider.secrets()).store("shop").put("key", "value")

    provider.close()
    assert stored(gcp_double).replication == replication


def test_labels_are_google_s_where_they_can_be_and_an_annotation_where_not(
    store: SecretStore, gcp_double: GcpDouble
) -> None:
    labels = {"team": "core", "Owner": "payments", "mail": "a@b.c", "näme": "x", "": ""} | {"note": "x" * 500}
    del labels[""]
    store.put("key", "value", labels=labels)

    facts = stored(gcp_double).facts
    assert facts["labels"] == {"team": "core"}
    assert json.loads(facts["annotations"]["shiftable-labels"]) == {k: v for k, v in labels.items() if k != "team"}
    assert dict(store.get("key").labels) == labels
    store.update("key", labels={})
    assert "shiftable-labels" not in stored(gcp_double).facts["annotations"]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"shiftable-name": "x"}, "reserved"),
        ({"A": "x" * 6144}, "limit is 6,144"),
        ({"a": "\ud800"}, "Unicode"),
        ({f"a{n}": "x" for n in range(65)}, "limit is 64"),
    ],
    ids=["reserved", "long", "no text", "many"],
)
def test_labels_that_cannot_be_kept_are_refused_before_anything_is_sent(
    store: SecretStore, gcp_double: GcpDouble, labels: dict[str, str], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        store.put("key", "value", labels=labels)
    assert gcp_double.calls == ()


def test_everything_at_its_limit_fits_beside_a_secret(provider: GcpProvider, gcp_double: GcpDouble) -> None:
    everything = Secrets(provider.secrets()).store("")
    name = "ü" * 255
    labels = {"Long": "x" * 6100}
    everything.put(name, "0", labels=labels, expires=SOON)
    for number in range(1, 240):
        everything.put(name, str(number), idempotency_key=f"key-{number}")

    found = everything.get(name)
    assert (dict(found.labels), found.expires, found.reveal()) == (labels, SOON, "239")
    for number in range(60, 240):
        assert everything.put(name, str(number), idempotency_key=f"key-{number}").reveal() == str(number)
    assert len(list(everything.history(name))) == 240


def test_versions_beyond_a_page_are_all_told(store: SecretStore, gcp_double: GcpDouble) -> None:
    for number in range(7):
        store.put("key", str(number))
    store.destroy("key", "3")
    gcp_double.page_size = 2

    assert ["7", "6", "5", "4", "2", "1"] == [entry.version for entry in store.history("key")]


@pytest.mark.parametrize(
    "version", ["latest", "current", "0", "01", "-1", "1.0", "x" * 200, "\uff19", "99999999999999999999"]
)
def test_a_version_that_is_no_number_is_missing(store: SecretStore, version: str) -> None:
    store.put("key", "value")

    for act in (
        lambda: store.get("key", version=version),
        lambda: store.promote("key", version),
        lambda: store.disable("key", version),
        lambda: store.destroy("key", version),
    ):
        with pytest.raises(NotFound):
            act()


def test_an_error_that_nobody_knows_of_keeps_its_code(gcp_double: GcpDouble, store: SecretStore) -> None:
    gcp_double.inject("status", match=to_secrets, **error(418, "BRAND_NEW"))

    with pytest.raises(OperationError) as caught:
        store.get("key")

    assert (type(caught.value), caught.value.code) == (OperationError, "BRAND_NEW")


# the journal


moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  UTC
marks = st.none() | st.text("!~ab1", min_size=1)
writes = st.lists(st.tuples(st.integers(1, 10**6), st.none() | moments, marks.map(mark_of) | st.just("")))


@given(writes=writes)
def test_a_journal_is_read_as_it_was_written(writes: list[tuple[int, datetime | None, str]]) -> None:
    journal = Journal()
    for write in writes:
        journal = journal.added(*write)

    read = Journal.read(journal.text)

    assert read == journal
    assert read.newest == max((version for version, _, _ in writes), default=0)
    last = {mark: version for version, _, mark in writes}
    assert {mark: read.find(mark) for mark in last} == last
    assert read.find(mark_of("another")) is None
    assert all(version in read for version, _, _ in writes)


@given(text=st.text(st.sampled_from("0123456789=@abz- \n٣"), max_size=60))
def test_whatever_stands_there_is_a_journal(text: str) -> None:
    journal = Journal.read(text)
    assert Journal.read(journal.text) == journal


def test_a_long_journal_keeps_its_end_and_at_least_what_was_promised() -> None:
    journal = Journal(tuple(Entry(number, datetime(2026, 1, 2, tzinfo=UTC)) for number in range(1, 100)))
    for number in range(100_700, 101_000):
        journal = Journal.read(journal.added(number, datetime(2026, 1, 2, tzinfo=UTC), mark_of(str(number))).text)

    assert len(journal.text) <= 6 * 1024
    assert [entry.version for entry in journal.entries][-180:] == list(range(101_000 - 180, 101_000))


def test_the_examples_of_the_journal_are_true() -> None:
    assert doctest.testmod(_secret_state).failed == 0
