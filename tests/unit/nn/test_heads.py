from __future__ import annotations

from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.heads import (
    AttentionEvidence,
    CellNorm,
    EvidenceHead,
    LinearEvidence,
    NormEvidence,
    PerCell,
    PointwiseEvidence,
    SeveralEvidence,
)
from softcam.nn.heads.base import create_convolution
from softcam.nn.heads.pooled import Pooling, Statistic, route_maximum
from softcam.nn.heads.several import resize

Form = Literal["rows", "tokens", "channels_first", "channels_last"]


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


# Every kind of pooling, against the formula cell by cell

GRIDS = {1: (6,), 2: (3, 4), 3: (2, 3, 2)}
POOLINGS = ("avg", "max", "avgmax", "catavgmax")


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype)


def fill(head: nn.Module) -> None:
    """Give every parameter values that say something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def pool_slowly(features: Tensor, pooling: str) -> Tensor:
    """Return the pooled vectors, one channel of one image after the other."""
    rows = []
    for image in features:
        means = [sum(channel.flatten().tolist()) / channel.numel() for channel in image]
        highest = [max(channel.flatten().tolist()) for channel in image]
        halves = [(a + b) / 2 for a, b in zip(means, highest, strict=True)]
        rows.append({"avg": means, "max": highest, "avgmax": halves, "catavgmax": means + highest}[pooling])
    return torch.tensor(rows, dtype=torch.float64)


def check_identity(head: nn.Module, features: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare the three ways to the logits with what is expected."""
    logits, maps = head.evidence(features)
    assert maps.shape == (*expected.shape, *features.shape[2:])
    for found in (head(features), logits, maps.flatten(2).mean(-1)):
        assert found.dtype == features.dtype
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)])
@pytest.mark.parametrize("dims", GRIDS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_logits_and_maps_follow_the_formula(
    pooling: Pooling, dims: int, dtype: torch.dtype, tolerance: float
) -> None:
    features = draw(3, 5, *GRIDS[dims], dtype=dtype)
    head = LinearEvidence(5, 2, pooling=pooling, dims=dims).to(dtype)
    fill(head)
    weight, bias = (parameter.detach().double() for parameter in head.classifier.parameters())
    expected = pool_slowly(features, pooling) @ weight.flatten(1).T + bias
    check_identity(head, features, expected, tolerance)
    assert (head.channels, head.kind) == (5, "linear" if pooling == "avg" else pooling)
    assert head.classifier.in_channels == (10 if pooling == "catavgmax" else 5)


TIED = torch.tensor([[[[1.0, 3.0], [3.0, -1.0]]]])
PLACED = {
    "avg": [[[1.0, 3.0], [3.0, -1.0]]],
    "max": [[[0.0, 12.0], [0.0, 0.0]]],
    "avgmax": [[[0.5, 7.5], [1.5, -0.5]]],
    "catavgmax": [[[1.0, 3.0], [3.0, -1.0]], [[0.0, 12.0], [0.0, 0.0]]],
}
POOLED = {"avg": [1.5], "max": [3.0], "avgmax": [2.25], "catavgmax": [1.5, 3.0]}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_maximum_that_two_cells_share_is_placed_into_the_first(pooling: Pooling) -> None:
    head = LinearEvidence(1, 1, pooling=pooling)
    assert head.place(TIED).tolist() == [PLACED[pooling]]
    assert head.pool(TIED).tolist() == [POOLED[pooling]]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_evidence_averages_to_the_logits_where_all_cells_share_the_maximum(pooling: Pooling) -> None:
    head = LinearEvidence(2, 3, pooling=pooling).double()
    fill(head)
    for value in (-2.0, 0.0, 2.0):
        logits, maps = head.evidence(torch.full((1, 2, 4, 3), value, dtype=torch.float64))
        torch.testing.assert_close(maps.mean((2, 3)), logits, atol=1e-14, rtol=0)


def test_negative_maxima_are_placed_as_they_are() -> None:
    features = torch.tensor([[[-5.0, -2.0, -9.0]]])
    assert route_maximum(features).tolist() == [[[0.0, -6.0, 0.0]]]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_maps_and_logits_agree(pooling: Pooling) -> None:
    head = LinearEvidence(3, 2, pooling=pooling).double()
    fill(head)
    gradients = []
    for take in (head, lambda f: head.evidence(f)[0], lambda f: head.evidence(f)[1].mean((2, 3))):
        head.zero_grad()
        features = draw(2, 3, 3, 4).requires_grad_()
        (take(features) * torch.tensor([1.0, -2.0])).sum().backward()
        gradients.append([features.grad, *(parameter.grad for parameter in head.parameters())])
    for other in gradients[1:]:
        for found, expected in zip(other, gradients[0], strict=True):
            assert expected is not None
            assert expected.any()
            torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_the_gradient_of_a_shared_maximum_adds_up_either_way() -> None:
    head = LinearEvidence(1, 1, pooling="max")
    sums = []
    for index in range(2):
        features = TIED.clone().requires_grad_()
        head.evidence(features)[index].mean().backward()
        assert features.grad is not None
        sums.append(float(features.grad.sum()))
    assert sums[0] == pytest.approx(sums[1])
    assert sums[0] == pytest.approx(head.classifier.weight.item())


# A norm of the pooled vector

NORMED = {
    # The pooled vector is (3, 1): its variance is 1, its mean square 5.
    ("variance", 3.0): (3 - 2) / 2 + 0.5,
    ("variance", 0.0): (3 - 2) / 1 + 0.5,
    ("mean_square", 4.0): (3 - 2) / 3 + 0.5,
    ("mean_square", 11.0): (3 - 2) / 4 + 0.5,
}


@pytest.mark.parametrize(("statistic", "eps"), NORMED)
def test_norms_by_hand(statistic: Statistic, eps: float) -> None:
    head = NormEvidence(2, 1, statistic=statistic, eps=eps).double()
    head.set_classifier(torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.5]).double())
    features = torch.tensor([[[[4.0, 2.0]], [[0.0, 2.0]]]], dtype=torch.float64)
    check_identity(head, features, torch.tensor([[NORMED[statistic, eps]]], dtype=torch.float64), 1e-15)
    scale = (NORMED[statistic, eps] - 0.5) / (3 - 2)
    torch.testing.assert_close(head.place(features), features * scale)


