"""The double of AWS keeps AWS's rules where moto does not, and is what any client of AWS can be pointed at."""

from __future__ import annotations

import gc
import subprocess
import sys
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from shiftable.errors import ConfigError
from shiftable_aws.double import AwsDouble

Client = Any


@pytest.fixture
def client(aws_double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Client]:
    """Return plain boto3 clients: the double is tested without anything of ours."""
    for name, value in aws_double.environ.items():
        monkeypatch.setenv(name, value)
    session: Any = boto3.Session()

    def make(service: str, **options: Any) -> Client:
        retries = Config(retries={"total_max_attempts": 1}, signature_version=options.pop("signature_version", None))
        return session.client(service, config=retries, **options)

    return make


@pytest.fixture
def secrets(client: Callable[..., Client]) -> Client:
    return client("secretsmanager")


@pytest.fixture
def s3(client: Callable[..., Client], aws_double: AwsDouble) -> Client:
    made = client("s3", signature_version="s3v4")
    made.create_bucket(Bucket="shop", CreateBucketConfiguration={"LocationConstraint": aws_double.region})
    made.put_object(Bucket="shop", Key="a b/ü%+", Body=b"content")
    return made


def refused(act: Callable[..., object], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        act(**arguments)
    return str(caught.value.response["Error"]["Code"])


def fetched(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310  it is the double's own
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


# Secrets Manager


@pytest.mark.parametrize("name", ["with space", "ü", "a:b", "a\\b", "x" * 513])
def test_a_name_that_aws_refuses_is_refused(secrets: Client, name: str) -> None:
    expected = {"ParamValidationError", "ValidationException"}
    with pytest.raises(Exception, match="name|Name") as caught:
        secrets.create_secret(Name=name, SecretString="value")
    found = getattr(caught.value, "response", {}).get("Error", {}).get("Code", type(caught.value).__name__)
    assert found in expected


@pytest.mark.parametrize(
    "value", [{"SecretString": "x" * 65_537}, {"SecretBinary": b"x" * 65_537}, {"SecretString": "é" * 32_769}]
)
def test_a_value_above_64_kib_is_refused(secrets: Client, value: dict[str, Any]) -> None:
    raw = boto3.Session().client("secretsmanager", config=Config(parameter_validation=False))
    secrets.create_secret(Name="known", SecretString="value")

    assert refused(raw.create_secret, Name="key", **value) == "ValidationException"
    assert refused(raw.put_secret_value, SecretId="known", **value) == "ValidationException"
    secrets.put_secret_value(SecretId="known", SecretString="x" * 65_536)


def test_text_and_bytes_at_once_are_refused(secrets: Client) -> None:
    both = {"SecretString": "text", "SecretBinary": b"bytes"}
    assert refused(secrets.create_secret, Name="key", **both) == "InvalidParameterException"


def test_an_empty_value_is_refused(secrets: Client) -> None:
    raw = boto3.Session().client("secretsmanager", config=Config(parameter_validation=False))
    assert refused(raw.create_secret, Name="key", SecretString="") == "ValidationException"
    assert secrets.list_secrets()["SecretList"] == []


def test_a_name_that_is_scheduled_for_deletion_is_taken(secrets: Client) -> None:
    secrets.create_secret(Name="key", SecretString="value")
    secrets.delete_secret(SecretId="key")

    assert refused(secrets.create_secret, Name="key", SecretString="other") == "InvalidRequestException"
    assert refused(secrets.put_secret_value, SecretId="key", SecretString="other") == "InvalidRequestException"
    assert refused(secrets.get_secret_value, SecretId="key") == "InvalidRequestException"


def test_a_scheduled_deletion_happens(secrets: Client, aws_double: AwsDouble) -> None:
    secrets.create_secret(Name="key", SecretString="value")
    secrets.delete_secret(SecretId="key", RecoveryWindowInDays=7)

    aws_double.clock.advance(6 * 86_400)
    assert "DeletedDate" in secrets.describe_secret(SecretId="key")
    aws_double.clock.advance(86_401)
    assert refused(secrets.describe_secret, SecretId="key") == "ResourceNotFoundException"


def test_the_current_value_is_current_after_a_promotion(secrets: Client) -> None:
    first = secrets.create_secret(Name="key", SecretString="one")["VersionId"]
    second = secrets.put_secret_value(SecretId="key", SecretString="two")["VersionId"]
    secrets.update_secret_version_stage(
        SecretId="key", VersionStage="AWSCURRENT", MoveToVersionId=first, RemoveFromVersionId=second
    )

    assert secrets.get_secret_value(SecretId="key")["SecretString"] == "one"
    third = secrets.put_secret_value(SecretId="key", SecretString="three")["VersionId"]
    stages = secrets.describe_secret(SecretId="key")["VersionIdsToStages"]
    assert {id_: labels for id_, labels in stages.items() if labels} == {third: ["AWSCURRENT"], first: ["AWSPREVIOUS"]}


def test_a_stage_moves_only_from_where_it_is(secrets: Client) -> None:
    first = secrets.create_secret(Name="key", SecretString="one")["VersionId"]
    secrets.put_secret_value(SecretId="key", SecretString="two", VersionStages=["AWSPENDING"])

    move = {"SecretId": "key", "VersionStage": "AWSPENDING", "MoveToVersionId": first}
    assert refused(secrets.update_secret_version_stage, **move) == "InvalidParameterException"


def test_a_version_has_at_most_twenty_stages(secrets: Client) -> None:
    secrets.create_secret(Name="key", SecretString="one")
    raw = boto3.Session().client("secretsmanager", config=Config(parameter_validation=False))
    stages = [f"stage-{number}" for number in range(21)]
    assert refused(raw.put_secret_value, SecretId="key", SecretString="two", VersionStages=stages) == (
        "LimitExceededException"
    )


def test_a_request_token_is_good_for_one_value_also_of_a_pending_version(secrets: Client) -> None:
    secrets.create_secret(Name="key", SecretString="one")
    token = {"ClientRequestToken": "0" * 32, "VersionStages": ["AWSPENDING"]}
    secrets.put_secret_value(SecretId="key", SecretString="two", **token)

    assert refused(secrets.put_secret_value, SecretId="key", SecretString="three", **token) == "ResourceExistsException"


def test_versions_are_listed_in_pages_with_their_own_times(secrets: Client) -> None:
    ids = [secrets.create_secret(Name="key", SecretString="0")["VersionId"]]
    ids += [secrets.put_secret_value(SecretId="key", SecretString=str(n))["VersionId"] for n in range(1, 5)]

    shown = secrets.list_secret_version_ids(SecretId="key")["Versions"]
    listed: list[dict[str, Any]] = []
    token: dict[str, str] | None = {}
    while token is not None:
        page = secrets.list_secret_version_ids(SecretId="key", IncludeDeprecated=True, MaxResults=2, **token)
        assert len(page["Versions"]) <= 2
        listed += page["Versions"]
        token = {"NextToken": page["NextToken"]} if "NextToken" in page else None

    assert {entry["VersionId"] for entry in shown} == set(ids[-2:])
    assert [entry["VersionId"] for entry in sorted(listed, key=lambda entry: entry["CreatedDate"])] == ids
    assert len({entry["CreatedDate"] for entry in listed}) == 5


def test_the_versions_of_a_missing_secret_are_not_found(secrets: Client) -> None:
    with pytest.raises(ClientError) as caught:
        secrets.list_secret_version_ids(SecretId="missing")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


# S3


def test_a_presigned_url_does_what_it_was_signed_for(s3: Client) -> None:
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "shop", "Key": "a b/ü%+"}, ExpiresIn=60)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": "shop", "Key": "new"}, ExpiresIn=60)

    assert fetched(url) == (200, b"content")
    assert fetched(put, "PUT", b"new content")[0] == 200
    assert s3.get_object(Bucket="shop", Key="new")["Body"].read() == b"new content"
    assert b"<Code>SignatureDoesNotMatch</Code>" in fetched(url, "DELETE")[1]
    assert b"<Code>SignatureDoesNotMatch</Code>" in fetched(url.replace("/shop/", "/other/"))[1]


