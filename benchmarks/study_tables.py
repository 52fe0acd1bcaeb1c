"""The tables of the study, from `benchmarks/results/study.json`; `render_tables.py` puts them into the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from softcam.attribution import get_method
from softcam.metrics.glossary import measure
from softcam.reporting.methods import is_floor, is_own

Study = dict[str, Any]
"""What was found on one data set."""

DECISIVE = {
    "lesions": ("topk_precision", "localization_precision", "activation_precision", "deletion_area_noisy_linear"),
    "elpv": ("deletion_area_mean", "deletion_area_blur", "deletion_area_noisy_linear", "insertion_area_blur"),
}
FAITHFUL = ("deletion_area_mean", "deletion_area_blur", "deletion_area_noisy_linear", "insertion_area_mean",
            "insertion_area_blur", "average_drop", "confidence_increase")  # fmt: skip
LOCATED = ("pointing_game", "pixel_auroc", "activation_precision", "topk_precision", "localization_precision",
           "activation_sensitivity", "rank_accuracy", "pixel_average_precision")  # fmt: skip
COMPLEX = ("gini", "entropy", "near_zero_share", "components")
ROBUST = ("max_sensitivity", "randomization_top", "randomization_all", "random_logit", "grid_pointing")
PERTURBED = ("road_morf", "road_lerf", "road_combined", "irof", "infidelity", "sensitivity_n")


def title(name: str, study: Study) -> str:
    """Return how a method of the study is written."""
    method, _, place = name.partition(":")
    if place:
        base = "SoftCAM" if method == "evidence" else "SoftCAM, margin"
        where, dense, _ = place.replace("_", " ").partition(" sparse")
        return f"{base}, {where}, {'sparse' if dense else 'dense'}"
    method, _, layer = name.partition("@")
    found = get_method(method)
    if not found.at_layer:
        return found.title
    return f"{found.title}, {study['places'][1] if layer else study['places'][0]}"


def order(study: Study, part: str) -> list[str]:
    """Return the methods of a part: SoftCAM's own, post-hoc ones at the last stage, at the other place, floors."""
    names = list(study["methods"][part])
    return sorted(names, key=lambda name: (not is_own(name), is_floor(name), "@" in name, names.index(name)))


def table(study: Study, part: str, metrics: Sequence[str], *, own: bool = True) -> str:
    """Return means with 95 % intervals: methods as rows, metrics as columns."""
    found = study["methods"][part]
    shown = [metric for metric in metrics if any(metric in row for row in found.values())]
    lines = [f"| method | {' | '.join(head(study, shown))} | images |", "|---" * (len(shown) + 2) + "|"]
    for name in order(study, part):
        if not own and name.startswith("evidence_margin"):
            continue
        cells = [cell(found[name].get(metric)) for metric in shown]
        count = max((found[name][metric]["n"] for metric in shown if metric in found[name]), default=0)
        lines.append(f"| {title(name, study)} | {' | '.join(cells)} | {count} |")
    return "\n".join(lines) + "\n"


def head(study: Study, metrics: Sequence[str]) -> list[str]:
    """Return how metrics are written above their columns, with an arrow to where they are better."""
    arrows = {"higher": "↑", "lower": "↓"}
    return [f"{arrows[study['directions'][metric]]} {measure(metric).title}" for metric in metrics]


