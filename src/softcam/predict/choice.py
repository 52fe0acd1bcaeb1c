"""Which backend runs a model: the one that was asked for, or the fastest by a short measurement."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from softcam.errors import ExportError, SoftCAMError
from softcam.export import KeptGraph
from softcam.libraries import load_library
from softcam.nn import Evidence, SoftCAM
from softcam.predict.backends import Backend, GraphBackend, TorchBackend, dtype_of

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""The extra of softcam that brings each runtime."""

NAMES = ("auto", "torch", *EXTRAS)

PATIENCE = 256
"""Images that `auto` runs in torch before it exports a model, which takes 10 seconds to a minute."""

_PROBE_SECONDS = 2.0
_ROUNDS = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exportable:
    """A model and what its graph needs.

    Args:
        model: In eval mode.
        reference: The same model in torch.
        kept: Where its graph is, or will be.
        shape: (C, H, W) of the images.
    """

    model: SoftCAM
    reference: TorchBackend
    kept: KeptGraph
    shape: tuple[int, int, int]

    def open(self, name: str, images: Tensor) -> GraphBackend:
        """Return the graph in a runtime, if it gives what torch gives for the images."""
        return GraphBackend(name, self.kept, self.shape[1:], self.reference).check(images)

    def make(self) -> None:
        """Export the model."""
        self.kept.make(self.model, self.shape[1:])

    def obstacle(self) -> str:
        """Return why the model can run in torch alone; empty if it need not."""
        if self.reference.device.type != "cpu":
            return f"the model is on {self.reference.device}"
        if self.reference.autocast is not None:
            return "`autocast` was asked for"
        dtype = dtype_of(self.model)
        return "" if dtype == torch.float32 else f"the weights are {str(dtype).removeprefix('torch.')}"


def create_backend(name: str, source: Exportable) -> Backend:
    """Return what runs the model.

    Args:
        name: One of `NAMES`.
        source: The model. For a runtime it is exported now, if no graph of it is kept.

    Raises:
        ExportError: If a runtime was asked for, and the model cannot be exported or gives something else there.
        MissingExtraError: If that runtime is not installed.
        ValueError: If the name is unknown, or the runtime cannot run the model where or as it is.
    """
    if name not in NAMES:
        raise ValueError(f"Expected `backend` to be one of {', '.join(NAMES)}, but got {name!r}.")
    if name == "auto":
        return AutoBackend(source)
    if name == "torch":
        return source.reference
    if obstacle := source.obstacle():
        raise ValueError(
            f"Expected a model in float32 on the CPU, without autocast, for the backend {name!r}, but {obstacle}. "
            "Use the backend 'torch'."
        )
    load_library(name, extra=EXTRAS[name])
    return _open_or_make(name, source)


def _open_or_make(name: str, source: Exportable) -> GraphBackend:
    noise = torch.randn(1, *source.shape, generator=torch.Generator().manual_seed(0))
    if source.kept.find() is not None:
        try:
            return source.open(name, noise)
        except ExportError:
            source.kept.discard()
    _log.info("exporting the model for %s, once", name)
    source.make()
    return source.open(name, noise)


class AutoBackend:
    """Torch at first, then the fastest backend that is installed.

    A graph that is kept from before is used from the first image on, with the choice that was made for it on a machine
    of this kind. Without one, `PATIENCE` images run in torch, so that nobody waits for an export that would not pay.
    Then the model is exported, and the backends are timed on the images at hand. One that differs from torch by more
    than 1e-4 is never chosen; a model that cannot be exported stays in torch. Each choice is logged, and kept in
    `reason`.

    Args:
        source: The model.
    """

    def __init__(self, source: Exportable) -> None:
        self._source = source
        self._current: Backend = source.reference
        self._seen = 0
        self._runtimes = [name for name in EXTRAS if find_spec(name) is not None]
        self._decided = True
        self.reason = ""
        if obstacle := source.obstacle():
            self._settle(source.reference, f"since {obstacle}")
        elif not self._runtimes:
            self._settle(source.reference, "since no other is installed (pip install 'softcam[onnx]' brings one)")
        else:
            self._decided = False
            self.reason = f"torch: for up to {PATIENCE} images an export does not pay"

    @property
    def name(self) -> str:
        """The backend in use."""
        return self._current.name

    def __call__(self, images: Tensor) -> Evidence:
        """Return the evidence of images (N, C, H, W)."""
        if not self._decided and tuple(images.shape[1:]) == self._source.shape:
            try:
                self._decide(images)
            except (SoftCAMError, OSError) as error:
                self._settle(self._source.reference, f"since the model cannot be exported: {error}")
        self._seen += len(images)
        return self._current(images)

    def _decide(self, images: Tensor) -> None:
        fresh = self._source.kept.find() is None
        if fresh:
            if self._seen < PATIENCE:
                return
            _log.info("torch was used so far; exporting the model once, to look for a faster backend")
            self._source.make()
        elif self._recall(images[:1]):
            return
        self._probe(images, fresh=fresh)

    def _recall(self, images: Tensor) -> bool:
        """Take the choice that was noted on such a machine; return whether there was one that still holds."""
        notes = self._source.kept.read_notes()
        name = notes.get("backend")
        if notes.get("circumstances") != self._describe() or name not in ("torch", *self._runtimes):
            return False
        why = f"as measured before: {notes.get('measured')}"
        try:
            self._settle(self._source.reference if name == "torch" else self._source.open(name, images), why)
        except ExportError:
            # Damaged, or from somewhere else: what can be made again is not worth a message.
            self._source.kept.discard()
        return True

    def _probe(self, images: Tensor, *, fresh: bool) -> None:
        backends: dict[str, Backend] = {"torch": self._source.reference}
        refused = []
        for name in self._runtimes:
            try:
                backends[name] = self._source.open(name, images)
            except SoftCAMError as error:
                refused.append(f"; {name} is out: {error}")
        if len(backends) == 1 and not fresh:
            self._source.kept.discard()
            return
        best = time_in_turn({name: _bind(backend, images) for name, backend in backends.items()})
        each = {name: 1000 * seconds / len(images) for name, seconds in best.items()}
        order = sorted(each, key=lambda name: each[name])
        figures = ", ".join(f"{name} {each[name]:.1f}" for name in order)
        measured = f"ms per image on {torch.get_num_threads()} threads, {len(images)} at a time: {figures}"
        notes = {"backend": order[0], "measured": measured, "circumstances": self._describe()}
        self._source.kept.write_notes(notes)
        self._settle(backends[order[0]], measured + "".join(refused))

    def _describe(self) -> dict[str, Any]:
        """Return what the order of the backends depends on beside the model."""
        return {
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "backends": ["torch", *self._runtimes],
        }

    def _settle(self, backend: Backend, why: str) -> None:
        self._current, self._decided = backend, True
        self.reason = f"{backend.name}, {why}"
        _log.info("backend %s", self.reason)


def _bind(backend: Backend, images: Tensor) -> Callable[[], object]:
    return lambda: backend(images)


def time_in_turn(calls: Mapping[str, Callable[[], object]], *, budget: float = _PROBE_SECONDS) -> dict[str, float]:
    """Return the shortest seconds of each call, timed in turn for a few rounds or until the budget is spent.

    Args:
        calls: What to time, already warm, by name.
        budget: Seconds after which no further round begins.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
        if time.perf_counter() - started > budget:
            break
    return {name: min(values) for name, values in seconds.items()}
