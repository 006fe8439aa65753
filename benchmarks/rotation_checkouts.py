"""What a rotated password costs four busy threads: failed checkouts of our engine, and of one that keeps its password.

Run it with ``python benchmarks/rotation_checkouts.py``. A private PostgreSQL is started; every checkout opens a new
connection, so that each one logs in. The password is replaced ten times for each client, in two ways: as ``shiftable
secrets rotate`` does it (stored as pending, set in the server, made current), and crudely (the server first, the store
300 ms later).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import attrs
import sqlalchemy
from psycopg import sql
from sqlalchemy import event

from shiftable.config import Credential
from shiftable.database import DatabaseInfo, Databases, DatabaseSpec, Server
from shiftable.errors import NotFound
from shiftable.memory.database import FEATURES, MemoryDatabaseDriver
from shiftable.memory.secrets import MemorySecretsDriver
from shiftable.postgresql import Cluster, temporary_cluster
from shiftable.rotation import PostgresqlUser, Rotation
from shiftable.secrets import Secrets, SecretStore

THREADS, ROTATIONS, GAP, USER, KEY = 4, 10, 0.3, "rotated", "db/login"


@attrs.define
class Here(MemoryDatabaseDriver):
    """Databases whose server is the private one."""

    port: int = attrs.field(kw_only=True)

    def info(self, name: str) -> DatabaseInfo:
        """Tell where it listens."""
        server = Server(host="127.0.0.1", port=self.port, admin="postgres", tls=False)
        return attrs.evolve(MemoryDatabaseDriver.info(self, name), server=server)


@attrs.frozen
class Keeper:
    """Tells the pending version of the secret."""

    store: SecretStore

    def pending(self, name: str) -> str | None:  # noqa: ARG002  there is one secret
        """Read it."""
        try:
            return self.store.get(KEY, stage="pending").reveal()
        except NotFound:
            return None

    def make(self, name: str, new: Callable[[], str]) -> str:
        """Make nothing: it exists."""
        raise LookupError(name, new)


def ours(cluster: Cluster, store: SecretStore) -> sqlalchemy.Engine:
    """Return the engine of a declared database."""
    login = Credential.secret(f"app/{KEY}", lambda _: store.get(KEY).reveal(), Keeper(store))
    spec = DatabaseSpec(
        name="bench",
        engine="postgresql",
        version="16",
        cpus=1,
        memory_gib=1,
        storage_gib=10,
        databases=("postgres",),
        login=login,
        user=USER,
    )
    database = Databases(Here(attrs.evolve(FEATURES, connect=True), port=cluster.port)).create(spec)
    return database.engine(pool_size=THREADS, recycle=timedelta(0))


def naive(cluster: Cluster, store: SecretStore, *, every: float = 1.0) -> sqlalchemy.Engine:
    """Return an engine that reads the secret each second, and knows nothing of refusals."""
    address = sqlalchemy.URL.create("postgresql+psycopg", USER, None, "127.0.0.1", cluster.port, "postgres")
    made = sqlalchemy.create_engine(address, pool_size=THREADS, pool_pre_ping=True, pool_recycle=0)
    kept = (store.get(KEY).reveal(), time.monotonic())

    @event.listens_for(made, "do_connect")
    def _connect(_dialect: object, _record: object, _args: object, arguments: dict[str, object]) -> None:
        nonlocal kept
        if time.monotonic() - kept[1] > every:
            kept = (store.get(KEY).reveal(), time.monotonic())
        arguments["password"] = kept[0]

    return made


def staged(cluster: Cluster, store: SecretStore, number: int) -> None:  # noqa: ARG001  the rotation makes its own
    """Rotate as ``shiftable secrets rotate`` does."""
    rotator = PostgresqlUser(user=USER, host="127.0.0.1", port=cluster.port, dbname="postgres")
    Rotation(store, KEY, rotator).run(now=True, force=True)


def crude(cluster: Cluster, store: SecretStore, number: int) -> None:
    """Change the server, and the store a little later."""
    with cluster.connect(autocommit=True) as connection:
        password = f"crude-{number}"
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(USER), sql.Literal(password)))
        time.sleep(GAP)
        store.put(KEY, password)


def measure(engine: sqlalchemy.Engine, rotate: Callable[[int], None]) -> tuple[int, int, float]:
    """Return checkouts, those that failed, and the longest one in seconds."""
    over, counts, failures, longest = threading.Event(), [0] * THREADS, [0] * THREADS, [0.0] * THREADS

    def work(number: int) -> None:
        while not over.is_set():
            begun = time.monotonic()
            try:
                with engine.connect() as connection:
                    connection.execute(sqlalchemy.text("SELECT 1"))
            except sqlalchemy.exc.DBAPIError:
                failures[number] += 1
            counts[number] += 1
            longest[number] = max(longest[number], time.monotonic() - begun)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for number in range(ROTATIONS):
        time.sleep(0.5)
        rotate(number)
    time.sleep(0.5)
    over.set()
    for thread in threads:
        thread.join()
    engine.dispose()
    return sum(counts), sum(failures), max(longest)


def main() -> None:
    """Print one line for each client and way."""
    with temporary_cluster(tcp=True) as cluster:
        print(f"PostgreSQL {cluster.binaries.version}, {THREADS} threads, {ROTATIONS} rotations each")
        for way in (staged, crude):
            for client in (naive, ours):
                store = Secrets(MemorySecretsDriver()).store("app")
                store.put(KEY, "first")
                with cluster.connect(autocommit=True) as connection:
                    connection.execute(f"DROP ROLE IF EXISTS {USER}")
                    connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD 'first'")

                def rotate(number: int, way: Callable[..., None] = way, store: SecretStore = store) -> None:
                    way(cluster, store, number)

                done, failed, longest = measure(client(cluster, store), rotate)
                about = f"{way.__name__:>8} rotation, {client.__name__:>5} client"
                print(f"{about}: {failed:5,} of {done:6,} checkouts failed, the longest took {longest:.2f} s")


if __name__ == "__main__":
    main()