def cell(found: dict[str, Any] | None) -> str:
    """Return a mean with its interval."""
    if found is None or found["value"] is None:
        return ""
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def classification(study: Study) -> str:
    """Return what every model classifies like, by seed."""
    head = "| model | AUROC by seed | mean difference | lowest bound | not inferior | accuracy by seed "
    head += "| cells for the label, diseased | cells against, healthy |"
    lines = [head, "|---" * 8 + "|"]
    for name, row in study["models"].items():
        scores = ", ".join(f"{value:.4f}" for value in row["auroc"])
        right = ", ".join(f"{value:.3f}" for value in row["accuracy"])
        if "against" not in row:
            lines.append(f"| black box | {scores} | | | | {right} | | |")
            continue
        tests = row["against"]
        difference = sum(test["difference"] for test in tests) / len(tests)
        passed = f"{sum(test['passed'] for test in tests)} of {len(tests)} (margin {tests[0]['margin']:g})"
        shares = [
            sum(one[key] for one in row["consistency"]) / len(tests)
            for key in ("margin_positive_share", "margin_negative_share")
        ]
        lines.append(
            f"| {title(f'evidence:{name}', study)} | {scores} | {difference:+.4f} "
            f"| {min(test['low'] for test in tests):+.4f} | {passed} | {right} | {shares[0]:.2f} | {shares[1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def penalties(study: Study) -> str:
    """Return the validation AUROC of each penalty on seed 0, and which was taken."""
    lines = ["| place | validation AUROC by l1 | taken |", "|---|---|---|"]
    for place, found in study["penalties"].items():
        listed = ", ".join(f"{'none' if l1 == '0' else l1}: {value:.4f}" for l1, value in found["validation"].items())
        taken = f"{found['l1']:g}" + ("" if found["bearable"] else ", the weakest: none is bearable")
        lines.append(f"| {place} | {listed} | {taken} |")
    return "\n".join(lines) + "\n"


def leads(study: Study, metrics: Sequence[str]) -> str:
    """Return, by model and metric, the least lead over any post-hoc method, with the method that came closest."""
    lines = [f"| class maps | {' | '.join(head(study, metrics))} |", "|---" * (len(metrics) + 1) + "|"]
    for name in [f"evidence:{model}" for model in study["models"] if model != "black_box"]:
        cells = [lead(study, name, metric) for metric in metrics]
        lines.append(f"| {title(name, study)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def list_rivals(study: Study, name: str, metric: str) -> list[dict[str, Any]]:
    """Return the differences from every post-hoc method and floor, better always positive, the least lead first."""
    sign = 1 if study["directions"][metric] == "higher" else -1
    rows = [row for row in study["differences"] if row["method"] == name and row["metric"] == metric]
    turned = [
        row
        if sign > 0
        else {**row, "difference": -row["difference"], "low": flip(row["high"]), "high": flip(row["low"])}
        for row in rows
    ]
    return sorted(turned, key=lambda row: row["low"] if row["low"] is not None else -math.inf)


def flip(value: float | None) -> float | None:
    return None if value is None else -value


def lead(study: Study, name: str, metric: str) -> str:
    """Return the least lead of a model over any rival, its interval, and in how many it is shown."""
    rivals = list_rivals(study, name, metric)
    if not rivals:
        return ""
    worst = rivals[0]
    won = sum(row["low"] is not None and row["low"] > 0 and row["p_holm"] < 0.05 for row in rivals)
    interval = f"{worst['difference']:+.3f} ({worst['low']:+.3f} to {worst['high']:+.3f})"
    return f"{interval}, {title(worst['against'], study)}; ahead of {won} of {len(rivals)}"


def fills(study: Study) -> str:
    """Return the probability of the second class in healthy validation images with random patches filled."""
    seeds = study["fills"]
    lines = ["| model | fill | untouched | 5 patches | 10 | 20 | 30 |", "|---" * 7 + "|"]
    for name in seeds[0]:
        shown = "black box" if name == "black_box" else title(f"evidence:{name}", study)
        for fill in seeds[0][name]:
            means = [sum(column) / len(column) for column in zip(*(one[name][fill] for one in seeds), strict=True)]
            lines.append(f"| {shown} | {fill.replace('_', ' ')} | {' | '.join(f'{value:.2f}' for value in means)} |")
    return "\n".join(lines) + "\n"


def resolution(study: Study) -> str:
    """Return what finer maps of the same weights find, by map stride."""
    seeds = study["resolution"]
    metrics = ("pointing_game", "pixel_auroc", "activation_precision", "topk_precision", "localization_precision")
    lines = [
        f"| map stride | AUROC by seed | {' | '.join(measure(name).title for name in metrics)} |",
        "|---" * 7 + "|",
    ]
    for name in seeds[0]:
        stride = name.partition("stride_")[2] or "32"
        scores = ", ".join(f"{one[name]['auroc']:.4f}" for one in seeds)
        means = [sum(one[name][metric] for one in seeds) / len(seeds) for metric in metrics]
        lines.append(f"| {stride} | {scores} | {' | '.join(f'{value:.3f}' for value in means)} |")
    return "\n".join(lines) + "\n"


def shortcut_models(study: Study) -> str:
    """Return the AUROC with and without the shortcut."""
    lines = ["| model | AUROC, validation (the mark agrees) | AUROC, test (it does not) |", "|---|---|---|"]
    for name, found in study["shortcut"]["auroc"].items():
        shown = "black box" if name == "black_box" else title(f"evidence:{name}", study)
        lines.append(f"| {shown} | {found['val']:.4f} | {found['test']:.4f} |")
    return "\n".join(lines) + "\n"


def shortcut_methods(study: Study) -> str:
    """Return how much of each method's positive evidence lies on the mark."""
    lines = ["| method | positive evidence on the mark | points at it |", "|---|---|---|"]
    for name, found in study["shortcut"]["methods"].items():
        cells = [cell(found[metric]) for metric in ("activation_precision", "pointing_game")]
        lines.append(f"| {title(name, study)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
