"""What a database server, its programs and its clients say, in our words."""

from __future__ import annotations

import psycopg
import pymysql
import pytest

from shiftable.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    OperationError,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from shiftable_baremetal._servers_errors import classify, program_fault

POSTGRESQL = [
    ("25006", PermissionDenied),
    ("28P01", Unauthenticated),
    ("2BP01", Conflict),
    ("42501", PermissionDenied),
    ("42710", AlreadyExists),
    ("42939", InvalidArgument),
    ("42P04", AlreadyExists),
    ("53100", QuotaExceeded),
    ("53300", Unavailable),
    ("55006", Conflict),
    ("55P03", Conflict),
    ("57P01", Unavailable),
    ("57P03", Unavailable),
    ("22023", InvalidArgument),
]


@pytest.mark.parametrize(("state", "error"), POSTGRESQL)
def test_states_of_postgresql_have_rows(state: str, error: type[OperationError]) -> None:
    native = psycopg.errors.lookup(state)("the server's words")
    fault = classify(native)
    assert fault is not None
    assert (error, state) == (fault.error, fault.code)
    assert fault.message.startswith("the server's words")


MARIADB = [
    (1007, AlreadyExists),
    (1021, QuotaExceeded),
    (1040, Unavailable),
    (1044, PermissionDenied),
    (1045, Unauthenticated),
    (1059, InvalidArgument),
    (1130, Unauthenticated),
    (1142, PermissionDenied),
    (1205, Conflict),
    (1227, PermissionDenied),
    (1290, PermissionDenied),
    (1396, AlreadyExists),
    (1698, Unauthenticated),
    (1927, Unavailable),
    (2003, Unavailable),
    (2006, Unavailable),
    (2013, Unavailable),
    (9999, OperationError),
]


@pytest.mark.parametrize(("number", "error"), MARIADB)
def test_numbers_of_mariadb_have_rows(number: int, error: type[OperationError]) -> None:
    fault = classify(pymysql.err.OperationalError(number, "the server's words"))
    assert fault is not None
    assert (error, str(number), "the server's words") == (fault.error, fault.code, fault.message)


def test_a_client_that_tells_no_number_could_not_reach_the_server() -> None:
    fault = classify(pymysql.err.InterfaceError("(0, '')"))
    assert fault is not None
    assert Unavailable is fault.error


REFUSALS = [
    ('connection failed: FATAL:  password authentication failed for user "x"', Unauthenticated),
    ('connection failed: FATAL:  role "x" does not exist', Unauthenticated),
    ('connection failed: FATAL:  no pg_hba.conf entry for host "192.0.2.1"', Unauthenticated),
    ('connection failed: FATAL:  role "x" is not permitted to log in', Unauthenticated),
    ("connection failed: Connection refused", Unavailable),
    ("connection failed: certificate verify failed", Unavailable),
]


@pytest.mark.parametrize(("said", "error"), REFUSALS)
def test_who_is_not_let_in_is_known_by_the_servers_words(said: str, error: type[OperationError]) -> None:
    fault = classify(psycopg.OperationalError(said))
    assert fault is not None
    assert (error, said) == (fault.error, fault.message.partition("; ")[0])


PROGRAMS = [
    ("pg_dump: error: query failed: ERROR:  permission denied for table t", PermissionDenied),
    ("pg_dump: error: connection to server on socket failed: No such file", Unavailable),
    (
        "pg_restore: error: could not execute query: ERROR:  could not extend file: No space left on device",
        QuotaExceeded,
    ),
    ('mariadb-dump: Got error: 2013: "Lost connection to server during query"', Unavailable),
    ("ERROR 1045 (28000): Access denied for user 'x'@'localhost' (using password: YES)", PermissionDenied),
    ("pg_restore: error: unsupported version (1.16) in file header", OperationError),
    ("", OperationError),
]


@pytest.mark.parametrize(("said", "error"), PROGRAMS)
def test_programs_are_understood_by_what_they_say(said: str, error: type[OperationError]) -> None:
    fault = program_fault("program", f"{said}\nDETAIL:  Key (name)=(c4n4ry) already exists.\n")
    assert error is fault.error
    assert (said or "it said nothing") in fault.message
    assert "c4n4ry" not in fault.message


def test_what_is_nobodys_is_not_claimed() -> None:
    assert classify(KeyError("x")) is None
