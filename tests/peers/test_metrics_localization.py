"""Localization and complexity against scikit-learn, torchmetrics and scikit-image, pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from skimage.measure import label
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_jaccard_index

from softcam.metrics.complexity import components, entropy
from softcam.metrics.localization import iou, pixel_auroc, pixel_average_precision

GENERATOR = torch.Generator().manual_seed(0)
# One decimal: with ties.
MAPS = torch.randn(4, 15, 20, generator=GENERATOR, dtype=torch.float64).mul(10).round().div(10)
MASKS = torch.rand(4, 15, 20, generator=GENERATOR) < 0.2


def test_pixel_auroc_and_average_precision() -> None:
    pairs = [(mask.flatten().numpy(), image.flatten().numpy()) for mask, image in zip(MASKS, MAPS, strict=True)]
    assert pixel_auroc(MAPS, MASKS).tolist() == pytest.approx([sk.roc_auc_score(*pair) for pair in pairs])
    expected = [sk.average_precision_score(*pair) for pair in pairs]
    assert pixel_average_precision(MAPS, MASKS).tolist() == pytest.approx(expected)


def test_iou() -> None:
    expected = [binary_jaccard_index((m > 0.3).int(), t.int()).item() for m, t in zip(MAPS, MASKS, strict=True)]
    assert iou(MAPS, MASKS, threshold=0.3).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("connectivity", "theirs"), [(4, 1), (8, 2)])
def test_components(connectivity: int, theirs: int) -> None:
    expected = [label((m > m.max() / 2).numpy(), connectivity=theirs).max() for m in MAPS]
    assert components(MAPS, connectivity=connectivity).tolist() == expected  # type: ignore[arg-type]


def test_entropy() -> None:
    share = MAPS.abs().flatten(1) / MAPS.abs().sum((1, 2))[:, None]
    torch.testing.assert_close(entropy(MAPS), torch.distributions.Categorical(share).entropy(), rtol=1e-6, atol=1e-6)
