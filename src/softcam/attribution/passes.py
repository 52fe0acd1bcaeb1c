"""Passes through a model that several methods need, run once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")
Passes = dict[Hashable, Any]
"""What passes gave, by model, layer, images and classes."""

_SHARED: ContextVar[Passes | None] = ContextVar("shared_passes", default=None)


@contextmanager
def sharing_passes(passes: Passes) -> Iterator[None]:
    """Let methods that need the same pass through the same model run it once, in blocks with the same `passes`.

    The models have to stay as they are, and alive, for as long as `passes` is used.

    Args:
        passes: Empty at first.
    """
    token = _SHARED.set(passes)
    try:
        yield
    finally:
        _SHARED.reset(token)


def run_once(key: Callable[[], Hashable], run: Callable[[], Result]) -> Result:
    """Return what `run` gives, or what it gave under the same key where passes are shared.

    Args:
        key: Gives all that decides the result; not called where nothing is shared.
        run: The pass.
    """
    passes = _SHARED.get()
    if passes is None:
        return run()
    place = key()
    if place not in passes:
        passes[place] = run()
    result: Result = passes[place]
    return result


def digest_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a SHA-256 over the types, shapes and values of tensors, in their order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()
