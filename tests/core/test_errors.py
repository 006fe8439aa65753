"""Errors: the tree, the translation, the text, the way through a pickle."""

import errno
import pickle
import socket
import traceback

import pytest

from shiftable import errors
from shiftable.errors import (
    ConfigError,
    Fault,
    NotFound,
    OperationError,
    ParentNotFound,
    PermissionDenied,
    Problem,
    ProviderName,
    Resource,
    Throttled,
    classify_os,
    translated,
)

OBJECT = Resource("object", "logo.png", Resource("bucket", "shop"))


class NativeError(Exception):
    pass


def claim(fault: Fault | None):
    return lambda exc: fault if isinstance(exc, NativeError) else None


def test_a_native_error_becomes_ours_with_the_native_one_as_its_cause() -> None:
    native = NativeError("boom")
    fault = Fault(PermissionDenied, "not yours", "AccessDenied", "req-1")
    with (
        pytest.raises(PermissionDenied) as caught,
        translated(claim(fault), provider="aws", operation="blob.get", resource=OBJECT),
    ):
        raise native
    assert native is caught.value.__cause__
    assert "blob.get on object 'logo.png' in bucket 'shop' (aws): not yours [AccessDenied, request req-1]" == str(
        caught.value
    )


def test_an_error_that_no_table_claims_passes_untouched() -> None:
    with pytest.raises(ZeroDivisionError), translated(claim(None), provider="aws", operation="x"):
        _ = 1 / 0


def test_an_error_of_ours_is_not_translated_again() -> None:
    ours = NotFound("gone", provider="gcp")
    with pytest.raises(NotFound) as caught, translated(lambda _: Fault(Throttled), provider="aws", operation="x"):
        raise ours
    assert ours is caught.value


def test_a_message_names_what_the_file_calls_the_provider() -> None:
    frankfurt = ProviderName("aws", "frankfurt")
    error = NotFound("gone", provider=frankfurt, operation="blob.get", resource=OBJECT)
    assert "blob.get on object 'logo.png' in bucket 'shop' (frankfurt): gone" == str(error)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert ("aws", "frankfurt", str(error)) == (again.provider, again.provider.label, str(again))
    assert "aws" == ProviderName("aws").label


@pytest.mark.parametrize(
    ("ours", "label"),
    [
        (NotFound("gone", provider="aws"), "frankfurt"),
        (NotFound("gone", provider="gcp"), "gcp"),
        (NotFound("gone"), ""),
    ],
)
def test_an_error_of_a_driver_learns_what_the_file_calls_its_provider(ours: NotFound, label: str) -> None:
    frankfurt = ProviderName("aws", "frankfurt")
    with pytest.raises(NotFound) as caught, translated(claim(None), provider=frankfurt, operation="x"):
        raise ours
    assert label == caught.value.provider.label


def test_an_error_keeps_the_label_that_it_has() -> None:
    ours = NotFound("gone", provider=ProviderName("aws", "dublin"))
    with pytest.raises(NotFound), translated(claim(None), provider=ProviderName("aws", "frankfurt"), operation="x"):
        raise ours
    assert "dublin" == ours.provider.label


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_is_not_translated(stop: type[BaseException]) -> None:
    with pytest.raises(stop), translated(lambda _: Fault(Throttled), provider="aws", operation="x"):
        raise stop


def test_a_missing_bucket_is_never_a_missing_object() -> None:
    def raised(missing: str | None) -> OperationError:
        with (
            pytest.raises(NotFound) as caught,
            translated(claim(Fault(NotFound, missing=missing)), provider="p", operation="o", resource=OBJECT),
        ):
            raise NativeError
        return caught.value

    assert type(raised("bucket")) is ParentNotFound
    assert "bucket 'shop' does not exist; `shiftable apply` makes what is declared" in str(raised("bucket"))
    assert type(raised("object")) is NotFound
    assert type(raised(None)) is NotFound


def test_a_missing_bucket_is_simply_missing_when_it_was_asked_for() -> None:
    with (
        pytest.raises(NotFound) as caught,
        translated(claim(Fault(NotFound, missing="bucket")), provider="p", operation="o", resource=OBJECT.parent),
    ):
        raise NativeError
    assert type(caught.value) is NotFound


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in errors.__all__
        if isinstance(getattr(errors, n), type) and issubclass(getattr(errors, n), OperationError)
    ],
)
def test_every_operation_error_survives_a_pickle(name: str) -> None:
    error = getattr(errors, name)(
        "why", provider="aws", operation="blob.put", resource=OBJECT, code="C", request_id="r", retry_after=1.5
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert type(error) is type(again)
    assert vars(error) == vars(again)
    assert str(error) == str(again)


def test_notes_survive_a_pickle() -> None:
    error = NotFound("why", resource=OBJECT)
    error.add_note("seen twice")
    assert ["seen twice"] == pickle.loads(pickle.dumps(error)).__notes__  # noqa: S301


def test_a_config_error_survives_a_pickle() -> None:
    error = ConfigError([Problem("[blob.x] y", "unknown", 3)])
    assert error.problems == pickle.loads(pickle.dumps(error)).problems  # noqa: S301


def test_only_passing_troubles_are_retryable() -> None:
    classes = [getattr(errors, n) for n in errors.__all__]
    retryable = {c.__name__ for c in classes if isinstance(c, type) and issubclass(c, OperationError) and c.retryable}
    assert {"Throttled", "Timeout", "Unavailable"} == retryable


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), errors.NotFound),
        (FileExistsError(errno.EEXIST, "x"), errors.AlreadyExists),
        (PermissionError(errno.EACCES, "x"), errors.PermissionDenied),
        (OSError(errno.EROFS, "x"), errors.PermissionDenied),
        (OSError(errno.ENOSPC, "x"), errors.QuotaExceeded),
        (OSError(errno.EDQUOT, "x"), errors.QuotaExceeded),
        (OSError(errno.ENAMETOOLONG, "x"), errors.InvalidArgument),
        (NotADirectoryError(errno.ENOTDIR, "x"), errors.Conflict),
        (OSError(errno.EIO, "x"), errors.Unavailable),
        (ConnectionResetError(errno.ECONNRESET, "x"), errors.Unavailable),
        (BrokenPipeError(errno.EPIPE, "x"), errors.Unavailable),
        (TimeoutError("x"), errors.Timeout),
        (OSError("something else"), errors.OperationError),
    ],
)
def test_errors_of_the_operating_system_have_a_row(native: OSError, expected: type) -> None:
    fault = classify_os(native)
    assert fault is not None
    assert expected is fault.error


@pytest.mark.parametrize("host", ["a..b", ".here/socket", f"{'x' * 64}.example"])
def test_a_name_that_no_host_can_have_is_told(host: str) -> None:
    with pytest.raises(UnicodeError) as caught:
        socket.getaddrinfo(host, 5432)
    fault = classify_os(caught.value)
    assert fault is not None
    assert errors.InvalidArgument is fault.error
    assert classify_os(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")) is None


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.strip("│├└─ ").split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line}
    real = {
        n
        for n in errors.__all__
        if isinstance(getattr(errors, n), type) and issubclass(getattr(errors, n), errors.ShiftableError)
    }
    assert real - {"ShiftableError"} == drawn


def test_the_traceback_shows_where_the_provider_failed() -> None:
    with (
        pytest.raises(Throttled) as caught,
        translated(claim(Fault(Throttled, retry_after=2)), provider="p", operation="o"),
    ):
        raise NativeError("native words")
    assert "native words" in "".join(traceback.format_exception(caught.value))
    assert 2 == caught.value.retry_after