def fold_norm(norm: nn.Module, linear: nn.Linear, *, centre: bool) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the layer after a norm whose gains, biases and centring it takes over."""
    weight = linear.weight.detach() * norm.weight.detach()
    bias = linear.bias.detach()
    if centre:
        weight, bias = weight - weight.mean(1, keepdim=True), bias + linear.weight.detach() @ norm.bias.detach()
    return weight, bias


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax"])
@pytest.mark.parametrize("dims", GRIDS)
@pytest.mark.parametrize("statistic", ["variance", "mean_square"])
def test_norms_give_the_logits_of_torch_s(statistic: Statistic, dims: int, pooling: Pooling) -> None:
    norm = (nn.LayerNorm(5, eps=1e-3) if statistic == "variance" else nn.RMSNorm(5, eps=1e-3)).double()
    linear = nn.Linear(5, 3).double()
    fill(norm)
    features = draw(2, 5, *GRIDS[dims])
    head = NormEvidence(5, 3, statistic=statistic, eps=1e-3, pooling=pooling, dims=dims)
    head.set_classifier(*fold_norm(norm, linear, centre=statistic == "variance"))
    check_identity(head, features, linear(norm(pool_slowly(features, pooling))).detach(), 1e-14)
    assert head.kind == "pooled_norm"


def test_the_gradient_goes_through_the_norm() -> None:
    head = NormEvidence(3, 2, statistic="variance", eps=0.1).double()
    fill(head)
    assert torch.autograd.gradcheck(head.evidence, (draw(2, 3, 2, 2).requires_grad_(),))


def test_a_norm_of_large_half_precision_features_does_not_overflow() -> None:
    # Their squares are beyond the range of float16.
    head = NormEvidence(2, 1, statistic="mean_square").half()
    head.set_classifier(torch.ones(1, 2).half(), torch.zeros(1).half())
    features = torch.tensor([600.0, 800.0]).half().reshape(1, 2, 1, 1)
    assert head(features).item() == pytest.approx(1400 / (500_000**0.5), rel=2e-3)


def test_a_norm_of_mean_and_maximum_side_by_side_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `pooling` to be avg, max or avgmax before a norm, but got 'catav"):
        NormEvidence(2, 1, statistic="variance", pooling="catavgmax")


def test_repr_names_what_sets_a_norm_apart() -> None:
    head = NormEvidence(2, 1, statistic="mean_square", eps=0.25, pooling="max", dropout=0.5)
    assert "dropout=0.5, pooling=max, statistic=mean_square, eps=0.25" in repr(head)


# Layers at every cell


def test_layers_at_every_cell_by_hand() -> None:
    head = PointwiseEvidence(nn.ReLU(), 1, 1, 1)
    head.set_classifier(torch.tensor([[3.0]]), torch.tensor([1.0]))
    features = torch.tensor([[[[2.0, -2.0]]]])
    logits, maps = head.evidence(features)
    assert maps.tolist() == [[[[7.0, 1.0]]]]
    assert logits.tolist() == head(features).tolist() == [[4.0]]
    assert (head.kind, head.channels, head.num_classes) == ("pointwise", 1, 1)


@pytest.mark.parametrize("dims", GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_at_every_cell_are_the_layers_of_the_vectors(dims: int, dtype: torch.dtype) -> None:
    hidden, norm, last = nn.Linear(4, 6, dtype=dtype), nn.LayerNorm(6, dtype=dtype), nn.Linear(6, 3, dtype=dtype)
    fill(norm)
    body = nn.Sequential(PerCell(hidden), CellNorm(norm), nn.GELU())
    head = PointwiseEvidence(body, 4, 6, 3, dims=dims).set_classifier(last.weight.detach(), last.bias.detach())
    features = draw(2, 4, *GRIDS[dims], dtype=dtype)
    _, maps = head.evidence(features)
    for index in product(*(range(extent) for extent in GRIDS[dims])):
        cell = (slice(None), slice(None), *index)
        torch.testing.assert_close(maps[cell], last(F.gelu(norm(hidden(features[cell])))), atol=1e-6, rtol=0)
    check_identity(head, features, maps.detach().flatten(2).mean(-1).double(), 1e-5)


def test_a_window_of_cells_makes_a_head_fully_convolutional() -> None:
    head = PointwiseEvidence(nn.Sequential(nn.Conv2d(2, 3, (1, 2)), nn.ReLU()), 2, 3, 4)
    logits, maps = head.evidence(draw(1, 2, 3, 5, dtype=torch.float32))
    assert head.kind == "fully_convolutional"
    assert maps.shape == (1, 4, 3, 4)
    torch.testing.assert_close(maps.mean((2, 3)), logits)


def test_dropout_inside_and_after_the_layers_draws_once_for_logits_and_maps() -> None:
    head = PointwiseEvidence(nn.Dropout(0.5), 6, 6, 2, dropout=0.5).double().train()
    fill(head)
    logits, maps = head.evidence(draw(8, 6, 3, 3))
    torch.testing.assert_close(maps.mean((2, 3)), logits, atol=1e-14, rtol=0)
    again, _ = head.evidence(draw(8, 6, 3, 3))
    assert not torch.equal(again, logits)


def test_every_parameter_of_the_layers_gets_a_gradient() -> None:
    head = PointwiseEvidence(nn.Sequential(PerCell(nn.Linear(3, 4)), CellNorm(nn.LayerNorm(4))), 3, 4, 2)
    for index in range(2):
        head.zero_grad()
        head.evidence(draw(2, 3, 2, 2, dtype=torch.float32))[index].square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dims", GRIDS)
def test_a_cell_norm_by_its_formula(dims: int, affine: bool) -> None:
    norm = nn.LayerNorm(4, eps=0.5, elementwise_affine=affine).double()
    fill(norm)
    features = draw(2, 4, *GRIDS[dims])
    shifted = features - features.mean(1, keepdim=True)
    expected = shifted / (shifted.square().mean(1, keepdim=True) + 0.5).sqrt()
    if affine:
        gain, bias = (value.reshape(1, 4, *[1] * dims) for value in (norm.weight, norm.bias))
        expected = expected * gain + bias
    torch.testing.assert_close(CellNorm(norm)(features), expected, atol=1e-14, rtol=0)


class Noted(nn.Module):
    """A linear layer of the last, or of the second, dimension that remembers what shape it was given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(3, 2, dtype=torch.float64)
        self.shape: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.shape = tuple(x.shape)
        return self.linear(x.movedim(self.dim, -1)).movedim(-1, self.dim)


