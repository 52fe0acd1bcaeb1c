from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from softcam.evaluation import settings as settings_module
from softcam.evaluation.localization import LOCALIZATION
from softcam.evaluation.measures import MEASURES, Case, Values, follow_curve, list_metrics
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subjects import choose_subject

SETTINGS = EvaluationSettings(
    points=(0, 1, 2, 4), fills=("mean",), insertion_fills=("mean",), measures=settings_module.MEASURES, samples=8
)


class Corners(nn.Module):
    """Logit 1 counts the four 2x2 patches of a 4x4 image that are bright, upper left twice; logit 0 is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 1.0, 1.0, 1.0]))
        self.top = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.top.weight)

    def forward(self, images: Tensor) -> Tensor:
        logit = nn.functional.avg_pool2d(images, 2)[:, 0].flatten(1) @ self.weight
        return self.top(torch.stack([torch.zeros_like(logit), logit], dim=1))


IMAGES = torch.ones(2, 1, 4, 4)
# Cells in the order of the patches: the first map finds the most important patch first, the second last.
MAPS = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
# What each patch adds to the logit.
EXACT = torch.tensor([[[2.0, 1.0], [1.0, 1.0]]]).expand(2, 2, 2)


def pool(images: Tensor, _target: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(images, 2)[:, 0]


def make_case(
    maps: Tensor = MAPS,
    *,
    images: Tensor = IMAGES,
    explain: Callable[[Tensor, Tensor], Tensor] = pool,
    patch: int = 2,
    settings: EvaluationSettings = SETTINGS,
    model: nn.Module | None = None,
) -> Case:
    return Case(choose_subject(model or Corners(), images, settings.fills), maps, explain, patch, settings)


def measure(name: str, case: Case) -> Values:
    return MEASURES[name].run(case)


def close(values: Tensor, expected: object) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(values.double().cpu(), wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_the_settings_name_the_registry_in_its_order() -> None:
    assert tuple(MEASURES) == settings_module.MEASURES
    assert set(settings_module.CHEAP_MEASURES) < set(MEASURES)


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_gives_what_it_lists(name: str) -> None:
    case = make_case(settings=replace(SETTINGS, fills=("mean", "blur"), insertion_fills=("mean", "blur")))
    truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[:, :2, :2] = True
    found = measure(name, replace(case, subject=replace(case.subject, truth=truth)))
    listed = MEASURES[name].metrics(case.settings)
    assert set(listed.values()) <= {"higher", "lower"}
    curves = {f"{curve}/{fill}" for curve in ("deletion", "insertion") for fill in ("mean", "blur")}
    assert set(found) == set(listed) | (curves if name == "curves" else set())
    assert all(values.shape == ((2, 4) if "/" in metric else (2,)) for metric, values in found.items())


def test_metrics_are_those_of_the_chosen_measures() -> None:
    few = EvaluationSettings(measures=("complexity", "curves"), fills=("blur",), insertion_fills=("blur",))
    assert list_metrics(few) == {
        "deletion_area_blur": "lower",
        "insertion_area_blur": "higher",
        "relative_drop_blur": "lower",
        "gini": "higher",
        "entropy": "lower",
        "near_zero_share": "higher",
        "components": "lower",
    }
    every = list_metrics(SETTINGS, located=True)
    assert set(list_metrics(SETTINGS)) == set(every) - set(LOCALIZATION)
    assert {every[name] for name in LOCALIZATION} == {"higher"}
    directions = {
        "average_drop": "lower", "confidence_increase": "higher",
        "road_morf": "lower", "road_lerf": "higher", "road_combined": "higher", "irof": "higher",
        "infidelity": "lower", "sensitivity_n": "higher", "max_sensitivity": "lower",
        "randomization_top": "lower", "randomization_all": "lower", "random_logit": "lower", "grid_pointing": "higher",
    }  # fmt: skip
    assert {name: every[name] for name in directions} == directions


def test_curves_by_hand() -> None:
    removed, shown = (follow_curve(make_case(), kind, "mean") for kind in ("deletion", "insertion"))
    close(removed, torch.tensor([[5.0, 3.0, 2.0, 0.0], [5.0, 4.0, 3.0, 0.0]]).sigmoid())
    close(shown, torch.tensor([[0.0, 2.0, 3.0, 5.0], [0.0, 1.0, 2.0, 5.0]]).sigmoid())


def test_areas_and_drops_by_hand() -> None:
    values = measure("curves", make_case())
    heights = torch.tensor([5.0, 3.0, 2.0, 0.0]).sigmoid()
    area = ((heights[0] + heights[1]) / 2 + (heights[1] + heights[2]) / 2 + (heights[2] + heights[3])) / 4
    close(values["deletion_area_mean"][0], area)
    assert values["deletion_area_mean"][0] < values["deletion_area_mean"][1]
    assert values["insertion_area_mean"][0] > values["insertion_area_mean"][1]
    close(values["relative_drop_mean"][0], heights[3] / heights[0])


def test_fills_differ() -> None:
    values = measure(
        "curves", make_case(settings=replace(SETTINGS, fills=("mean", "blur"), insertion_fills=("mean", "blur")))
    )
    assert not torch.equal(values["deletion/mean"], values["deletion/blur"])


def test_more_points_than_patches() -> None:
    with pytest.raises(ValueError, match="at most the 4 patches of side 2, but got 5"):
        follow_curve(make_case(settings=replace(SETTINGS, points=(0, 5))), "deletion", "mean")


def test_drop_by_hand() -> None:
    # A map that shows the upper left patch alone, and one that shows everything.
    maps = torch.zeros(2, 4, 4)
    maps[0, :2, :2] = 3.0
    maps[1] = 1.0
    values = measure("drop", make_case(maps))
    before, after = torch.tensor([5.0, 2.0]).sigmoid()
    close(values["average_drop"], [float((before - after) / before), 0.0])
    assert values["confidence_increase"].tolist() == [0.0, 0.0]
    # What speaks against the class hides.
    mixed = IMAGES.clone()
    mixed[:, :, 2:, 2:] = -1
    assert measure("drop", make_case(maps, images=mixed))["confidence_increase"].tolist() == [0.0, 0.0]
    maps[0, :2] = 3.0
    assert measure("drop", make_case(maps, images=mixed))["confidence_increase"].tolist() == [0.0, 0.0]
    maps[0, 2:, :2] = 3.0
    assert measure("drop", make_case(maps, images=mixed))["confidence_increase"].tolist() == [1.0, 0.0]


def test_irof_by_hand() -> None:
    # Segments have twice the side of a patch.
    values = measure("irof", make_case(patch=1))["irof"]
    heights = torch.tensor([[5.0, 3.0, 2.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 0.0]]).sigmoid()
    close(values, 1 - torch.trapezoid(heights / heights[:, :1], dim=1) / 4)


def test_a_map_that_forecasts_every_loss_is_without_infidelity() -> None:
    model = Corners()
    # Cells as fine as the pixels, so that nothing is interpolated.
    exact = EXACT.repeat_interleave(2, 1).repeat_interleave(2, 2)
    close(measure("infidelity", make_case(exact, patch=1, model=model))["infidelity"], [0, 0])
    # The unit of a map does not matter, and a map of nothing scores 1.
    close(measure("infidelity", make_case(7 * exact, patch=1, model=model))["infidelity"], [0, 0])
    close(measure("infidelity", make_case(0 * exact, patch=1, model=model))["infidelity"], [1, 1])
    partly = measure("infidelity", make_case(patch=1, model=model))["infidelity"]
    assert ((partly > 0) & (partly < 1)).all()


def test_nothing_to_forecast_is_no_infidelity() -> None:
    close(measure("infidelity", make_case(images=torch.zeros(2, 1, 4, 4)))["infidelity"], [torch.nan, torch.nan])


def test_sensitivity_is_the_correlation_with_the_loss() -> None:
    exact = EXACT.repeat_interleave(2, 1).repeat_interleave(2, 2)
    close(measure("sensitivity_n", make_case(exact))["sensitivity_n"], [1, 1])
    close(measure("sensitivity_n", make_case(-exact))["sensitivity_n"], [-1, -1])
    # A map without differences correlates with nothing.
    close(measure("sensitivity_n", make_case(torch.ones(2, 4, 4)))["sensitivity_n"], [torch.nan, torch.nan])


def test_road_of_an_image_that_can_be_filled_in() -> None:
    # Where everything looks alike, what is filled in is what was there, but for the noise.
    values = measure("road", make_case())
    before = float(torch.tensor(5.0).sigmoid())
    assert values["road_morf"].tolist() == pytest.approx([before] * 2, abs=0.02)
    assert values["road_lerf"].tolist() == pytest.approx([before] * 2, abs=0.02)
    close(values["road_combined"], (values["road_lerf"] - values["road_morf"]) / 2)


def test_road_tells_a_good_map_from_its_opposite() -> None:
    images = torch.zeros(2, 1, 4, 4)
    images[:, :, :2, :2] = 2.0
    good = torch.zeros(2, 4, 4)
    good[:, :2, :2] = 1.0
    right, wrong = (measure("road", make_case(maps, images=images)) for maps in (good, -good))
    assert (right["road_combined"] > wrong["road_combined"]).all()
    assert (right["road_morf"] < wrong["road_morf"]).all()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("road", {"shares": (0.25,)}),
        ("road", {"seed": 1}),
        ("infidelity", {"samples": 30}),
        ("infidelity", {"seed": 1}),
        ("sensitivity_n", {"seed": 1}),
        ("max_sensitivity", {"samples": 40}),
        ("max_sensitivity", {"seed": 1}),
    ],
)
def test_settings_reach_the_metrics(name: str, changes: dict[str, object]) -> None:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = pool(images, torch.zeros(2))

    class Pixels(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            total = (given.tanh().flatten(1) * torch.linspace(-1, 1, 64)).sum(1)
            return torch.stack([torch.zeros_like(total), total], 1)

    found = [
        measure(name, make_case(maps, images=images, patch=1, model=Pixels(), settings=settings))
        for settings in (SETTINGS, SETTINGS, replace(SETTINGS, **changes))
    ]
    assert all(torch.equal(found[0][metric], found[1][metric]) for metric in found[0])
    assert any(not torch.equal(found[0][metric], found[2][metric]) for metric in found[0])


def test_noise_changes_a_map_by_as_much_as_it_follows_the_image() -> None:
    still = measure("max_sensitivity", make_case(explain=lambda images, _: torch.ones(len(images), 2, 2)))
    assert still["max_sensitivity"].tolist() == [0.0, 0.0]
    # Noise of up to 0.02 in a mean of ones.
    moving = measure("max_sensitivity", make_case())["max_sensitivity"]
    assert ((moving > 0) & (moving <= 0.02)).all()


def test_there_is_a_noisy_copy_for_every_four_samples() -> None:
    for samples, copies in ((2, 1), (8, 2), (15, 3)):
        asked: list[int] = []
        case = make_case(
            explain=lambda images, target, asked=asked: asked.append(len(images)) or pool(images, target),
            settings=replace(SETTINGS, samples=samples),
        )
        measure("max_sensitivity", case)
        assert asked == [2] * (1 + copies)


def test_maps_that_do_not_know_the_model_survive_its_randomization() -> None:
    torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Corners()
    before = [parameter.clone() for parameter in model.parameters()]

    def by_weight(given: Tensor, target: Tensor) -> Tensor:
        del target
        return model.weight.detach().reshape(1, 2, 2).expand(len(given), 2, 2)

    blind = measure("randomization", make_case(images=IMAGES, explain=lambda *_: MAPS, model=model))
    assert {name: values.tolist() for name, values in blind.items()} == {key: [1.0, 1.0] for key in blind}
    # The top layer is not what this map is of, the one below is.
    known = measure("randomization", make_case(images=IMAGES, explain=by_weight, model=model))
    assert known["randomization_top"].tolist() == [1.0, 1.0]
    assert (known["randomization_all"] < 1).all()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_maps_of_another_class_should_differ() -> None:
    def signed(given: Tensor, target: Tensor) -> Tensor:
        return MAPS[: len(given)] * (2 * target[:, None, None] - 1)

    close(measure("randomization", make_case(explain=signed))["random_logit"], [-1, -1])


def test_mosaics_by_hand() -> None:
    images = torch.cat([torch.ones(4, 1, 4, 4), -torch.ones(4, 1, 4, 4)])
    model = Corners()

    def bright(given: Tensor, target: Tensor) -> Tensor:
        return given[:, 0] * (2 * target[:, None, None] - 1)

    case = make_case(torch.ones(8, 2, 2), images=images, explain=bright, model=model)
    assert measure("grid_pointing", case)["grid_pointing"].tolist() == [1.0] * 8
    flat = replace(case, explain=lambda given, _: torch.ones(len(given), 8, 8))
    assert measure("grid_pointing", flat)["grid_pointing"].tolist() == [0.25] * 8


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_a_network_that_takes_no_mosaics(error: type[Exception]) -> None:
    def explain(given: Tensor, _target: Tensor) -> Tensor:
        raise error(f"{given.shape[-1]} px")

    images = torch.cat([torch.ones(4, 1, 4, 4), -torch.ones(4, 1, 4, 4)])
    case = make_case(torch.ones(8, 2, 2), images=images, explain=explain)
    assert measure("grid_pointing", case)["grid_pointing"].isnan().tolist() == [True] * 8


def test_images_of_one_class_make_no_mosaic() -> None:
    assert measure("grid_pointing", make_case())["grid_pointing"].isnan().all()


def test_complexity_is_of_the_resized_map() -> None:
    # The same picture, coarse and fine.
    values = measure("complexity", make_case(torch.ones(2, 2, 2)))
    close(values["gini"], [0, 0])
    close(values["entropy"], torch.tensor([16.0, 16.0]).log())
    close(values["near_zero_share"], [0, 0])
    close(values["components"], [1, 1])
    one = torch.zeros(2, 4, 4)
    one[:, 0, 0] = 5.0
    spot = measure("complexity", make_case(one))
    close(spot["gini"], [15 / 16, 15 / 16])
    close(spot["entropy"], [0, 0])
    close(spot["near_zero_share"], [15 / 16, 15 / 16])


def test_localisation_is_measured_where_findings_are_known() -> None:
    case = make_case()
    assert measure("localization", case) == {}
    truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[0, :2, :2] = True
    located = replace(case, subject=replace(case.subject, truth=truth))
    found = measure("localization", located)
    assert set(found) == set(LOCALIZATION)
    assert found["pointing_game"][0] == 1
    assert found["pixel_auroc"][0] > 0.9
    assert all(values[1].isnan() for values in found.values())
    part = replace(located, subject=located.subject.take(torch.tensor([True, False])), maps=MAPS[:1])
    assert measure("localization", part)["activation_precision"] == found["activation_precision"][:1]


@pytest.mark.parametrize("maps", [torch.zeros(2, 2, 2), torch.ones(2, 2, 2), -MAPS], ids=["zero", "constant", "below"])
@pytest.mark.parametrize("name", MEASURES)
def test_maps_that_say_little_are_measured_or_undefined(name: str, maps: Tensor) -> None:
    truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[:, :2, :2] = True
    case = make_case(maps, explain=lambda images, _: maps[:1].expand(len(images), -1, -1), patch=1)
    found = measure(name, replace(case, subject=replace(case.subject, truth=truth)))
    assert all(not values.isinf().any() for values in found.values())
    undefined = {metric for metric, values in found.items() if values.isnan().all()}
    nowhere = {"activation_precision", "activation_sensitivity", "topk_precision", "localization_precision"}
    expected = {
        "zero": {*nowhere, "pointing_game", "rank_accuracy", "gini", "entropy", "near_zero_share", "components"}
        | {"sensitivity_n", "max_sensitivity", "randomization_top", "randomization_all", "random_logit"},
        "constant": {"pointing_game", "sensitivity_n", "randomization_top", "randomization_all", "random_logit"},
        "below": {*nowhere, "rank_accuracy", "components"},
    }
    kind = "below" if (maps < 0).any() else "constant" if maps.any() else "zero"
    mosaics = {"grid_pointing"}
    assert undefined == (expected[kind] | mosaics) & set(found)
