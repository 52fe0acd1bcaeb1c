from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from softcam.training.losses import classification_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(40, 3, generator=GENERATOR)
TARGETS = torch.randint(3, (40,), generator=GENERATOR)
FLAGS = torch.randint(2, (40, 3), generator=GENERATOR).float()
WEIGHTS = torch.tensor([0.5, 1.0, 4.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_without_a_focus_it_is_the_cross_entropy(weights: torch.Tensor | None, smoothing: float) -> None:
    ours = classification_loss(LOGITS, TARGETS, weights=weights, smoothing=smoothing)
    assert torch.equal(ours, F.cross_entropy(LOGITS, TARGETS, weight=weights, label_smoothing=smoothing))
    ours = classification_loss(LOGITS, FLAGS, multi_label=True, weights=weights, smoothing=smoothing)
    smoothed = FLAGS * (1 - smoothing) + smoothing / 2
    assert torch.equal(ours, F.binary_cross_entropy_with_logits(LOGITS, smoothed, pos_weight=weights))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("focus", [1.0, 2.5])
def test_a_focus_follows_the_formula(weights: torch.Tensor | None, focus: float) -> None:
    each = torch.ones(3) if weights is None else weights
    terms = []
    for logits, target in zip(LOGITS.double().tolist(), TARGETS.tolist(), strict=True):
        p = torch.tensor(logits).softmax(0)[target].item()
        terms.append(float(each[target]) * -((1 - p) ** focus) * torch.tensor(p).log().item())
    ours = classification_loss(LOGITS, TARGETS, weights=weights, focus=focus)
    assert ours.item() == pytest.approx(sum(terms) / float(each[TARGETS].sum()), rel=1e-4)

    terms = []
    for row, flags in zip(LOGITS.tolist(), FLAGS.tolist(), strict=True):
        for k, (logit, flag) in enumerate(zip(row, flags, strict=True)):
            p = torch.tensor(logit if flag else -logit).sigmoid().item()
            terms.append((float(each[k]) if flag else 1.0) * -((1 - p) ** focus) * torch.tensor(p).log().item())
    ours = classification_loss(LOGITS, FLAGS, multi_label=True, weights=weights, focus=focus)
    assert ours.item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


@pytest.mark.parametrize("focus", [1.0, 2.0])
def test_a_certain_image_has_a_finite_gradient(focus: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    classification_loss(logits, torch.tensor([0, 0]), focus=focus).backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_half_precision_is_left_behind() -> None:
    assert classification_loss(LOGITS.half(), TARGETS, focus=2.0).dtype == torch.float32
