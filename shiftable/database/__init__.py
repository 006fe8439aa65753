"""Databases: managed PostgreSQL and MySQL servers."""

from shiftable.database._database import Connection, Database
from shiftable.database._databases import Databases
from shiftable.database._logins import Login
from shiftable.database._url import DatabaseUrl
from shiftable.database.driver import (
    ENGINES,
    STATES,
    ArchiveProgress,
    BaseBackup,
    DatabaseFeatures,
    DatabaseInfo,
    DatabaseSpec,
    DatabaseState,
    Engine,
    LoginToken,
    Server,
    ServerSize,
    SizeChoice,
    Snapshot,
)

__all__ = [
    "ENGINES",
    "STATES",
    "ArchiveProgress",
    "BaseBackup",
    "Connection",
    "Database",
    "DatabaseFeatures",
    "DatabaseInfo",
    "DatabaseSpec",
    "DatabaseState",
    "DatabaseUrl",
    "Databases",
    "Engine",
    "Login",
    "LoginToken",
    "Server",
    "ServerSize",
    "SizeChoice",
    "Snapshot",
]
