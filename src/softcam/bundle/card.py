"""The model card: what a person should know who finds the folder without anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softcam.bundle.calibration import Calibration
from softcam.bundle.config import BundleConfig
from softcam.bundle.parts import list_parts

CARD_NAME = "README.md"

_SHOWS = """\
## What a map shows, and what it does not

- The spatial mean of a class evidence map **is** that class's logit. A map says how the model divided its own score
  over the image; nothing is approximated after the fact.
- A map cell stands for a place on the feature map. What it depends on, its receptive field, can be far larger than the
  cell, up to the whole image: evidence is not proof that only these pixels mattered.
- With exclusive classes (softmax) the difference of two class maps explains the decision between them; a single map
  does not, since adding the same amount to every class changes no probability.
- A map explains the model, not the world. It does not show that the model is right, that the highlighted structure
  causes the label, or that a blank region is healthy.
- Measured faithfulness and localisation hold for the images they were measured on.
"""

_BLACK_BOX = """\
## No maps

This is the black-box twin, kept to compare with. It gives logits and no evidence maps.
"""


def write_card(config: BundleConfig) -> str:
    """Return the text of the model card, Markdown. It holds no images and no data of patients.

    Args:
        config: What the bundle says about the model. Of its provenance only `metrics` is shown.
    """
    parts = [
        f"# {'SoftCAM model' if config.kind == 'softcam' else 'Black-box classifier'}\n",
        _table("Property", "Value", _properties(config)),
        _preprocessing(config),
        _metrics(config.provenance.get("metrics")),
        _SHOWS if config.kind == "softcam" else _BLACK_BOX,
        _usage(config),
    ]
    return "\n".join(part for part in parts if part)


def _properties(config: BundleConfig) -> list[tuple[str, str]]:
    name = "a module of the user's own" if config.architecture is None else config.architecture["name"]
    if parts := list_parts(config):
        name = "the mean of " + ", ".join(str(part.architecture and part.architecture["name"]) for part in parts)
    rows = [
        ("Architecture", name),
        ("Task", config.task),
        (f"Classes ({len(config.classes)})", ", ".join(config.classes)),
        ("Thresholds", ", ".join(f"{k}: {v:.4g}" for k, v in config.thresholds.items()) or "none"),
    ]
    if config.threshold_rule is not None:
        rows.append(("Thresholds chosen by", _rule(config.threshold_rule)))
    if config.calibration is not None:
        rows.append(("Calibration", _calibration(config.calibration)))
    if config.conversion is not None:
        rows += [("Class evidence layer", _exactness(config.conversion)), ("Map", _grid(config.conversion))]
    if config.penalty:
        rows.append(("Sparsity penalty", ", ".join(f"{k} = {v:g}" for k, v in config.penalty.items())))
    rows.append(("Training table (SHA-256)", config.data_digest or "not recorded"))
    rows.append(("Weights (SHA-256)", config.fingerprint))
    rows.append(("Written with", ", ".join(f"{k} {v}" for k, v in config.versions.items())))
    return rows


def _exactness(conversion: Mapping[str, Any]) -> str:
    head, error, drift = (conversion.get(name) for name in ("head", "error", "drift"))
    if drift is not None:
        return f"{head}; copied from the black box, whose logits drifted by {drift:.2g} of their size when converted"
    if error is None:
        return f"{head}; a new layer, trained rather than copied"
    return f"{head}; the black box's own when it was converted (largest relative error {error:.1e})"


def _grid(conversion: Mapping[str, Any]) -> str:
    cells, size, field = ("x".join(map(str, conversion[name])) for name in ("grid", "input_size", "receptive_field"))
    places = conversion.get("places") or ()
    return f"{cells} cells at {size} px{', after ' + ', '.join(places) if places else ''}; a cell sees {field} px"


def _rule(found: Mapping[str, Any]) -> str:
    """Return how the thresholds were chosen, for example `youden, on 100 images of val`."""
    place = f", on {found['n']} images of {found['split']}" if {"n", "split"} <= found.keys() else ""
    return f"{found['rule']}{place}"


def _calibration(found: Calibration) -> str:
    text = f"probabilities are those of the logits divided by {found.temperature:.4g}, chosen on {found.n} images"
    if found.alpha is None:
        return text
    return f"{text}; prediction sets ({found.method}) hold the true class of {100 * (1 - found.alpha):g} % of images"


def _preprocessing(config: BundleConfig) -> str:
    if config.preprocessing is None:
        return "## Preprocessing\n\nNot recorded: it has to be given for every prediction.\n"
    rows = [(key, str(value)) for key, value in config.preprocessing.items()]
    return "## Preprocessing\n\n" + _table("Step", "Value", rows)


def _metrics(metrics: object) -> str:
    rows = (
        [] if not isinstance(metrics, Mapping) else [(str(k), text) for k, v in metrics.items() if (text := _figure(v))]
    )
    if not rows:
        return "## Validation\n\nNo metrics were recorded with this model.\n"
    return "## Validation\n\n" + _table("Metric", "Value", rows)


def _figure(value: object) -> str:
    """Return a number, with its interval where there is one; anything else is not for a table."""
    if isinstance(value, int | float):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and {"value", "low", "high", "n"} <= value.keys():
        return f"{value['value']:.4g} ({value['low']:.4g} to {value['high']:.4g}, n = {value['n']})"
    return ""


def _usage(config: BundleConfig) -> str:
    if config.kind == "black_box":
        call = "from softcam.bundle import load_black_box\n\nmodel = load_black_box(folder)"
    else:
        call = "import softcam\n\nfor prediction in softcam.Predictor(folder)(paths):\n    print(prediction.predicted)"
    return f"## Use\n\n```python\n{call}\n```\n"


def _table(left: str, right: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {_cell(key)} | {_cell(value)} |" for key, value in rows]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines]) + "\n"


def _cell(text: str) -> str:
    # Class names are free text: they must not end a cell, start a link or bring HTML into the page.
    for character in "\\`*_[]|<>":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")
