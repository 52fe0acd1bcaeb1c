"""How local, and how well placed, the evidence of one model is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softcam.evaluation.localization import measure_localization
from softcam.evaluation.predictions import Floats
from softcam.metrics import context_swap_change, effective_receptive_field, near_zero_share
from softcam.nn import SoftCAM


@dataclass(frozen=True, eq=False)
class Subject:
    """Images with the question that is asked of their maps: the label's class, rather than its strongest rival?

    Args:
        model: In eval mode.
        images: (N, C, H, W), on the model's device.
        classes: (N,) class of the label.
        rivals: (N,) the most probable other class.
    """

    model: SoftCAM
    images: Tensor
    classes: Tensor
    rivals: Tensor

    def margin(self, images: Tensor) -> Tensor:
        """Return maps (N, h, w) of that question, which average to the difference of the logits."""
        return self.model.evidence(images).margin(self.classes, against=self.rivals)

    def busiest_cells(self) -> Tensor:
        """Return row and column (N, 2) of the cell that says most, for or against."""
        with torch.no_grad():
            maps = self.margin(self.images)
        index = maps.abs().flatten(1).argmax(1)
        return torch.stack([index // maps.shape[2], index % maps.shape[2]], dim=1).cpu()


def create_subject(model: SoftCAM, images: Tensor, targets: Tensor) -> Subject:
    """Return the subject of some images.

    Args:
        model: In eval mode.
        images: (N, C, H, W), on the model's device.
        targets: (N,) class indices.
    """
    classes = targets.to(images.device)
    with torch.no_grad():
        rivals = model.evidence(images).runner_up(classes)
    return Subject(model, images, classes, rivals)


def measure_locality(subject: Subject, *, window: int, batch_size: int, seed: int) -> dict[str, float]:
    """Return `receptive_field` (px), `context_swap` and `near_zero_share`, means over images.

    Args:
        subject: At least two images; each is surrounded by another one.
        window: Side in pixels of the window around the busiest cell of each image.
        batch_size: Images in one pass.
        seed: Seed of the pairs of images.
    """
    cells = subject.busiest_cells()
    count = len(cells)
    shift = 1 + int(torch.randint(count - 1, (1,), generator=torch.Generator().manual_seed(seed)))
    others = subject.images.roll(shift, 0)
    fields, changes, empty = [], [], []
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        part = Subject(subject.model, subject.images[rows], subject.classes[rows], subject.rivals[rows])
        fields.append(effective_receptive_field(part.margin, part.images, cells[rows]))
        pair = part.images, others[rows], cells[rows]
        changes.append(context_swap_change(part.margin, *pair, windows=(window,))[:, 0])
        with torch.no_grad():
            empty.append(near_zero_share(part.margin(part.images)))
    return {
        "receptive_field": float(torch.cat(fields).nanmean()),
        "context_swap": float(torch.cat(changes).nanmean()),
        "near_zero_share": float(torch.cat(empty).nanmean()),
    }


def localize(subject: Subject, truth: Tensor) -> dict[str, float]:
    """Return the means of the localisation metrics over images.

    Args:
        subject: Images with findings.
        truth: (N, S, S) bool, the findings.
    """
    with torch.no_grad():
        maps = subject.margin(subject.images).cpu()
    return {name: float(values.nanmean()) for name, values in measure_localization(maps, truth).items()}


def share_scales(subject: Subject) -> tuple[float, ...]:
    """Return the share of the decision that each class evidence layer carries, fine to coarse; they add up to 1.

    A layer's part of the logit difference counts by its size, whatever its sign. Empty for a single layer.

    Args:
        subject: The images.
    """
    with torch.no_grad():
        scales = subject.model.scales(subject.images)
    if len(scales) == 1:
        return ()
    rows = torch.arange(len(subject.images), device=subject.images.device)
    parts = torch.stack(
        [scale.logits[rows, subject.classes] - scale.logits[rows, subject.rivals] for scale in scales], dim=1
    )
    shares: Floats = (parts.abs() / parts.abs().sum(1, keepdim=True)).double().nanmean(0).cpu().numpy()
    return tuple(float(share) for share in shares)