FORMS = {
    ("rows", 2): (-1, (24, 3)),
    ("tokens", 2): (-1, (24, 1, 3)),
    ("channels_first", 1): (1, (12, 3, 1)),
    ("channels_first", 2): (1, (24, 3, 1, 1)),
    ("channels_first", 3): (1, (24, 3, 1, 1, 1)),
    ("channels_last", 1): (-1, (12, 1, 3)),
    ("channels_last", 3): (-1, (24, 1, 1, 1, 3)),
}


@pytest.mark.parametrize(("form", "dims"), FORMS)
def test_a_module_gets_every_cell_in_its_form(form: Form, dims: int) -> None:
    dim, shape = FORMS[form, dims]
    module = Noted(dim)
    features = draw(2, 3, *GRIDS[dims])
    found = PerCell(module, form)(features)
    assert module.shape == shape
    assert found.shape == (2, 2, *GRIDS[dims])
    torch.testing.assert_close(found, module.linear(features.movedim(1, -1)).movedim(-1, 1))
    assert f"form={form}" in repr(PerCell(module, form))


# Attention


def make_attention(**options: int) -> AttentionEvidence:
    head = AttentionEvidence(6, 3, num_heads=2, embed_dim=8, grid=(3, 4), **options).double()
    fill(head)
    return head


