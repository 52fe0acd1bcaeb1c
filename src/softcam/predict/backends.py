"""What runs the model: torch, or its exported graph in ONNX Runtime or OpenVINO. Images in, evidence out."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from softcam.errors import ExportError, RunError, SoftCAMWarning
from softcam.export import KeptGraph, open_graph
from softcam.export.agreement import TOLERANCE, relative_error
from softcam.nn import Evidence, SoftCAM

Name = Literal["auto", "torch", "onnxruntime", "openvino"]

_HALF = (torch.float16, torch.bfloat16)


class Backend(Protocol):
    """Something that runs a model."""

    @property
    def name(self) -> str:
        """`torch`, `onnxruntime` or `openvino`."""

    def __call__(self, images: Tensor) -> Evidence:
        """Return the evidence of images (N, C, H, W), float32 and on the CPU, on any device."""


class TorchBackend:
    """The model in torch, in channels-last layout and without gradients, on any device.

    A batch that does not fit into the memory of a GPU is halved until it does, and so are those that follow.

    Args:
        model: In eval mode and on `device`.
        device: Where it is.
        autocast: Half-precision type for the trunk; the class evidence layer stays exact.
    """

    name = "torch"

    def __init__(self, model: SoftCAM, device: torch.device, autocast: torch.dtype | None = None) -> None:
        self.device, self.autocast = device, autocast
        self._model = model
        self._dtype = dtype_of(model)
        self._limit: int | None = None
        self._notes = threading.local()
        # TF32 and half precision are fine for a trunk, but break the identity at 1e-3; the last layer costs little.
        exact = device.type == "cuda" or autocast is not None or self._dtype in _HALF
        self._exact_head = copy.deepcopy(model.head).double() if exact else None

    @property
    def multi_label(self) -> bool:
        """Whether classes are independent rather than exclusive."""
        return self._model.multi_label

    @contextmanager
    def noting_features(self) -> Iterator[list[Tensor]]:
        """Collect the pooled features (n, D) of all that this thread runs in the `with` block, on the CPU.

        They come from the pass that is run anyway. Images may be run more than once, the ones asked for last.
        """
        found: list[Tensor] = []
        self._notes.pooled = found
        try:
            yield found
        finally:
            del self._notes.pooled

    def __call__(self, images: Tensor) -> Evidence:
        """Return the evidence of images (N, C, H, W), on the model's device.

        Raises:
            RunError: If a single image does not fit into the GPU's memory.
        """
        done: list[Evidence] = []
        left = images
        while len(left):
            chunk = left[: self._limit]
            if (found := self._try(chunk)) is None:
                self._halve(len(chunk))
            else:
                done.append(found)
                left = left[len(chunk) :]
        return done[0] if len(done) == 1 else _join(done)

    def _try(self, images: Tensor) -> Evidence | None:
        """Return the evidence; None if the GPU has not the memory for so many images."""
        try:
            with torch.inference_mode():
                return self._run(self._to_device(images))
        except torch.cuda.OutOfMemoryError:
            # Whatever the traceback holds is released once this function has returned.
            return None

    def _halve(self, count: int) -> None:
        torch.cuda.empty_cache()
        if count == 1:
            raise RunError(
                f"Expected the memory of {self.device} to hold one image, but it is full. "
                "Free it, choose smaller images, or another device."
            )
        if self._limit is None:
            warnings.warn(
                f"Expected {count} images to fit into the memory of {self.device}, but they do not. "
                "Smaller batches go on; a smaller `batch_size` says so from the start.",
                SoftCAMWarning,
                stacklevel=2,
            )
        self._limit = count // 2

    def _to_device(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)

    def _run(self, images: Tensor) -> Evidence:
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            features = self._model.forward_features(images)
        if (pooled := getattr(self._notes, "pooled", None)) is not None:
            pooled.append(self._model.pool(features).cpu())
        if self._exact_head is None:
            head: Any = self._model.head
            logits, maps = head.evidence(features)
            return Evidence(logits, maps, self._model.multi_label)
        exact: Any = tuple(part.double() for part in features) if isinstance(features, tuple) else features.double()
        logits, maps = self._exact_head.evidence(exact)
        return Evidence(logits, maps, self._model.multi_label)


class GraphBackend:
    """The exported graph on the CPU, in float32 and on as many threads as torch has.

    Args:
        name: `onnxruntime` or `openvino`.
        kept: Where the graph is.
        size: Height and width of the images that it takes; images of another size go to `reference`.
        reference: The model in torch.

    Raises:
        ExportError: If there is no graph, or the runtime refuses it.
        MissingExtraError: If the runtime is not installed.
    """

    def __init__(self, name: str, kept: KeptGraph, size: Sequence[int], reference: TorchBackend) -> None:
        path = kept.find()
        if path is None:
            raise ExportError(f"Expected an exported graph {kept.name!r}, but there is none.")
        self.name = name
        self._kept, self._size, self._reference = kept, tuple(size), reference
        self._graph = open_graph(path, runtime=name, threads=torch.get_num_threads())

    def __call__(self, images: Tensor) -> Evidence:
        """Return the evidence of images (N, C, H, W)."""
        if tuple(images.shape[2:]) != self._size:
            return self._reference(images)
        found = self._graph(images.float().contiguous().numpy())
        logits, maps = (torch.from_numpy(array) for array in found)
        return Evidence(logits, maps, self._reference.multi_label)

    def check(self, images: Tensor) -> GraphBackend:
        """Return this backend if it gives what torch gives for these images, within 1e-4 of the largest value.

        Raises:
            ExportError: If it does not, or the runtime fails.
        """
        expected = self._reference(images)
        try:
            found = self(images)
        except Exception as error:
            raise ExportError(f"Expected {self.name} to run the model, but {type(error).__name__}.") from error
        worst = max(_differ(found.logits, expected.logits), _differ(found.maps, expected.maps))
        if not worst <= TOLERANCE:  # NaN as well
            raise ExportError(
                f"Expected {self.name} to agree with torch within {TOLERANCE:g}, but got a relative difference of "
                f"{worst:.3g}."
            )
        return self


def dtype_of(model: SoftCAM) -> torch.dtype:
    """Return the floating-point type of a model's parameters."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _join(parts: Sequence[Evidence]) -> Evidence:
    logits, maps = (torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "maps"))
    return Evidence(logits, maps, parts[0].multi_label)


def _differ(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("nan")
    return relative_error(found.double() - expected.double(), expected.double())
