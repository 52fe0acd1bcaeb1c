"""What each metric is called, which way is good, and what it means in one short sentence."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """How a metric is written.

    Args:
        title: The name as a table or figure shows it.
        direction: `higher` or `lower`, whichever is better.
        meaning: What it measures, in one short sentence.
        family: The question that it answers: Classification, Localisation, Faithfulness, Robustness, Consistency or
            Complexity; empty if it is not known.
    """

    title: str
    direction: str
    meaning: str
    family: str = ""


_CLASSIFICATION = {
    "auroc": Measure("AUROC", "higher", "chance that a positive image scores above a negative one"),
    "average_precision": Measure("Average precision", "higher", "mean precision over all levels of recall"),
    "accuracy": Measure("Accuracy", "higher", "share of images classified correctly"),
    "balanced_accuracy": Measure("Balanced accuracy", "higher", "mean over classes of the share found"),
    "sensitivity": Measure("Sensitivity", "higher", "share of positive images that are found"),
    "specificity": Measure("Specificity", "higher", "share of negative images that are left alone"),
    "precision": Measure("Precision", "higher", "share of alarms that are right"),
    "f1": Measure("F1", "higher", "harmonic mean of precision and sensitivity"),
    "quadratic_weighted_kappa": Measure(
        "Quadratic kappa", "higher", "agreement of grades beyond chance; a miss by two grades counts four times"
    ),
    "brier": Measure("Brier score", "lower", "mean squared error of the probabilities"),
    "ece": Measure(
        "Calibration error",
        "lower",
        "mean gap between stated and observed probability; resampling sets its interval high",
    ),
}
_LOCALISATION = {
    "pointing_game": Measure("Pointing game", "higher", "share of maxima within 16 px (of 224) of a finding"),
    "activation_precision": Measure("Activation precision", "higher", "share of the positive evidence inside findings"),
    "topk_precision": Measure("Top-3 patches", "higher", "share of the three best patches that touch a finding"),
    "localization_precision": Measure(
        "Positive patches", "higher", "share of all patches with positive evidence that touch a finding"
    ),
    "pixel_auroc": Measure("Pixel AUROC", "higher", "chance that a pixel of a finding scores above another"),
    "pixel_average_precision": Measure(
        "Pixel average precision", "higher", "mean precision of the best pixels over all levels of recall"
    ),
    "activation_sensitivity": Measure(
        "Activation sensitivity", "higher", "mean positive evidence inside findings, as a share of the map's maximum"
    ),
    "rank_accuracy": Measure("Rank accuracy", "higher", "share of a finding among as many best pixels as it has"),
}
_FAITHFULNESS = {
    "deletion_area": Measure("Deletion", "lower", "area under the curve as the best patches are replaced"),
    "insertion_area": Measure("Insertion", "higher", "area under the curve as the best patches are shown"),
    "relative_drop": Measure("Probability left", "lower", "share that remains after the last deletion step"),
    "average_drop": Measure(
        "Average drop", "lower", "share of the probability lost if only what has positive evidence is shown"
    ),
    "confidence_increase": Measure(
        "Confidence increase", "higher", "share of images whose probability rises if only positive evidence is shown"
    ),
    "road_morf": Measure("ROAD, best first", "lower", "mean probability as the best pixels are imputed first"),
    "road_lerf": Measure("ROAD, worst first", "higher", "mean probability as the worst pixels are imputed first"),
    "road_combined": Measure("ROAD, combined", "higher", "half the gap of the two; 0 for a map without any order"),
    "irof": Measure("IROF", "higher", "area over the relative probability as regular segments go, best first"),
    "infidelity": Measure(
        "Infidelity", "lower", "squared error of a square's evidence as a forecast of what its removal changes"
    ),
    "sensitivity_n": Measure(
        "Sensitivity-n", "higher", "correlation of the evidence in random patches with what their removal changes"
    ),
}
_ROBUSTNESS = {
    "max_sensitivity": Measure("Max-sensitivity", "lower", "largest relative change of the map under small noise"),
    "random_logit": Measure("Other class", "lower", "similarity of the map to that of another class"),
    "randomization_top": Measure(
        "Top layer random", "lower", "similarity to the map of the same network with its top layer made random"
    ),
    "randomization_all": Measure(
        "All layers random", "lower", "similarity to the map of the same network with all its layers made random"
    ),
}
_CONSISTENCY = {
    "grid_pointing": Measure(
        "Grid pointing", "higher", "share of the positive evidence on the image itself, in a mosaic with other classes"
    ),
    "positive_share": Measure("Positive cells", "higher", "share of cells above 0 in the map of the image's own label"),
    "negative_share": Measure(
        "Negative cells", "higher", "share of cells below 0 in the second class's map, first class's images"
    ),
    "margin_positive_share": Measure(
        "Cells for the label", "higher", "share of cells whose evidence for the label outweighs that of its rival"
    ),
    "margin_negative_share": Measure(
        "Cells against the second class", "higher", "the same for images of the first of two classes"
    ),
}
_COMPLEXITY = {
    "gini": Measure("Sparseness", "higher", "Gini index: 0 even, 1 all in one place"),
    "entropy": Measure("Entropy", "lower", "spread of the map, in nats"),
    "near_zero_share": Measure("Near zero", "higher", "share within 1 % of the strongest value"),
    "components": Measure("Components", "lower", "separate regions above half of the maximum"),
}
_FAMILIES = {
    "Classification": _CLASSIFICATION,
    "Localisation": _LOCALISATION,
    "Faithfulness": _FAITHFULNESS,
    "Robustness": _ROBUSTNESS,
    "Consistency": _CONSISTENCY,
    "Complexity": _COMPLEXITY,
}

MEASURES: dict[str, Measure] = {
    name: found._replace(family=family) for family, measures in _FAMILIES.items() for name, found in measures.items()
}
"""All metrics that have a title, by name, family after family; a name may go on with a variant, such as a fill."""


def measure(name: str, direction: str = "higher") -> Measure:
    """Return how a metric is written; what follows a known name is its variant, an unknown name is written as it is.

    Args:
        name: Name of the metric.
        direction: Which way is good, for a variant and for a name that is not known.

    >>> measure("deletion_area_blur", "lower").title, measure("new_one", "lower").title
    ('Deletion, blur', 'new one')
    """
    if name in MEASURES:
        return MEASURES[name]
    stem = find_stem(name)
    if not stem:
        return Measure(name.replace("_", " "), direction, "")
    variant = name[len(stem) + 1 :].replace("_", " ")
    return MEASURES[stem]._replace(title=f"{MEASURES[stem].title}, {variant}", direction=direction)


def find_stem(name: str) -> str:
    """Return the longest known name that a metric's name is or goes on from; empty if there is none.

    >>> find_stem("road_morf"), find_stem("deletion_area_noisy_linear"), find_stem("new_one")
    ('road_morf', 'deletion_area', '')
    """
    return max((known for known in MEASURES if name == known or name.startswith(known + "_")), key=len, default="")