def attend_slowly(head: AttentionEvidence, features: Tensor) -> Tensor:
    """Return the answer (N, E) by torch's own attention, asked by the mean token."""
    tokens = features.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + head.positions[:, None]
    width = head.query.out_features
    answer, _ = F.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=head.num_heads,
        q_proj_weight=head.query.weight,
        k_proj_weight=head.key.weight,
        v_proj_weight=head.value.weight,
        in_proj_weight=None,
        in_proj_bias=torch.cat([head.query.bias, head.key.bias, head.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=torch.eye(width, dtype=features.dtype),
        out_proj_bias=None,
        use_separate_proj_weight=True,
        training=False,
        need_weights=False,
    )
    return answer[0]


def test_attention_answers_as_torch_s_does() -> None:
    # Torch's function wants as many channels as it embeds.
    head = AttentionEvidence(8, 3, num_heads=2, embed_dim=8, grid=(3, 4)).double()
    fill(head)
    features = draw(2, 8, 3, 4) / 4
    answer = attend_slowly(head, features)
    torch.testing.assert_close(head.pool(features), answer, atol=1e-12, rtol=0)
    torch.testing.assert_close(head.place(features).mean((2, 3)), answer, atol=1e-12, rtol=0)
    check_identity(head, features, F.linear(answer, head.classifier.weight[..., 0, 0], head.classifier.bias), 1e-12)


@pytest.mark.parametrize("grid", [(3, 4), (5, 6)])
def test_attention_is_timm_s(grid: tuple[int, int]) -> None:
    pytest.importorskip("timm", minversion="1.0.31", reason="older ones cannot pool a grid that is not square")
    attention = pytest.importorskip("timm.layers.attention_pool2d")
    position = pytest.importorskip("timm.layers.pos_embed")
    pool = attention.AttentionPool2d(6, (3, 4), out_features=3, embed_dim=8, num_heads=2).double()
    fill(pool)
    head = make_attention()
    with torch.no_grad():
        head.positions.copy_(pool.pos_embed)
        for part, weight, bias in zip(
            (head.query, head.key, head.value), pool.qkv.weight.chunk(3), pool.qkv.bias.chunk(3), strict=True
        ):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
    head.set_classifier(pool.proj.weight.detach(), pool.proj.bias.detach())
    features = draw(2, 6, *grid) / 4
    if grid != (3, 4):
        resized = position.resample_abs_pos_embed(pool.pos_embed.unsqueeze(0), grid, old_size=(3, 4))
        pool.pos_embed = nn.Parameter(resized[0])
        pool.feat_size, pool.seq_len = grid, grid[0] * grid[1]
    check_identity(head, features, pool(features).detach(), 1e-6 if grid != (3, 4) else 1e-12)


def test_even_attention_leaves_the_features_where_they_are() -> None:
    # With keys of zero, every token gets 1 / (hw + 1): hw shares of its own and one of the mean make each cell whole.
    head = AttentionEvidence(4, 2, num_heads=2, embed_dim=4, grid=(2, 3)).double()
    with torch.no_grad():
        head.key.weight.zero_()
        head.value.weight.copy_(torch.eye(4))
        head.value.bias.zero_()
    features = draw(2, 4, 2, 3)
    torch.testing.assert_close(head.place(features), features)
    torch.testing.assert_close(head.pool(features), features.mean((2, 3)))


def test_attention_weighs_the_cells() -> None:
    # One attention head whose keys are the features and whose query is 1, so that a cell weighs exp(x).
    head = AttentionEvidence(1, 1, num_heads=1, embed_dim=1, grid=(1, 2)).double()
    with torch.no_grad():
        for part, weight, bias in ((head.query, 0.0, 1.0), (head.key, 1.0, 0.0), (head.value, 1.0, 0.0)):
            part.weight.fill_(weight)
            part.bias.fill_(bias)
    a, b = 0.0, 2 * torch.tensor(3.0, dtype=torch.float64).log().item()
    features = torch.tensor([[[[a, b]]]], dtype=torch.float64)
    # Weights of the mean token and the two cells: 3, 1 and 9 of 13.
    expected = (3 * (a + b) / 2 + 1 * a + 9 * b) / 13
    assert head.pool(features).item() == pytest.approx(expected)
    assert head.place(features).flatten().tolist() == pytest.approx([0.0, (2 * 9 + 3) / 13 * b])


def test_every_parameter_of_attention_gets_a_gradient() -> None:
    head = make_attention(dropout=0)
    for index in range(2):
        head.zero_grad()
        head.evidence(draw(2, 6, 3, 4) / 4)[index].square().sum().backward()
        # A bias of the keys adds the same to every score, which the softmax takes away again.
        sizes = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in head.named_parameters()}
        assert [name for name, size in sizes.items() if size < 1e-9 * max(sizes.values())] == ["key.bias"]
    assert (head.kind, head.channels, head.num_classes, head.classifier.in_channels) == ("attention", 6, 3, 8)


