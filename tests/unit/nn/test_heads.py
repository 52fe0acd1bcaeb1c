from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softcam.nn.heads import LinearEvidence


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 5, 4, 7, dtype=torch.float64)


@pytest.fixture
def linear() -> nn.Linear:
    return nn.Linear(5, 2, dtype=torch.float64)


def test_by_hand() -> None:
    head = LinearEvidence.from_affine(torch.tensor([[1.0, -2.0]]), torch.tensor([0.5]))
    features = torch.tensor([[[[4.0, 0.0]], [[1.0, 3.0]]]])
    logits, maps = head.evidence(features)
    assert maps.tolist() == [[[[2.5, -5.5]]]]
    assert logits.tolist() == [[-1.5]]
    assert head(features).tolist() == [[-1.5]]


def test_from_affine_gives_the_logits_of_the_pooled_classifier(features: torch.Tensor, linear: nn.Linear) -> None:
    head = LinearEvidence.from_affine(linear.weight, linear.bias)
    expected = linear(features.mean((2, 3)))
    logits, maps = head.evidence(features)
    torch.testing.assert_close(head(features), expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(logits, expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(maps.mean((-2, -1)), expected, atol=1e-14, rtol=0)


def test_maps_are_the_classifier_at_every_position(features: torch.Tensor, linear: nn.Linear) -> None:
    _, maps = LinearEvidence.from_affine(linear.weight, linear.bias).evidence(features)
    for row, column in product(range(4), range(7)):
        torch.testing.assert_close(maps[:, :, row, column], linear(features[:, :, row, column]))


def test_from_affine_copies(linear: nn.Linear) -> None:
    head = LinearEvidence.from_affine(linear.weight, linear.bias)
    with torch.no_grad():
        head.classifier.weight.zero_()
        head.classifier.bias.zero_()  # type: ignore[union-attr]
    assert linear.weight.abs().min() > 0
    assert linear.bias.abs().min() > 0


def test_from_affine_draws_no_random_numbers(linear: nn.Linear) -> None:
    before = torch.get_rng_state()
    LinearEvidence.from_affine(linear.weight, linear.bias)
    assert torch.equal(torch.get_rng_state(), before)


def test_from_affine_carries_dtype_dropout_and_gradients(linear: nn.Linear) -> None:
    head = LinearEvidence.from_affine(linear.weight, linear.bias, dropout=0.3)
    assert head.dropout == 0.3
    assert head.training
    assert [p.dtype for p in head.parameters()] == [torch.float64] * 2
    assert all(p.requires_grad and p.is_leaf for p in head.parameters())


def test_sizes() -> None:
    head = LinearEvidence(5, 2)
    assert (head.channels, head.num_classes, head.kind) == (5, 2, "linear")
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == {
        "classifier.weight": (2, 5, 1, 1),
        "classifier.bias": (2,),
    }


def test_a_new_layer_is_small_random_weights_without_bias() -> None:
    head = LinearEvidence(400, 10)
    assert head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not head.classifier.bias.any()  # type: ignore[union-attr]


def test_dropout_draws_what_dropout_on_the_pooled_vector_draws(linear: nn.Linear) -> None:
    features = torch.randn(64, 5, 4, 7, dtype=torch.float64)
    head = LinearEvidence.from_affine(linear.weight, linear.bias, dropout=0.4).train()
    torch.manual_seed(7)
    logits, maps = head.evidence(features)
    torch.manual_seed(7)
    expected = linear(F.dropout(features.mean((2, 3)), 0.4))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps.mean((-2, -1)), expected)


def test_dropout_has_the_exact_distribution_of_pooled_dropout() -> None:
    weight = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    p, n = 0.25, 20_000
    head = LinearEvidence.from_affine(weight, torch.zeros(1, dtype=torch.float64), dropout=p).train()
    logits = head(torch.ones(1, 3, 2, 2, dtype=torch.float64).expand(n, -1, -1, -1))[:, 0]
    codes = (logits * (1 - p)).round().long()  # each outcome of three channels is one number in 0..7
    for code in range(8):
        kept = code.bit_count()
        expected = (1 - p) ** kept * p ** (3 - kept)
        assert (codes == code).double().mean().item() == pytest.approx(expected, abs=0.015)


def test_dropout_spares_evaluation(features: torch.Tensor, linear: nn.Linear) -> None:
    head = LinearEvidence.from_affine(linear.weight, linear.bias, dropout=0.9).eval()
    torch.testing.assert_close(head(features), linear(features.mean((2, 3))))


@pytest.mark.parametrize("dropout", [-0.01, 1.0, float("nan")])
def test_dropout_out_of_range_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `dropout` to be in \[0, 1\)"):
        LinearEvidence(5, 2, dropout=dropout)


def test_reset_puts_a_new_layer_in_place() -> None:
    head = LinearEvidence(5, 2, dropout=0.3).to(torch.float64)
    old = head.classifier.weight
    head.reset(7)
    assert (head.channels, head.num_classes, head.dropout) == (5, 7, 0.3)
    assert head.classifier.weight.dtype == torch.float64
    head.reset(2)
    assert not torch.equal(head.classifier.weight, old)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_no_class_is_refused(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"Expected `num_classes` to be >= 1, but got {num_classes}"):
        LinearEvidence(5, num_classes)
    with pytest.raises(ValueError, match="Expected `num_classes` to be >= 1"):
        LinearEvidence(5, 1).reset(num_classes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pools_in_single(dtype: torch.dtype) -> None:
    # One large value among many small ones: a half-precision running sum would lose the small ones.
    features = torch.full((1, 1, 64, 64), 0.25, dtype=dtype)
    features[0, 0, 0, 0] = 1024.0
    head = LinearEvidence.from_affine(torch.ones(1, 1), torch.zeros(1)).to(dtype)
    logits = head(features)
    assert logits.dtype == dtype
    assert logits.item() == pytest.approx(0.25 + (1024 - 0.25) / 4096, rel=torch.finfo(dtype).eps)


def test_repr_names_the_dropout() -> None:
    assert "dropout=0.25" in repr(LinearEvidence(5, 2, dropout=0.25))
