"""A Ray cluster: found or started, asked for what it has, and left as it was."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Self

from softcam.cores import count_cores
from softcam.distributed.settings import RaySettings
from softcam.errors import RunError
from softcam.libraries import load_library

_LOG = logging.getLogger("softcam")
_STORE_BYTES = 256 * 1024 * 1024  # numbers of shards and lines about them; images never pass through it
_SHARE = 0.5
_QUIET_SECONDS = 60.0


@dataclass(frozen=True)
class Pool:
    """The workers of a round.

    Args:
        least: Workers that are started at once.
        most: Workers that there may be when the cluster grows.
        cpus: CPUs that are reserved for each.
        gpus: GPUs that are reserved for each.
    """

    least: int
    most: int
    cpus: float
    gpus: int


@contextmanager
def connect(settings: RaySettings) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster; a Ray that was started here ends here.

    Args:
        settings: `address` says which cluster.

    Raises:
        MissingExtraError: If Ray is not installed.
        RunError: If no cluster answers.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    # Usage statistics are for those who ask for them; Ray reads both when it is imported or starts.
    with _environment(RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal"), redirect_stdout(sys.stderr):
        ray = load_library("ray", extra="ray")
        load_library("ray.data", extra="ray", package="ray")
        if ray.is_initialized():
            yield ray
            return
        _start(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": count_cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # where Ray's processes do not come up in time it raises nothing more special
        raise RunError(
            f"Expected a Ray cluster at {address!r}, but got: {error} Start one with `ray start --head`."
        ) from error


@contextmanager
def _environment(**defaults: str) -> Iterator[None]:
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def quiet_data(ray: Any) -> Iterator[None]:
    """Keep Ray Data's bars and logs away for a while, and let it go on without the tasks of workers that died."""
    context = ray.data.DataContext.get_current()
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False, "max_errored_blocks": -1}
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        for name in before:
            setattr(context, name, wanted[name])
        logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints to developers of Ray programs
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def list_nodes(ray: Any) -> list[Mapping[str, float]]:
    """Return the resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def choose_pool(nodes: Sequence[Mapping[str, float]], settings: RaySettings) -> Pool:
    """Return how many workers there are and what each of them reserves.

    A worker reserves half a CPU per thread, and there is never more than one thread per CPU: Ray's own tasks always
    find a CPU, and after the death of a node its workers fit onto others.

    Args:
        nodes: CPUs and GPUs of each node.
        settings: What was asked for.

    Raises:
        RunError: If the cluster has no GPU although one is asked for, or nothing at all and no number of workers is
            given.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if settings.wants_gpu and not gpus and settings.workers is None:
        raise RunError("Expected a cluster with GPUs, but it has none. Use another device, or say how many workers.")
    use_gpus = bool(gpus) if settings.wants_gpu is None else settings.wants_gpu
    cpus = sum(int(node.get("CPU", 0)) for node in nodes) // settings.threads
    room = gpus if use_gpus else cpus
    most = settings.workers or room
    if most == 0:
        raise RunError("Expected a cluster with CPUs, but it has none. If it grows on demand, say how many workers.")
    return Pool(max(1, min(most, room)), most, _SHARE * settings.threads, int(use_gpus))


def check_workers(nodes: Sequence[Mapping[str, float]], settings: RaySettings) -> None:
    """Refuse more workers than a machine has room for; a cluster may grow, a machine does not.

    Args:
        nodes: CPUs and GPUs of each node.
        settings: What was asked for.

    Raises:
        ValueError: If there are more.
    """
    room = choose_pool(nodes, RaySettings(threads=settings.threads, predictor=settings.predictor)).most
    if settings.workers is not None and settings.workers > room:
        raise ValueError(
            f"Expected at most {room} workers, one per CPU or GPU of this machine, but got {settings.workers}. "
            "More would only wait for each other."
        )


class Watch:
    """Says on the log, once a minute, that nothing comes and what the cluster has; used as a context.

    Args:
        ray: The module.
        pool: What is waited for.
    """

    def __init__(self, ray: Any, pool: Pool, *, seconds: float = _QUIET_SECONDS) -> None:
        self._ray = ray
        self._pool = pool
        self._seconds = seconds
        self._event = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="softcam-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._event.set()
        self._thread.join()

    def touch(self) -> None:
        """Say that something came."""
        self._event.set()

    def _run(self) -> None:
        while not self._ended:
            if self._event.wait(self._seconds):
                self._event.clear()
                continue
            nodes = list_nodes(self._ray)
            cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
            _LOG.warning(
                "waiting for the cluster: %d nodes with %g CPUs and %g GPUs; a worker needs %g CPUs and %d GPUs to be "
                "free",
                *(len(nodes), cpus, gpus, self._pool.cpus, self._pool.gpus),
            )
