"""Signals and volumes beside images, and one logit beside several: the same promises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import softcam
from softcam.errors import BundleError, UnsupportedModelError
from softcam.nn import ElasticNet, SoftCAM, convert
from softcam.nn.replay import check_cut, run_from, run_until
from softcam.survey.weights import randomise

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MEANS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
MAXIMA = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
SIZES = {1: (37,), 2: (16, 20), 3: (10, 12, 17)}
GRIDS = {1: (10,), 2: (4, 5), 3: (3, 3, 5)}


class Net(nn.Module):
    """Two strided convolutions with a batch norm, then pooling -> dropout -> linear, on any number of dimensions."""

    def __init__(self, dims: int, num_classes: int = 3, pool: dict[int, type[nn.Module]] | None = None) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.body = nn.Sequential(
            convolution(2, 6, 3, stride=2, padding=1), NORMS[dims](6), nn.ReLU(), convolution(6, 8, 3, 2, 1), nn.ReLU()
        )
        self.pool = (pool or MEANS)[dims](1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(self.body(images)).flatten(1)))


class Mean(Net):
    """Pools by a function that reads the positions as tokens."""

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images).flatten(2).mean(-1))


class Squeezed(Net):
    """Gives (N,) rather than (N, 1)."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).squeeze(1)


class Sigmoid(Net):
    """Gives the probability rather than the logit."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sigmoid()


@dataclass(frozen=True)
class Case:
    """A black box with weights that look trained, and two of its images."""

    black_box: nn.Module
    images: Tensor
    grid: tuple[int, ...]


@pytest.fixture(params=[1, 2, 3])
def dims(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def make_case(dims: int, dtype: torch.dtype = torch.float32, **options: object) -> Case:
    black_box = randomise(Net(dims, **options)).to(dtype)  # type: ignore[arg-type]
    return Case(black_box, torch.randn(2, 2, *SIZES[dims], dtype=dtype), GRIDS[dims])


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.detach() - expected.detach()).abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("pool", [MEANS, MAXIMA], ids=["mean", "max"])
def test_the_maps_average_to_the_black_boxs_logits(
    dims: int, dtype: torch.dtype, tolerance: float, num_classes: int, pool: dict[int, type[nn.Module]]
) -> None:
    case = make_case(dims, dtype, num_classes=num_classes, pool=pool)
    model = convert(case.black_box, images=case.images)
    more = torch.randn(3, *case.images.shape[1:], dtype=dtype)
    with torch.no_grad():
        evidence, expected = model.evidence(more), case.black_box(more)
    assert evidence.maps.shape == (3, num_classes, *case.grid)
    assert evidence.maps.flatten(2).std(-1).min() > 0
    assert error(evidence.logits, expected) <= tolerance
    assert error(evidence.maps.flatten(2).mean(-1), expected) <= tolerance
    assert error(model(more), expected) <= tolerance


def test_the_map_is_the_classifier_at_every_cell(dims: int) -> None:
    case = make_case(dims, torch.float64)
    with torch.no_grad():
        features = case.black_box.body(case.images).movedim(1, -1)
        maps = case.black_box.fc(features).movedim(-1, 1)
        found = convert(case.black_box, images=case.images).evidence(case.images).maps
    assert error(found, maps) <= 1e-12


def test_the_report_speaks_of_every_dimension(dims: int) -> None:
    case = make_case(dims)
    report = convert(case.black_box, images=case.images).conversion
    assert (report.exact, report.grid, report.input_size) == (True, case.grid, SIZES[dims])
    assert report.map_stride == (4,) * dims
    assert report.receptive_field == (7,) * dims
    assert f"{'x'.join(map(str, case.grid))} cells at {'x'.join(map(str, SIZES[dims]))} px" in str(report)


def test_positions_read_as_tokens_find_their_grid(dims: int) -> None:
    black_box = randomise(Mean(dims))
    images = torch.randn(2, 2, *[16, 24, 32][:dims])
    evidence = convert(black_box, images=images).evidence(images).check()
    assert evidence.grid == (4, 6, 8)[:dims]
    features = black_box.body(images).movedim(1, -1)
    torch.testing.assert_close(evidence.maps, black_box.fc(features).movedim(-1, 1))


def test_other_sizes_give_other_grids(dims: int) -> None:
    case = make_case(dims)
    model = convert(case.black_box, images=case.images)
    larger = torch.randn(1, 2, *[2 * extent for extent in SIZES[dims]])
    evidence = model.evidence(larger).check()
    assert evidence.grid == tuple(-(-2 * extent // 4) for extent in SIZES[dims])
    assert error(evidence.logits, case.black_box(larger)) <= 5e-6


def test_gradients_reach_the_trunk_through_logits_and_penalty(dims: int) -> None:
    case = make_case(dims)
    model = convert(case.black_box, images=case.images)
    evidence = model.evidence(case.images)
    for loss in (evidence.logits.sum(), ElasticNet(l1=1e-2, l2=1e-2)(evidence.maps)):
        model.zero_grad()
        loss.backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_dropout_falls_on_whole_channels(dims: int) -> None:
    case = make_case(dims)
    model = convert(case.black_box, images=case.images).train()
    model.features.eval()
    evidence = model.evidence(case.images).check(1e-5)
    assert error(evidence.logits, case.black_box(case.images)) > 1e-2


def test_several_places_add_up_on_the_finest_grid(dims: int) -> None:
    case = make_case(dims)
    model = convert(case.black_box, images=case.images, at=(2, 4), num_classes=5)
    evidence, parts = model.evidence(case.images).check(), model.scales(case.images)
    assert evidence.grid == tuple(-(-extent // 2) for extent in SIZES[dims]) == parts[0].grid
    assert parts[1].grid == case.grid
    torch.testing.assert_close(evidence.logits, parts[0].logits + parts[1].logits)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_saved_model_gives_the_same_bits(dims: int, num_classes: int, tmp_path: Path) -> None:
    case = make_case(dims, num_classes=num_classes)
    model = softcam.convert(case.black_box, images=case.images)
    softcam.save(model, tmp_path / "model")
    loaded = softcam.load(tmp_path / "model", model=Net(dims, num_classes))
    before, after = model.evidence(case.images), loaded.evidence(case.images)
    assert torch.equal(before.maps, after.maps)
    assert torch.equal(before.logits, after.logits)
    assert (before.multi_label, after.multi_label) == (num_classes == 1, num_classes == 1)
    assert loaded.conversion == model.conversion
    grid = "x".join(map(str, case.grid))
    assert f"{grid} cells at" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("dims", [1, 3])
def test_probe_images_are_asked_for(dims: int) -> None:
    kind = {1: r"signals \(N, C, L\)", 3: r"volumes \(N, C, D, H, W\)"}[dims]
    with pytest.raises(UnsupportedModelError, match=rf"Expected `images=` for a network of {kind}"):
        convert(Net(dims).eval())
    with pytest.raises(ValueError, match="Expected `images` to be a filled batch"):
        convert(Net(dims).eval(), images=torch.randn(2, *SIZES[dims]))


def test_the_network_runs_in_halves(dims: int) -> None:
    case = make_case(dims)
    images = torch.randn(2, 2, *[40, 36, 44][:dims])
    example = check_cut(case.black_box, "body.2", images)
    assert example.shape == (1, 2, *[32] * dims)
    halves = run_from(case.black_box, "body.2", run_until(case.black_box, "body.2", images), example)
    torch.testing.assert_close(halves, case.black_box(images))


@pytest.fixture
def one_logit() -> tuple[SoftCAM, Tensor]:
    case = make_case(2, num_classes=1)
    return convert(case.black_box, images=case.images), case.images


def test_one_logit_is_read_by_its_sigmoid(one_logit: tuple[SoftCAM, Tensor]) -> None:
    model, images = one_logit
    evidence = model.evidence(images)
    assert model.multi_label
    assert evidence.multi_label
    assert model.with_evidence()(images).multi_label
    torch.testing.assert_close(evidence.probabilities(), 1 / (1 + (-evidence.logits).exp()))
    assert 0 < evidence.probabilities().min() < evidence.probabilities().max() < 1
    assert any("its sigmoid is the probability" in note for note in model.conversion.notes)
    log_odds = (evidence.probabilities() / (1 - evidence.probabilities())).log()
    torch.testing.assert_close(evidence.map_of(0).mean((1, 2)), log_odds[:, 0], atol=1e-5, rtol=1e-5)


def test_the_number_of_classes_decides_and_what_was_asked_comes_back(one_logit: tuple[SoftCAM, Tensor]) -> None:
    model, images = one_logit
    model.reset_classifier(3)
    assert not model.multi_label
    assert model.evidence(images).probabilities().sum(1).tolist() == pytest.approx([1.0, 1.0])
    model.reset_classifier(1)
    assert model.multi_label
    model.multi_label = False
    assert model.multi_label
    model.multi_label = True
    model.reset_classifier(2)
    assert model.multi_label


def test_one_logit_has_one_name(one_logit: tuple[SoftCAM, Tensor], tmp_path: Path) -> None:
    model, images = one_logit
    with pytest.raises(BundleError, match="Name the class that its only logit speaks for"):
        softcam.save(model, tmp_path / "model", classes=["intact", "defect"])
    softcam.save(model, tmp_path / "model", classes=["defect"], thresholds={"defect": 0.3})
    loaded = softcam.load(tmp_path / "model", model=Net(2, 1))
    assert torch.equal(loaded.evidence(images).probabilities(), model.evidence(images).probabilities())


def test_a_new_layer_of_one_class_is_one_logit(dims: int) -> None:
    case = make_case(dims)
    model = convert(case.black_box, images=case.images, num_classes=1)
    assert model.multi_label
    evidence = model.evidence(case.images).check()
    assert evidence.logits.shape == (2, 1)
    torch.testing.assert_close(evidence.probabilities(), evidence.logits.sigmoid())


@pytest.mark.parametrize(
    ("kind", "message"), [(Squeezed, r"\(N, K\), but got \(2,\).*`classifier=`"), (Sigmoid, "the head is not affine")]
)
def test_a_logit_without_its_dimension_or_behind_a_sigmoid_is_named(kind: type[Net], message: str) -> None:
    black_box, images = randomise(kind(2, 1)), torch.randn(2, 2, 16, 20)
    with pytest.raises(UnsupportedModelError, match=message):
        convert(black_box, images=images)
    model = convert(black_box, images=images, classifier="fc")
    expected = black_box(images).reshape(2, 1)
    found = model.evidence(images).probabilities() if kind is Sigmoid else model(images)
    torch.testing.assert_close(found, expected)
