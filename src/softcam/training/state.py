"""What a training run borrows from the process - generators, flags, loggers - and gives back."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def borrowed_process() -> Iterator[None]:
    """Run the body; afterwards random generators, determinism, log levels and signal handlers are as they were."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", PossibleUserWarning)  # hints on worker counts and logging intervals
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning meeting a newer torch
        # Kernels of one pixel, whose strides have two names in channels_last order.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        stack.enter_context(_determinism())
        stack.enter_context(_quiet("lightning.pytorch"))
        stack.enter_context(_quiet("lightning.fabric"))
        stack.enter_context(_interrupt_handler())
        yield


@contextmanager
def _determinism() -> Iterator[None]:
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    workspace = os.environ.get(CUBLAS)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        os.environ.pop(CUBLAS, None)
        os.environ.update({} if workspace is None else {CUBLAS: workspace})


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _interrupt_handler() -> Iterator[None]:
    # Lightning ignores further interrupts while it shuts down, and leaves it at that.
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