# Several maps


def make_several(placed: list[bool] | None = None) -> SeveralEvidence:
    head = SeveralEvidence([LinearEvidence(3, 2), LinearEvidence(4, 2)], placed=placed).double()
    fill(head)
    return head


def test_several_maps_by_hand() -> None:
    heads = [LinearEvidence.from_affine(torch.ones(1, 1), torch.tensor([bias])) for bias in (0.0, 10.0)]
    several = SeveralEvidence(heads)
    fine, coarse = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), torch.tensor([[[[5.0]]]])
    logits, maps = several.evidence([fine, coarse])
    assert maps.tolist() == [[[[16.0, 17.0], [18.0, 21.0]]]]
    assert logits.tolist() == several([fine, coarse]).tolist() == [[18.0]]
    assert [(part.item(), tuple(own.shape)) for part, own in several.parts([fine, coarse])] == [
        (3.0, (1, 1, 2, 2)),
        (15.0, (1, 1, 1, 1)),
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_the_finest_map_gives_the_grid_whichever_place_it_has(order: int) -> None:
    several = SeveralEvidence([LinearEvidence(3, 2), LinearEvidence(3, 2)]).double()
    fill(several)
    features = [draw(2, 3, 7, 5), draw(2, 3, 3, 2)][::order]
    expected = sum(head(part) for head, part in zip(several.layers(), features, strict=True))
    logits, maps = several.evidence(features)
    assert maps.shape == (2, 2, 7, 5)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps.mean((2, 3)), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("placed", [[True, False], [False, True]])
def test_tokens_without_a_place_give_every_cell_the_same(placed: list[bool]) -> None:
    several = make_several(placed)
    shapes = [(2, 3, 3, 4), (2, 4, 5, 1)] if placed[0] else [(2, 3, 99, 1), (2, 4, 3, 4)]
    features = [draw(*shape) for shape in shapes]
    logits, maps = several.evidence(features)
    own = several.layers()[placed.index(True)].evidence(features[placed.index(True)])[1]
    share = several.layers()[placed.index(False)](features[placed.index(False)])
    assert maps.shape == (2, 2, 3, 4)
    torch.testing.assert_close(maps - own, share[..., None, None].expand_as(own))
    torch.testing.assert_close(maps.mean((2, 3)), logits, atol=1e-14, rtol=0)


@pytest.mark.parametrize("placed", [[False, False], [True], [True, True, True]])
def test_several_maps_need_a_place_for_one_of_them_at_least(placed: list[bool]) -> None:
    with pytest.raises(ValueError, match="Expected `placed` to name one of 2 maps at least, but got "):
        make_several(placed)


@pytest.mark.parametrize("dims", GRIDS)
def test_several_maps_of_signals_and_volumes(dims: int) -> None:
    several = SeveralEvidence([LinearEvidence(3, 2, dims=dims), LinearEvidence(3, 2, dims=dims)]).double()
    fill(several)
    features = [draw(2, 3, *[2] * dims), draw(2, 3, *[5] * dims)]
    logits, maps = several.evidence(features)
    assert maps.shape == (2, 2, *[5] * dims)
    torch.testing.assert_close(maps.flatten(2).mean(-1), logits, atol=1e-14, rtol=0)
    torch.testing.assert_close(several(features), logits)


def test_every_parameter_of_several_maps_gets_a_gradient() -> None:
    for index in range(2):
        several = make_several()
        several.evidence([draw(2, 3, 2, 2), draw(2, 4, 4, 4)])[index].square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in several.parameters())


