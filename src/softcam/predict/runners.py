"""What runs one model of a predictor: the backend that was chosen, and torch beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softcam.nn import Evidence
from softcam.predict.backends import Backend, TorchBackend
from softcam.predict.choice import AutoBackend, Exportable, create_backend


class Runner(NamedTuple):
    """What runs one model.

    Args:
        backend: What gives the evidence.
        reference: The same model in torch, which it may be.
    """

    backend: Backend
    reference: TorchBackend

    def ask_with_features(self, images: Tensor) -> tuple[Evidence, npt.NDArray[np.float64] | None]:
        """Return the evidence and, where torch gives them, the pooled features."""
        with self.reference.noting_features() as pooled:
            evidence = self.backend(images)
        rows = torch.cat(pooled).double().numpy() if pooled else np.empty((0, 0))
        return evidence, rows[-len(images) :] if len(rows) >= len(images) else None

    @property
    def reason(self) -> str:
        """Why that backend, in a sentence."""
        return self.backend.reason if isinstance(self.backend, AutoBackend) else f"{self.backend.name}, as asked for"


def create_runner(name: str, source: Exportable) -> Runner:
    """Return what runs a model.

    Args:
        name: Of the backend.
        source: The model.

    Raises:
        ExportError: As `create_backend`.
        MissingExtraError: Likewise.
        ValueError: Likewise.
    """
    return Runner(create_backend(name, source), source.reference)
