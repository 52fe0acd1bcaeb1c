"""What a model says of the images of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from softcam.data import ImageDataset
from softcam.nn import evaluating


def score_images(
    model: nn.Module, dataset: ImageDataset, *, batch_size: int, multi_label: bool
) -> tuple[Tensor, Tensor]:
    """Return probabilities (N, K) and targets of all images, on the CPU.

    Args:
        model: Images to logits (N, K); run in eval mode where it is, and left as it was.
        dataset: The images, not augmented.
        batch_size: Images in one pass.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
    """
    device = next(model.parameters()).device
    logits, targets = [], []
    # A loader without a generator of its own would draw from torch's global one.
    loader = DataLoader(dataset, batch_size, generator=torch.Generator())
    with evaluating(model), torch.inference_mode():
        for images, target, _ in loader:
            inputs = images.to(device, memory_format=torch.channels_last)
            logits.append(model(inputs).float().cpu())
            targets.append(target)
    scores = torch.cat(logits)
    return (scores.sigmoid() if multi_label else scores.softmax(1)), torch.cat(targets)