def test_several_layers_are_told_and_reset_together() -> None:
    several = make_several()
    assert (several.channels, several.num_classes, several.dropout, several.kind) == (7, 2, 0.0, "several")
    assert [layer.out_channels for layer in several.classifier] == [2, 2]
    several.dropout = 0.25
    assert [head.dropout for head in several.layers()] == [0.25, 0.25]
    several.reset(5)
    assert [head.num_classes for head in several.layers()] == [5, 5]
    assert several([draw(2, 3, 2, 2), draw(2, 4, 4, 4)]).shape == (2, 5)


def test_the_number_of_maps_has_to_fit() -> None:
    with pytest.raises(ValueError, match="zip"):
        make_several()([draw(2, 3, 2, 2)])


def test_resizing_by_hand_and_with_the_mean_put_right() -> None:
    assert resize(torch.tensor([[[0.0, 4.0]]]), (4,)).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    maps = draw(1, 2, 3, 4)
    resized, plain = resize(maps, (7, 5)), F.interpolate(maps, (7, 5), mode="bilinear")
    torch.testing.assert_close(resized.mean((2, 3)), maps.mean((2, 3)), atol=1e-15, rtol=0)
    assert (plain.mean((2, 3)) - maps.mean((2, 3))).abs().min() > 1e-3
    difference = resized - plain
    torch.testing.assert_close(difference, difference[..., :1, :1].expand_as(difference), atol=1e-15, rtol=0)
    assert resize(maps, (3, 4)) is maps


# What all kinds share


def make_heads() -> dict[str, EvidenceHead]:
    heads: dict[str, EvidenceHead] = {pooling: LinearEvidence(6, 3, pooling=pooling) for pooling in POOLINGS}
    heads["norm"] = NormEvidence(6, 3, statistic="variance")
    heads["pointwise"] = PointwiseEvidence(nn.Conv2d(6, 5, 1), 6, 5, 3)
    heads["attention"] = AttentionEvidence(6, 3, num_heads=2, embed_dim=4, grid=(3, 4))
    return heads


@pytest.fixture(params=["avg", "max", "avgmax", "catavgmax", "norm", "pointwise", "attention"])
def head(request: pytest.FixtureRequest) -> EvidenceHead:
    found = make_heads()[request.param].double()
    fill(found)
    return found


