"""Processes on this machine that run the same function together; if one fails, all end, and its reason is told."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from torch.multiprocessing.spawn import start_processes

from softcam.errors import RunError, SoftCAMError

CONTINUES = "The same command continues at the last whole epoch."
GRACE = 10.0
"""Seconds that processes get to end by themselves once one has failed."""
INTERRUPTED, TERMINATED = 130, 143


class Failure(NamedTuple):
    """Why a process failed, and where if that was not foreseen."""

    reason: str
    trace: str = ""


def launch(function: Callable[[], object], *, count: int) -> None:
    """Run a function in several new processes, each of which finds the variables that `torchrun` would set.

    Args:
        function: One that can be imported, or a `functools.partial` of it.
        count: Processes.

    Raises:
        RunError: If one of them fails or is ended; what came first is told.
        KeyboardInterrupt: If interrupted.
    """
    # A pipe in which the first failure is the first to be read.
    failures = get_context("spawn").SimpleQueue()
    arguments = (count, _find_port(), failures, function)
    context = start_processes(_enter, arguments, nprocs=count, join=False, start_method="spawn")  # type: ignore[no-untyped-call]
    processes = context.processes
    try:
        _watch(processes)
    finally:
        codes = _end(processes)
    if any(codes.values()):
        raise _explain(codes, None if failures.empty() else failures.get())


def _enter(rank: int, count: int, port: int, failures: Any, function: Callable[[], object]) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="softcam")
    try:
        function()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except SystemExit:  # what Lightning turns SIGTERM into
        raise SystemExit(TERMINATED) from None
    except SoftCAMError as error:
        failures.put(Failure(str(error)))
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001 - it is told by the process that waits for this one
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:2000]
        text = f"Expected process {rank} of {count} to go through, but it failed with {reason} {CONTINUES}"
        failures.put(Failure(text, traceback.format_exc()[-8000:]))
        raise SystemExit(1) from None


def _watch(processes: list[BaseProcess]) -> None:
    """Return once all are through, or as soon as one has failed."""
    running = processes
    while running and not any(process.exitcode for process in processes):
        connection.wait([process.sentinel for process in running])
        running = [process for process in running if process.exitcode is None]


def _end(processes: list[BaseProcess]) -> dict[int, int]:
    """Return the exit codes by rank of all that ended by themselves, or by another hand; end the rest."""
    deadline, codes = time.monotonic() + GRACE, {}
    for rank, process in enumerate(processes):
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is not None:
            codes[rank] = process.exitcode
    for process in processes:
        # Nothing is lost with it, since files appear whole or not at all.
        process.kill()
        process.join()
    return codes


def _explain(codes: Mapping[int, int], failure: Failure | None) -> BaseException:
    """Return what ended the run: a signal, which only its process could have told, or else what was told first."""
    signals = {
        rank: signal.SIGTERM if code == TERMINATED else signal.Signals(-code)
        for rank, code in codes.items()
        if code < 0 or code == TERMINATED
    }
    if signals:
        rank, number = next(iter(signals.items()))
        hint = " If memory ran out, lower `data.batch_size` or use `--accumulate-grad-batches`."
        return RunError(
            f"Expected all processes to go through, but process {rank} was ended by {number.name}."
            f"{hint if number == signal.SIGKILL else ''} {CONTINUES}"
        )
    if failure is not None:
        error = RunError(failure.reason)
        if failure.trace:
            error.add_note(failure.trace)
        return error
    if INTERRUPTED in codes.values():
        return KeyboardInterrupt()
    rank, code = next((rank, code) for rank, code in codes.items() if code)
    return RunError(f"Expected all processes to go through, but process {rank} ended with code {code}. {CONTINUES}")


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