@pytest.mark.parametrize("content", [b"a=1&b=2", b"key=x", b"--x", b"", bytes(range(256))])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_is_put_is_content_though_it_calls_itself_a_form(s3: Client, content: bytes, kind: str) -> None:
    s3.put_object(Bucket="shop", Key="form", Body=content, ContentType=kind)
    found = s3.get_object(Bucket="shop", Key="form")
    assert (content, kind) == (found["Body"].read(), found["ContentType"])
    upload = s3.create_multipart_upload(Bucket="shop", Key="parts", ContentType=kind)["UploadId"]
    part = s3.upload_part(Bucket="shop", Key="parts", UploadId=upload, PartNumber=1, Body=content)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket="shop", Key="parts", UploadId=upload, MultipartUpload=parts)
    assert content == s3.get_object(Bucket="shop", Key="parts")["Body"].read()


def test_a_presigned_url_expires(s3: Client, aws_double: AwsDouble) -> None:
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "shop", "Key": "a b/ü%+"}, ExpiresIn=60)
    aws_double.clock.advance(61)

    status, body = fetched(url)

    assert status == 403
    assert b"Request has expired" in body


def test_a_signature_of_version_2_is_refused_as_in_newer_regions(client: Callable[..., Client], s3: Client) -> None:
    old = client("s3", signature_version="s3")
    url = old.generate_presigned_url("get_object", Params={"Bucket": "shop", "Key": "a"}, ExpiresIn=60)

    assert b"<Code>InvalidRequest</Code>" in fetched(url)[1]


