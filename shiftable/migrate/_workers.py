"""Where items are worked on beside this process: more processes of this machine, a Dask cluster, a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, ClassVar

import attrs

from shiftable.errors import ConfigError

__all__ = ["Dask", "Pool", "Processes", "Ray", "Workers"]

_PATIENCE = 20.0
"""Seconds to wait for a cluster that is asked for the first time."""


@attrs.frozen(kw_only=True)
class Pool:
    """Workers that are ready.

    Args:
        slots: batches that may be worked on at once, as far as is known now.
        lost: errors that say that a worker has died, and nothing of the batch.
        cancels: whether a future that can be cancelled has surely not begun.
        breaks: whether all is lost with one worker, so that the pool has to be made anew.
        close: gives back what was opened; waits for what runs, if it is told so.
    """

    executor: Executor
    slots: int
    lost: tuple[type[BaseException], ...]
    cancels: bool = False
    breaks: bool = False
    close: Callable[[bool], None]


class Workers(ABC):
    """An engine that exists already, behind the interface of ``concurrent.futures``.

    Every worker needs shiftable and the providers in the same versions, and finds credentials where it runs: what is
    sent to it is the text of ``shiftable.toml``, which holds none, and what listings tell of objects.
    """

    @abstractmethod
    def open(self) -> Pool:
        """Reach it, or start it.

        Raises:
            ConfigError: it cannot be reached, or its library is not installed.
        """

    @staticmethod
    def parse(text: str) -> Workers | None:
        """Read ``processes``, ``processes=4``, ``dask=tcp://host:8786``, ``ray`` or ``ray=host:6379``.

        ``threads`` is ``None``: this process alone.

        Raises:
            ConfigError: it is none of these.
        """
        name, _, value = text.partition("=")
        if name not in _KINDS:
            raise ConfigError(f"there is no engine {name!r}; engines are: {_CHOICES}")
        return _KINDS[name](value)


@attrs.frozen
class Processes(Workers):
    """So many processes on this machine, each with threads of its own."""

    count: int = attrs.field(factory=lambda: os.cpu_count() or 1, validator=attrs.validators.ge(1))

    def open(self) -> Pool:
        """Start them as they are needed; none has anything of this process: no locks, no connections."""
        import multiprocessing
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(self.count, mp_context=context, initializer=_attend)
        return Pool(
            executor=executor,
            slots=self.count,
            lost=(BrokenProcessPool,),
            cancels=True,
            breaks=True,
            close=lambda wait: executor.shutdown(wait=wait, cancel_futures=True),
        )

    def __str__(self) -> str:
        return f"processes={self.count}"


@attrs.frozen
class Dask(Workers):
    """The workers of a Dask scheduler at an address.

    Dask itself gives what a dead worker had to another one, three times by default; then we do.
    """

    address: str

    def open(self) -> Pool:
        """Connect to the scheduler."""
        from distributed import Client, KilledWorker

        try:
            client = Client(self.address, set_as_default=False, timeout=_PATIENCE)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"no Dask scheduler answers at {self.address}: {type(exc).__name__}: {exc}") from exc
        return Pool(
            executor=client.get_executor(pure=False),
            slots=max(1, len(client.nthreads())),
            lost=(KilledWorker, CancelledError),
            close=lambda _: client.close(),
        )

    def __str__(self) -> str:
        return f"dask={self.address}"


@attrs.frozen
class Ray(Workers):
    """The workers of a Ray cluster at an address; else the one that Ray finds by itself, or starts on this machine."""

    address: str | None = None

    def open(self) -> Pool:
        """Connect, unless this process is connected already. A cluster that is started here tells nobody of it."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray import exceptions as error

        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(log_to_driver=False, **self._place())
            except (ConnectionError, RuntimeError, ValueError) as exc:
                where = self.address or "this machine"
                raise ConfigError(f"no Ray cluster answers at {where}: {type(exc).__name__}: {exc}") from exc
        return Pool(
            executor=_RayExecutor(ray),
            slots=max(1, int(ray.cluster_resources().get("CPU", 1))),
            lost=(
                error.LocalRayletDiedError,
                error.NodeDiedError,
                error.ObjectLostError,
                error.OutOfMemoryError,
                error.WorkerCrashedError,
            ),
            close=lambda _: ray.shutdown() if ours else None,
        )

    def _place(self) -> dict[str, Any]:
        """Say which cluster; one that begins and ends with this process is on loopback."""
        if self.address or os.environ.get("RAY_ADDRESS"):
            return {"address": self.address}
        return {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}

    def __str__(self) -> str:
        return f"ray={self.address}" if self.address else "ray"


class _RayExecutor(Executor):
    """Ray's remote functions as an executor, which Ray does not have itself.

    What a dead worker had is not run again by Ray: it is done here, for all engines alike.
    """

    _REMOTE: ClassVar[dict[str, Any]] = {"max_retries": 0, "num_cpus": 1}

    def __init__(self, ray: Any) -> None:  # noqa: ANN401  the module, which need not be installed
        self._ray = ray

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  Executor's
        """Run a function somewhere."""
        remote = self._ray.remote(**self._REMOTE)(function)
        found: Future[Any] = remote.remote(*args, **kwargs).future()
        return found


def _attend() -> None:
    """Prepare a process: its parent decides what Ctrl-C ends, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, name="shiftable-parent", daemon=True).start()


def _end_with_the_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # as if it had been killed: whoever moves next recognises what was written


def _threads(value: str) -> None:
    if value:
        raise ConfigError("the engine threads takes no value; --concurrency says how many")


def _processes(value: str) -> Workers:
    if not value:
        return Processes()
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= 256:
        raise ConfigError(f"the engine processes takes a number between 1 and 256, not {value!r}: processes=4")
    return Processes(int(value))


def _dask(value: str) -> Workers:
    if not value:
        raise ConfigError("the engine dask takes the scheduler's address: dask=tcp://host:8786")
    _require("distributed", "dask")
    return Dask(value)


def _ray(value: str) -> Workers:
    _require("ray", "ray")
    return Ray(value or None)


def _require(module: str, extra: str) -> None:
    """Look for a library before anything is done; to import it takes seconds."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f'the engine {extra} needs the package {module}: pip install "shiftable[{extra}]"')


_KINDS: dict[str, Callable[[str], Workers | None]] = {
    "threads": _threads,
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}
_CHOICES = "threads, processes[=NUMBER], dask=ADDRESS, ray[=ADDRESS]"
