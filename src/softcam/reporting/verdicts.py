"""What the evaluation decided, in plain words: how accurate, whether anything was lost, whether the sums are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from softcam.reporting.wording import DASH, estimate, number, percent, scientific

State = Literal["held", "open", "broken", "plain"]


@dataclass(frozen=True)
class Verdict:
    """One finding of the head of the page.

    Args:
        label: What was asked.
        figure: The number that answers.
        sentence: The answer in plain words.
        state: Whether a promise was held, is open, or is broken; `plain` where nothing was promised.
        status: The state in a word, so that colour is never alone.
    """

    label: str
    figure: str
    sentence: str
    state: State = "plain"
    status: str = ""


def verdicts(metrics: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """Return the findings that the metrics allow, most important first.

    Args:
        metrics: What `metrics.json` holds.
    """
    found = [
        accuracy_verdict(metrics["classification"], (metrics.get("confusion") or {}).get("softcam")),
        noninferiority_verdict(metrics.get("noninferiority")),
        identity_verdict(metrics.get("identity")),
        coverage_verdict((metrics.get("uncertainty") or {}).get("sets")),
    ]
    return tuple(verdict for verdict in found if verdict is not None)


def accuracy_verdict(
    classification: Mapping[str, Mapping[str, Any]],
    confusion: Sequence[Sequence[int]] | Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> Verdict | None:
    """Say how often the model was right, and how well it ranks.

    Args:
        classification: Name -> `value`, `low`, `high`, `n`.
        confusion: Rows true, columns predicted; used to count. One per label where labels are independent.
    """
    if "accuracy" not in classification:
        return None
    found = classification["accuracy"]
    total = int(found["n"])
    interval = f"{number(100 * found['low'], 1)}{DASH}{percent(found['high'])}"
    if isinstance(confusion, Mapping):
        matrices = confusion.values()
        right = sum(int(matrix[0][0]) + int(matrix[1][1]) for matrix in matrices)
        text = (
            f"{right:,} of {total * len(confusion):,} decisions, one for each of {len(confusion)} labels in {total:,} "
        )
        text += f"test images, were right (95 % interval {interval})."
    else:
        diagonal = sum(int(row[index]) for index, row in enumerate(confusion or ()))
        right = diagonal if confusion else round(found["value"] * total)
        text = f"{right:,} of {total:,} test images were classified correctly (95 % interval {interval})."
    if "quadratic_weighted_kappa" in classification:
        kappa = estimate(classification["quadratic_weighted_kappa"])
        text += f" The grades agree with a quadratic weighted kappa of {kappa}."
    if "auroc" in classification:
        text += f" The ranking of images has an AUROC of {estimate(classification['auroc'])}."
    return Verdict("Accuracy", percent(found["value"]), text)


def noninferiority_verdict(test: Mapping[str, Any] | None) -> Verdict | None:
    """Say whether self-explanation cost accuracy, against the margin that was stated beforehand.

    Args:
        test: `metric`, `difference` (SoftCAM minus black box), `low` (one-sided 97.5 % bound), `margin`, `passed`.
    """
    if not test:
        return None
    name = str(test["metric"]).upper() if test["metric"] == "auroc" else str(test["metric"]).replace("_", " ")
    low, margin = float(test["low"]), float(test["margin"])
    if low < 0:
        bound = f"with 97.5 % confidence its {name} is at most {number(-low)} below that of the black box"
    else:
        bound = f"with 97.5 % confidence its {name} is at least {number(low)} above that of the black box"
    figure = number(float(test["difference"]), signed=True)
    if test["passed"]:
        text = (
            f"Explaining itself did not cost performance: {bound}. A loss of less than {number(margin)} was accepted "
        )
        return Verdict("Against the black box", figure, text + "beforehand.", "held", "not inferior")
    text = f"That nothing was lost is not shown: {bound}, and only a loss of less than {number(margin)} was accepted "
    text += "beforehand. This does not prove a loss either; more test images would narrow the interval."
    return Verdict("Against the black box", figure, text, "open", "non-inferiority not shown")


def coverage_verdict(sets: Mapping[str, Any] | None) -> Verdict | None:
    """Say whether prediction sets hold the true class as often as was promised.

    Args:
        sets: `coverage` with its interval, `target`, `size`; None where there are none.
    """
    if not sets:
        return None
    found, target = sets["coverage"], float(sets["target"])
    figure = percent(found["value"])
    text = f"The prediction sets of {int(found['n']):,} test images hold the true class in {figure} of them "
    text += f"(95 % interval {number(100 * found['low'], 1)}{DASH}{percent(found['high'])}); {percent(target, 0)} were "
    text += f"promised. A set holds {number(float(sets['size']['mean']))} classes in the mean."
    if found["high"] < target:
        return Verdict("Prediction sets", figure, text, "broken", "fewer than promised")
    return Verdict("Prediction sets", figure, text, "held", "as promised")


def identity_verdict(identity: Mapping[str, Any] | None) -> Verdict | None:
    """Say whether the maps average to the logits on every prediction.

    Args:
        identity: `max_relative_error`, `n`, `tolerance`.
    """
    if not identity:
        return None
    error, tolerance = float(identity["max_relative_error"]), float(identity["tolerance"])
    figure = scientific(error)
    checked = f"{int(identity['n']):,} predictions were checked"
    if error <= tolerance:
        text = f"The evidence maps average to the logits they explain: {checked}, and the largest relative error is "
        text += f"{figure}, the rounding of the arithmetic (tolerance {scientific(tolerance)})."
        return Verdict("Exactness of the sum", figure, text, "held", "exact")
    text = f"The evidence maps do not average to the logits: {checked}, and the largest relative error, {figure}, "
    text += f"exceeds the tolerance of {scientific(tolerance)}. Do not use these maps as explanations."
    return Verdict("Exactness of the sum", figure, text, "broken", "not exact")