def test_every_kind_keeps_the_identity_with_dropout(head: EvidenceHead) -> None:
    head.dropout = 0.5
    logits, maps = head.train().evidence(draw(6, 6, 3, 4))
    torch.testing.assert_close(maps.mean((2, 3)), logits, atol=1e-12, rtol=0)
    # With the same random numbers, the cheap way gives the same.
    torch.manual_seed(1)
    expected = head(draw(6, 6, 3, 4))
    torch.manual_seed(1)
    torch.testing.assert_close(head.evidence(draw(6, 6, 3, 4))[0], expected, atol=1e-12, rtol=0)
    assert not torch.equal(head(draw(6, 6, 3, 4)), expected)


def test_the_mask_drops_placed_channels_whole(head: EvidenceHead) -> None:
    features = draw(200, 6, 3, 4)
    assert head.train()._mask(features) is None
    head.dropout = 0.2
    assert head.eval()._mask(features) is None
    mask = head.train()._mask(features)
    assert mask is not None
    assert mask.shape == (200, head.classifier.in_channels)
    assert mask.dtype == torch.float64
    assert set(mask.flatten().tolist()) == {0.0, 1.25}
    assert mask.eq(0).double().mean().item() == pytest.approx(0.2, abs=0.05)


def test_a_classifier_is_taken_over_as_a_copy(head: EvidenceHead) -> None:
    weight, bias = draw(2, head.classifier.in_channels, dtype=torch.float32), torch.tensor([1.0, 2.0])
    assert head.set_classifier(weight, bias) is head
    assert head.num_classes == 2
    assert {parameter.dtype for parameter in head.classifier.parameters()} == {torch.float32}
    assert torch.equal(head.classifier.weight.flatten(1), weight)
    assert head.classifier.bias is not None
    assert head.classifier.bias.tolist() == [1.0, 2.0]
    weight.zero_()
    assert head.classifier.weight.all()
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in head.classifier.parameters())


def test_reset_leaves_all_but_the_classifier(head: EvidenceHead) -> None:
    before = {key: value.clone() for key, value in head.state_dict().items() if not key.startswith("classifier")}
    channels = head.channels
    torch.manual_seed(2)
    head.reset(9)
    weight = head.classifier.weight.clone()
    assert (head.num_classes, head.channels) == (9, channels)
    assert 0 < weight.std() < 0.02
    assert not head.classifier.bias.any()  # type: ignore[union-attr]
    assert weight.dtype == torch.float64
    assert all(torch.equal(head.state_dict()[key], value) for key, value in before.items())
    torch.manual_seed(2)
    head.reset(9)
    assert torch.equal(head.classifier.weight, weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_maps_and_logits_keep_the_dtype_and_nearly_the_identity(head: EvidenceHead, dtype: torch.dtype) -> None:
    fine = head.float() if dtype == torch.float32 else head.to(dtype)
    logits, maps = fine.evidence(draw(2, 6, 3, 4, dtype=dtype) / 4)
    assert logits.dtype == maps.dtype == dtype
    size = maps.double().abs().mean((2, 3)).max()
    difference = (maps.double().mean((2, 3)) - logits.double()).abs().max()
    assert difference <= 8 * torch.finfo(dtype).eps * size


@pytest.mark.parametrize("dims", [0, 4])
def test_grids_of_other_dimensions_are_refused(dims: int) -> None:
    with pytest.raises(ValueError, match=f"Expected `dims` to be 1, 2 or 3, but got {dims}"):
        LinearEvidence(5, 2, dims=dims)


def test_the_base_class_places_nothing() -> None:
    with pytest.raises(NotImplementedError):
        EvidenceHead(2, 1)(torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize("dims", GRIDS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_built_from_its_kernel(dims: int, bias: bool) -> None:
    kernel, offsets = draw(2, 3, *[2] * dims), draw(2) if bias else None
    state = torch.get_rng_state()
    layer = create_convolution(kernel, offsets)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(layer) is (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    assert torch.equal(layer.weight, kernel)
    assert (layer.bias is not None) == bias
    expected = (kernel * draw(1, 3, *[2] * dims)).flatten(1).sum(1) + (0 if offsets is None else offsets)
    torch.testing.assert_close(layer(draw(1, 3, *[2] * dims)).flatten(), expected)
