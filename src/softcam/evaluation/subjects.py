"""A model with the class that is explained for each image of a batch, and what it says of changed images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from softcam.evaluation.labels import Threshold, choose_explained
from softcam.metrics import FILLS

Forward = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N, K), without gradients."""


class Remembered:
    """A forward pass that knows the images it has seen: many metrics and methods ask for the same ones.

    Args:
        forward: Images to logits.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, K); only images that were not seen before are run."""
        rows = images.detach().cpu().contiguous()
        keys = [hashlib.sha256(row.numpy().data).digest() for row in rows]
        new = {key: place for place, key in enumerate(keys) if key not in self.known}
        if new:
            logits = self.forward(images[list(new.values())])
            self.known |= dict(zip(new, logits, strict=True))
        return torch.stack([self.known[key] for key in keys])


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with the class that is explained for each image of a batch.

    Args:
        model: Images to logits (N, K), for methods that look inside.
        forward: The same without gradients, for those that only ask.
        images: (N, C, H, W), on the model's device.
        target: (N,) the class that is explained.
        before: (N,) its probability.
        filled: By fill, its probability (N,) once nothing is left of the image.
        truth: (N, S, S) bool where the findings of that class are, if any are known.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
    """

    model: nn.Module
    forward: Forward
    images: Tensor
    target: Tensor
    before: Tensor
    filled: dict[str, Tensor] = field(default_factory=dict)
    truth: Tensor | None = None
    multi_label: bool = False

    def predict(self, images: Tensor) -> Tensor:
        """Return probabilities (M, K) of images."""
        return to_probabilities(self.forward(images), multi_label=self.multi_label)

    def log_odds(self, images: Tensor) -> Tensor:
        """Return the log-odds (M, K) of each class against all others, or of each independent class."""
        logits = self.forward(images).double()
        if self.multi_label:
            return logits
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None].masked_fill(own, -torch.inf).logsumexp(dim=2)
        return logits - others

    def take(self, chosen: Tensor) -> Subject:
        """Return the subject of some images.

        Args:
            chosen: (N,) boolean.
        """
        if bool(chosen.all()):
            return self
        index = chosen.nonzero()[:, 0].to(self.images.device)
        return replace(
            self,
            images=self.images[index],
            target=self.target[index],
            before=self.before[index],
            filled={name: values[index] for name, values in self.filled.items()},
            truth=None if self.truth is None else self.truth[index.cpu()],
        )


def to_probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Return probabilities (N, K) of logits.

    Args:
        logits: (N, K).
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
    """
    return logits.sigmoid() if multi_label else logits.softmax(dim=1)


def choose_subject(
    model: nn.Module,
    images: Tensor,
    fills: tuple[str, ...],
    *,
    forward: Forward | None = None,
    multi_label: bool = False,
    threshold: Threshold = None,
) -> Subject:
    """Find the class that a model decides for, and what it says with and without the image.

    Args:
        model: Images to logits (N, K).
        images: (N, C, H, W), on the model's device.
        fills: Names of `softcam.metrics.FILLS`.
        forward: What gives the model's logits without gradients; by default the model.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
        threshold: Probability from which the second of two exclusive classes is decided for, or each of independent
            ones, as `choose_explained` has it; None decides for the most probable class.
    """
    run = Remembered(forward or forward_of(model))
    probabilities = to_probabilities(run(images), multi_label=multi_label)
    target = torch.from_numpy(choose_explained(probabilities.cpu().numpy(), threshold)).to(images.device)
    before = probabilities.gather(1, target[:, None])[:, 0]
    subject = Subject(model, run, images, target, before, multi_label=multi_label)
    everything = torch.ones((len(images), *images.shape[-2:]), dtype=torch.bool, device=images.device)
    filled = {fill: subject.predict(FILLS[fill](images)(everything)).gather(1, target[:, None])[:, 0] for fill in fills}
    return replace(subject, filled=filled)


def forward_of(model: nn.Module) -> Forward:
    """Return a model's forward pass without gradients, in channels-last layout.

    Args:
        model: Images to logits (N, K).
    """

    def run(images: Tensor) -> Tensor:
        # The fills make new tensors; in another memory format depthwise convolutions are several times slower.
        with torch.no_grad():
            logits: Tensor = model(images.contiguous(memory_format=torch.channels_last))
        return logits

    return run
