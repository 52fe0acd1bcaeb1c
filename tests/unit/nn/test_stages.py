from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert
from softcam.nn.features import map_stride
from softcam.nn.stages import comes_before, create_head, find_stages, is_cut, list_strides

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block: nothing inside it is the only way through."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 2 * width, 1)
        self.down = nn.Conv2d(2 * width, width, 3, stride, 1)
        self.shortcut = nn.Conv2d(channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.down(torch.relu(self.widen(x))) + self.shortcut(x))


class Squeeze(nn.Module):
    """Weighs channels by their mean over the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Net(nn.Module):
    """Strides 4, 8 and 16, and a branch past the last of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.one = Block(8, 12, 2)
        self.two = Block(12, 16, 2)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.two(self.one(self.stem(x)))).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net().eval()


@pytest.mark.parametrize(
    ("size", "grid", "stride"),
    [
        ((224, 224), (7, 7), (32, 32)),
        ((224, 224), (4, 4), (64, 64)),
        ((106, 106), (4, 4), (32, 32)),
        ((95, 161), (6, 11), (16, 16)),
        ((518, 518), (37, 37), (14, 14)),
        ((299, 299), (8, 8), (38, 38)),
        ((10, 1000), (5, 5), (2, 200)),
        ((64,), (16,), (4,)),
    ],
)
def test_the_stride_explains_the_grid_by_rounding_up(
    size: tuple[int, ...], grid: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    assert map_stride(size, grid) == stride


@pytest.mark.parametrize(("stride", "name"), [(4, "stem"), (8, "one"), (16, "norm")])
def test_a_stride_means_its_deepest_whole_stage(net: Net, stride: int, name: str) -> None:
    (stage,) = find_stages(net, IMAGES[:1], [stride])
    assert stage.name == name
    assert stage.stride((64, 64)) == (stride, stride)
    assert stage.grid == (64 // stride, 64 // stride)


def test_every_stride_has_its_deepest_stage(net: Net) -> None:
    assert [(stage.name, stage.stride((64, 64))[0]) for stage in list_strides(net, IMAGES[:1])] == [
        ("stem", 4), ("one", 8), ("norm", 16),
    ]  # fmt: skip
    # A map of one cell has no place in the image.
    assert [stage.name for stage in list_strides(net, IMAGES[:1, :, :16, :16])] == ["stem", "one"]


def test_the_order_of_two_modules(net: Net) -> None:
    assert comes_before(net, IMAGES[:1], "stem", "two")
    assert not comes_before(net, IMAGES[:1], "two", "one.down")
    with pytest.raises(ValueError, match="a module that runs, but got 'three'"):
        comes_before(net, IMAGES[:1], "three", "one")


def test_stages_come_in_the_order_of_the_forward(net: Net) -> None:
    assert [stage.name for stage in find_stages(net, IMAGES[:1], [16, "stem", 8])] == ["stem", "one", "norm"]


def test_an_unknown_stride_is_refused_with_those_there_are(net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match=r"stride of the network, but got 32\. It has: 4, 8, 16\."):
        find_stages(net, IMAGES[:1], [32])


def test_an_unknown_module_is_refused_with_those_there_are(net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match=r"a module that runs, but got 'three'\. Choose among: stem\.0"):
        find_stages(net, IMAGES[:1], ["three"])


def test_a_module_without_a_map_is_refused(net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match="'fc' gives none"):
        find_stages(net, IMAGES[:1], ["fc"])


def test_a_module_inside_a_branch_is_refused(net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Expected 'one\.widen' to be the only way"):
        find_stages(net, IMAGES[:1], ["one.widen"])


def test_the_same_stage_twice_is_refused(net: Net) -> None:
    with pytest.raises(UnsupportedModelError, match="different stages, but got 8, one"):
        find_stages(net, IMAGES[:1], [8, "one"])


@pytest.mark.parametrize(("name", "expected"), [("stem", True), ("one", True), ("one.down", False), ("norm", True)])
def test_a_cut_is_the_only_way(net: Net, name: str, expected: bool) -> None:
    assert is_cut(net, name, IMAGES[:1]) is expected


def test_a_network_that_ignores_the_image_has_no_cut(net: Net) -> None:
    net.fc.weight.data.zero_()
    assert not is_cut(net, "one", IMAGES[:1])


def test_channels_last_and_token_stages_are_read() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 6, 8, 8)
            self.last = nn.Linear(6, 10)
            self.tokens = nn.Linear(10, 12)
            self.fc = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            grid = self.last(self.patches(x).permute(0, 2, 3, 1))
            return self.fc(self.tokens(grid.flatten(1, 2)).mean(1))

    found = find_stages(Mixed().eval(), torch.randn(1, 3, 64, 96), ["patches", "last", "tokens"])
    assert [(s.layout, s.channels, s.grid) for s in found] == [
        ("NCHW", 6, (8, 12)),
        ("NHWC", 10, (8, 12)),
        ("NLC", 12, (8, 12)),
    ]


def test_an_earlier_place_drops_what_comes_later_and_keeps_the_trunk(net: Net) -> None:
    model = convert(net, at=8, num_classes=3, images=IMAGES).eval()
    report = model.conversion
    assert (report.places, report.grid, report.map_stride) == (("one",), (8, 8), (8, 8))
    assert (report.head, report.exact, report.num_classes) == ("pointwise", False, 3)
    assert "two" in " ".join(report.notes)
    kept = model.features.network.state_dict()
    assert {key.split(".")[0] for key in kept} == {"stem", "one"}
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in kept.items())
    evidence = model.evidence(IMAGES).check(1e-5)
    assert torch.allclose(model(IMAGES), evidence.maps.mean((2, 3)), atol=1e-6)
    with torch.no_grad():
        expected = model.head(net.one(net.stem(IMAGES)))
    assert torch.equal(model(IMAGES), expected)


@pytest.mark.parametrize(("at", "field"), [(4, 4), (8, 12), (16, 28), ((4, 8), 12)])
def test_the_report_tells_what_a_cell_sees(net: Net, at: object, field: int) -> None:
    report = convert(net, at=at, num_classes=3, images=IMAGES).conversion  # type: ignore[arg-type]
    assert report.receptive_field == report.theoretical_receptive_field == (field, field)
    small = convert(net, at=16, num_classes=3, images=IMAGES[..., :16, :16]).conversion
    assert small.receptive_field == (16, 16)
    assert small.theoretical_receptive_field == (28, 28)


def test_a_global_step_lets_every_cell_see_everything(net: Net) -> None:
    net.one.down = nn.Sequential(net.one.down, Squeeze())
    report = convert(net, at=8, num_classes=3, images=IMAGES).conversion
    assert report.theoretical_receptive_field == (None, None)
    assert "all of an image of any size" in str(report)


def test_what_comes_later_is_not_computed(net: Net) -> None:
    ran: list[str] = []
    model = convert(net, at=8, num_classes=3, images=IMAGES).eval()
    for name, module in model.features.network.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model(IMAGES)
    assert ran
    assert not any(name.startswith(("two", "norm", "fc")) for name in ran)


def test_classes_are_the_black_box_s_unless_given(net: Net) -> None:
    assert convert(net, at="one", images=IMAGES).num_classes == 5


def test_a_module_names_a_place(net: Net) -> None:
    assert convert(net, at=net.one, images=IMAGES).conversion.arguments["at"] == ["one"]


@pytest.mark.parametrize("at", [(), 0, [-1]])
def test_places_out_of_range_are_refused(net: Net, at: object) -> None:
    with pytest.raises(ValueError, match="Expected `at` to be strides >= 1"):
        convert(net, at=at, images=IMAGES)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_scales_sum_to_the_logits(net: Net, dtype: torch.dtype) -> None:
    images = IMAGES.to(dtype)
    model = convert(net.to(dtype), at=(8, 16), num_classes=3, images=images).eval()
    evidence = model.evidence(images).check(1e-5 if dtype == torch.float32 else 1e-12)
    assert evidence.grid == (8, 8)
    scales = model.scales(images)
    assert [scale.grid for scale in scales] == [(8, 8), (4, 4)]
    assert torch.allclose(sum(scale.logits for scale in scales), evidence.logits)
    assert all(bool(scale.maps.abs().max() > 0) for scale in scales)
    assert set(model.features.network.state_dict()) == {key for key in net.state_dict() if not key.startswith("fc")}


def test_one_scale_is_all_the_evidence(net: Net) -> None:
    model = convert(net, images=IMAGES).eval()
    (scale,) = model.scales(IMAGES)
    assert torch.equal(scale.maps, model.evidence(IMAGES).maps)


@pytest.mark.parametrize("size", [(64, 96), (70, 61)])
def test_inputs_need_not_be_square_or_multiples_of_the_stride(net: Net, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    model = convert(net, at=(8, 16), num_classes=3, images=images).eval()
    model.evidence(images).check(1e-5)
    model.evidence(IMAGES).check(1e-5)


def test_copies_and_threads_keep_apart(net: Net) -> None:
    model = convert(net, at=(8, 16), num_classes=3, images=IMAGES).eval()
    twin = copy.deepcopy(model)
    batches = [torch.randn(3, 3, 64, 64) for _ in range(6)]
    expected = [model(batch) for batch in batches]
    found: dict[int, Tensor] = {}

    def run(index: int, which: SoftCAM) -> None:
        for _ in range(5):
            with torch.no_grad():
                found[index] = which(batches[index])

    threads = [threading.Thread(target=run, args=(i, (model, twin)[i % 2])) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(found[index], value, atol=1e-6) for index, value in enumerate(expected))


def test_every_weight_learns(net: Net) -> None:
    model = convert(net, at=(8, 16), num_classes=3, images=IMAGES).train()
    model(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("at", [8, (8, 16)])
@pytest.mark.parametrize("strict", [False, True])
def test_an_earlier_place_can_be_exported(net: Net, at: object, strict: bool) -> None:
    if strict:
        pytest.importorskip("torch", minversion="2.12", reason="older ones cannot trace a forward that is put aside")
    model = convert(net, at=at, num_classes=3, images=IMAGES).eval()  # type: ignore[arg-type]
    batch = {0: torch.export.Dim("n", min=1, max=8)}
    program = torch.export.export(model.with_evidence(), (IMAGES,), dynamic_shapes=(batch,), strict=strict)
    more = torch.randn(5, 3, 64, 64)
    assert torch.allclose(program.module()(more).maps, model.evidence(more).maps, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_stack_adds_no_receptive_field(layers: int) -> None:
    torch.manual_seed(2)
    head = create_head(4, 3, layers=layers, dims=2).eval()
    features = torch.randn(1, 4, 5, 5, requires_grad=True)
    _, maps = head.evidence(features)
    maps[..., 2, 3].sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum(1)[0].nonzero().tolist() == [[2, 3]]
    assert sum(isinstance(m, nn.Conv2d) for m in head.modules()) == layers


def test_a_new_layer_at_the_pooling_s_place_may_have_hidden_layers(net: Net) -> None:
    model = convert(net, num_classes=3, layers=2, images=IMAGES)
    assert model.conversion.head == "pointwise"
    assert model.conversion.grid == (4, 4)
    model.eval().evidence(IMAGES).check(1e-5)


def test_layers_below_one_are_refused(net: Net) -> None:
    with pytest.raises(ValueError, match="Expected `layers` to be >= 1, but got 0"):
        convert(net, at=8, layers=0, images=IMAGES)


def test_layers_need_a_new_head(net: Net) -> None:
    with pytest.raises(ValueError, match="Expected `layers` together with"):
        convert(net, layers=2, images=IMAGES)
