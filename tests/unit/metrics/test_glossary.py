from __future__ import annotations

import pytest

from softcam.metrics.glossary import MEASURES, find_stem, measure

FAMILIES = {
    "Localisation": "pointing_game pixel_auroc pixel_average_precision activation_precision activation_sensitivity "
    "rank_accuracy topk_precision localization_precision",
    "Faithfulness": "deletion_area_mean insertion_area_blur relative_drop_noisy_linear average_drop "
    "confidence_increase road_morf road_lerf road_combined irof infidelity sensitivity_n",
    "Robustness": "max_sensitivity random_logit randomization_top randomization_all",
    "Consistency": "grid_pointing positive_share",
    "Complexity": "gini entropy near_zero_share components",
}


@pytest.mark.parametrize(("family", "names"), FAMILIES.items())
def test_every_metric_has_a_family_a_title_and_a_meaning(family: str, names: str) -> None:
    for name in names.split():
        found = measure(name)
        assert found.family == family, name
        assert found.meaning
        assert "_" not in found.title


@pytest.mark.parametrize(
    "name",
    ["average_drop", "road_morf", "infidelity", "max_sensitivity", "random_logit", "randomization_all", "components"],
)
def test_lower_is_better(name: str) -> None:
    assert measure(name).direction == "lower"


@pytest.mark.parametrize(
    "name",
    ["confidence_increase", "road_lerf", "road_combined", "irof", "sensitivity_n", "grid_pointing", "near_zero_share"],
)
def test_higher_is_better(name: str) -> None:
    assert measure(name).direction == "higher"


def test_titles_are_not_given_twice() -> None:
    titles = [found.title for found in MEASURES.values()]
    assert len(set(titles)) == len(titles)


def test_measure_takes_the_variant_and_direction_from_the_name() -> None:
    assert measure("gini") == MEASURES["gini"]
    assert measure("deletion_area_blur", "lower").title == "Deletion, blur"
    assert measure("insertion_area_mean", "higher").direction == "higher"
    assert measure("some_new_thing", "lower") == ("some new thing", "lower", "", "")


def test_the_longest_known_name_is_the_stem() -> None:
    assert find_stem("sensitivity_n") == "sensitivity_n"
    assert find_stem("average_precision_macro") == "average_precision"
    assert find_stem("precisionist") == ""
