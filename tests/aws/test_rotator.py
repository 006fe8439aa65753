"""Access keys of IAM users rotate, against moto behind IAM's own limit of two keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from shiftable.app import load
from shiftable.errors import Conflict, NotFound, Timeout
from shiftable.masking import Masked
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.rotation import Rotation
from shiftable.secrets import Secrets, SecretStore
from shiftable.testing.wrap import Recorded
from shiftable_aws import AwsSettings
from shiftable_aws.rotator import IamAccessKey

if TYPE_CHECKING:
    from pathlib import Path

    from shiftable_aws.double import AwsDouble

GRACE = timedelta(hours=1)


@pytest.fixture
def iam(aws_double: AwsDouble) -> Any:
    """The administrator's own client."""
    keys = aws_double.environ
    client = boto3.client(
        "iam",
        endpoint_url=aws_double.url,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_user(UserName="shop")
    yield client
    client.close()


@pytest.fixture
def rotator(aws_double: AwsDouble) -> IamAccessKey:
    return IamAccessKey(user="shop", aws=AwsSettings(**aws_double.config), patience=timedelta(seconds=2), grace=GRACE)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SecretStore:
    return Secrets(MemorySecretsDriver(clock=clock)).store("shop")


def ids(iam: Any) -> list[str]:
    return [key["AccessKeyId"] for key in iam.list_access_keys(UserName="shop")["AccessKeyMetadata"]]


def works(double: AwsDouble, value: str) -> bool:
    content = json.loads(value)
    client = boto3.client(
        "sts",
        endpoint_url=double.url,
        region_name="us-east-1",
        aws_access_key_id=content["AccessKeyId"],
        aws_secret_access_key=content["SecretAccessKey"],
    )
    try:
        client.get_caller_identity()
    except client.exceptions.ClientError:
        return False
    finally:
        client.close()
    return True


def key_of(value: str) -> str:
    found: str = json.loads(value)["AccessKeyId"]
    return found


def test_two_keys_work_until_the_grace_is_over_and_then_the_new_one_alone(
    aws_double: AwsDouble, iam: Any, rotator: IamAccessKey, store: SecretStore, clock: Clock
) -> None:
    rotation = Rotation(store, "aws/key", rotator, clock)
    assert ("create", "finish") == rotation.run(now=True).steps
    first = store.get("aws/key").reveal()
    assert {"Version", "AccessKeyId", "SecretAccessKey"} == set(json.loads(first))
    for _ in range(3):
        before = store.get("aws/key").reveal()
        assert ("create", "set", "test", "finish") == rotation.run(now=True).steps
        after = store.get("aws/key").reveal()
        assert sorted([key_of(before), key_of(after)]) == sorted(ids(iam))
        assert works(aws_double, before)
        assert works(aws_double, after)
        clock.now += 2 * GRACE
        assert ("retire",) == rotation.run().steps
        assert [key_of(after)] == ids(iam)
        assert not works(aws_double, before)
        assert works(aws_double, after)
    assert () == rotation.run().steps


@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_key_that_was_made_and_not_stored_makes_room_when_it_is_old_enough(
    iam: Any, rotator: IamAccessKey, clock: Clock, aws_double: AwsDouble, *, ends: str
) -> None:
    recorded = Recorded(MemorySecretsDriver(clock=clock))
    store = Secrets(recorded.driver).store("shop")
    rotation = Rotation(store, "aws/key", rotator, clock)
    rotation.run(now=True)
    current = key_of(store.get("aws/key").reveal())

    def killed(_call: Any, proceed: Callable[[], Any]) -> Any:
        if ends == "after":
            proceed()
        raise KeyboardInterrupt

    recorded.on("put", killed)
    with pytest.raises(KeyboardInterrupt):
        rotation.run(now=True)
    recorded.on("put", lambda _call, proceed: proceed())
    assert 2 == len(ids(iam))
    (orphan,) = set(ids(iam)) - {current}
    if ends == "after":  # it is stored, and gone on with
        assert ("set", "test", "finish") == rotation.run().steps
        assert orphan == key_of(store.get("aws/key").reveal())
        return
    with pytest.raises(Conflict, match=f"{orphan}, which was made within the last ten minutes"):
        rotation.run(now=True)
    _moto_key(aws_double, orphan).create_date -= timedelta(minutes=11)
    assert ("create", "set", "test", "finish") == rotation.run(now=True).steps
    assert orphan not in ids(iam)
    assert current in ids(iam)


def _moto_key(double: AwsDouble, access_key: str) -> Any:
    user = double.backend("iam", "aws").users["shop"]
    return user.get_access_key_by_id(access_key)


def test_a_second_key_that_somebody_uses_is_never_deleted(
    aws_double: AwsDouble, iam: Any, rotator: IamAccessKey, store: SecretStore, clock: Clock
) -> None:
    rotation = Rotation(store, "aws/key", rotator, clock)
    rotation.run(now=True)
    foreign = iam.create_access_key(UserName="shop")["AccessKey"]
    _moto_key(aws_double, foreign["AccessKeyId"]).create_date -= timedelta(days=1)
    assert works(aws_double, json.dumps(foreign, default=str))
    with pytest.raises(Conflict, match="was last used at .*; see by whom, and delete it"):
        rotation.run(now=True)
    assert foreign["AccessKeyId"] in ids(iam)


def test_two_foreign_keys_are_told_and_left(iam: Any, rotator: IamAccessKey, store: SecretStore) -> None:
    before = [iam.create_access_key(UserName="shop")["AccessKey"]["AccessKeyId"] for _ in range(2)]
    with pytest.raises(Conflict, match="has 2 access keys, and neither is the current one"):
        Rotation(store, "aws/key", rotator).run(now=True)
    assert before == ids(iam)


def test_a_pending_key_that_iam_no_longer_has_is_replaced(
    iam: Any, rotator: IamAccessKey, store: SecretStore, clock: Clock
) -> None:
    rotation = Rotation(store, "aws/key", rotator, clock)
    rotation.run(now=True)
    gone = {"Version": 1, "AccessKeyId": "AKIA" + "GONE" * 4, "SecretAccessKey": "x" * 40}
    store.put("aws/key", json.dumps(gone), stage="pending")
    assert ("create", "set", "test", "finish") == rotation.run().steps
    assert key_of(store.get("aws/key").reveal()) in ids(iam)


def test_whoever_loses_deletes_the_key_that_it_made(iam: Any, rotator: IamAccessKey, clock: Clock) -> None:
    recorded = Recorded(MemorySecretsDriver(clock=clock))
    store = Secrets(recorded.driver).store("shop")
    rotation = Rotation(store, "aws/key", rotator, clock)
    rotation.run(now=True)
    first = store.get("aws/key")

    def meanwhile(_call: Any, proceed: Callable[[], Any]) -> Any:
        recorded.on("put", lambda _call, proceed: proceed())
        store.put("aws/key", first.value)  # somebody else's write
        return proceed()

    recorded.on("put", meanwhile)
    with pytest.raises(Conflict, match="was faster"):
        rotation.run(now=True)
    assert [key_of(first.reveal())] == ids(iam)


def test_a_key_that_never_works_is_waited_for_no_longer_than_is_said(iam: Any, rotator: IamAccessKey) -> None:
    made = rotator.create(None)
    iam.update_access_key(UserName="shop", AccessKeyId=key_of(made.reveal()), Status="Inactive")
    with pytest.raises(Timeout, match="for the access key AKIA.* to work"):
        rotator.test(made)


def test_a_user_who_does_not_exist_is_told(iam: Any, aws_double: AwsDouble, store: SecretStore) -> None:
    rotator = IamAccessKey(user="nobody", aws=AwsSettings(**aws_double.config))
    with pytest.raises(NotFound, match="rotation.create on secret 'aws/key' in prefix 'shop'"):
        Rotation(store, "aws/key", rotator).run(now=True)


@pytest.mark.parametrize(
    "value", ["text", "[]", "{}", '{"AccessKeyId": "x"}', '{"AccessKeyId": "", "SecretAccessKey": "x"}']
)
def test_a_value_that_is_no_access_key_is_refused(rotator: IamAccessKey, value: str) -> None:
    assert "it is no JSON document with AccessKeyId and SecretAccessKey" == rotator.check(Masked(value))


def test_it_is_declared_with_settings_as_those_of_a_provider(folder: Path) -> None:
    (folder / "shiftable.toml").write_text("""
[project]
name = "shop"
[environments.production]
provider = "memory"
[secrets.app.rotate."aws/key"]
kind = "aws-iam-access-key"
user = "shop"
every = "90d"
[secrets.app.rotate."aws/key".aws]
region = "eu-central-1"
access_key = { secret = "app/admin/id" }
secret_key = { secret = "app/admin/key" }
""")
    with load(folder) as app:
        app.secrets("app").put("admin/id", "AKIAX")
        spec = app.spec(app.declared("secrets")[0])
        (found,) = spec.rotate.values()  # type: ignore[attr-defined]  # a SecretsSpec
        assert isinstance(found, IamAccessKey)
        assert found.aws.access_key is not None
        assert "AKIAX" == found.aws.access_key.reveal()