def test_nobody_writes_without_a_signature(s3: Client, aws_double: AwsDouble) -> None:
    assert fetched(f"{aws_double.url}/shop/new", "PUT", b"x")[0] == 403
    assert fetched(f"{aws_double.url}/shop/a%20b/%C3%BC%25%2B")[0] == 403
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="shop")["Contents"]] == ["a b/ü%+"]


@pytest.mark.parametrize("write", ["put_object", "create_multipart_upload"])
def test_metadata_above_2_kib_is_refused(s3: Client, write: str) -> None:
    getattr(s3, write)(Bucket="shop", Key="k", Metadata={"n": "x" * 2047})
    with pytest.raises(ClientError, match="MetadataTooLarge"):
        getattr(s3, write)(Bucket="shop", Key="k", Metadata={"n": "x" * 2048})


def test_metadata_names_with_underscores_are_kept(s3: Client) -> None:
    s3.put_object(Bucket="shop", Key="m", Body=b"", Metadata={"under_score": "1", "dash-ed": "2"})
    assert s3.head_object(Bucket="shop", Key="m")["Metadata"] == {"under_score": "1", "dash-ed": "2"}


# credentials


@pytest.mark.parametrize(
    ("service", "operation", "codes"),
    [
        ("s3", "list_buckets", ("InvalidAccessKeyId", "SignatureDoesNotMatch")),
        ("secretsmanager", "list_secrets", ("UnrecognizedClientException", "InvalidSignatureException")),
        ("sts", "get_caller_identity", ("InvalidAccessKeyId", "SignatureDoesNotMatch")),
    ],
)
def test_wrong_credentials_are_refused(
    client: Callable[..., Client], service: str, operation: str, codes: tuple[str, str]
) -> None:
    unknown = client(service, aws_access_key_id="AKIAUNKNOWN000000000", aws_secret_access_key="x")
    wrong = client(service, aws_access_key_id="AKIASHIFTABLEDOUBLE0", aws_secret_access_key="x")

    assert (refused(getattr(unknown, operation)), refused(getattr(wrong, operation))) == codes


def test_credentials_of_an_assumed_role_work_with_their_token_only(client: Callable[..., Client]) -> None:
    role = client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="test")["Credentials"]
    keys = {"aws_access_key_id": role["AccessKeyId"], "aws_secret_access_key": role["SecretAccessKey"]}

    assert client("s3", **keys, aws_session_token=role["SessionToken"]).list_buckets()["Buckets"] == []
    assert refused(client("s3", **keys, aws_session_token="wrong").list_buckets) == "InvalidToken"


# the double itself


def test_two_doubles_of_aws_do_not_share_a_process(aws_double: AwsDouble) -> None:
    with pytest.raises(ConfigError, match=f"runs in this process, on {aws_double.url}"):
        AwsDouble().start()
    assert fetched(aws_double.url)[0] != 0


def test_reset_empties_all_services(s3: Client, secrets: Client, aws_double: AwsDouble) -> None:
    secrets.create_secret(Name="key", SecretString="value")
    aws_double.reset()

    assert s3.list_buckets()["Buckets"] == []
    assert secrets.list_secrets()["SecretList"] == []


def test_reset_leaves_nothing_of_a_region_in_memory(client: Callable[..., Client], aws_double: AwsDouble) -> None:
    client("ec2").describe_subnets()
    left = weakref.ref(get_backend("ec2")[DEFAULT_ACCOUNT_ID][aws_double.region])
    aws_double.reset()
    gc.collect()
    assert left() is None


def test_the_log_names_service_and_operation(s3: Client, secrets: Client, aws_double: AwsDouble) -> None:
    secrets.create_secret(Name="key", SecretString="CANARY")

    assert [(call.service, call.operation) for call in aws_double.calls][-2:] == [
        ("s3", ""),
        ("secretsmanager", "CreateSecret"),
    ]
    assert "CANARY" not in repr(aws_double.calls)


def test_another_process_reaches_it_by_the_environment(aws_double: AwsDouble, s3: Client) -> None:
    code = "import boto3; print([b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=aws_double.environ, capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == "['shop']"


def test_a_missing_moto_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['moto'] = None\n"
        "try:\n    import shiftable_aws.double\n"
        "except Exception as exc:\n    print(type(exc).__name__, exc)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.startswith("ConfigError")
    assert 'pip install "shiftable-aws[testing]"' in run.stdout
