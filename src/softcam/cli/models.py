"""`softcam models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show_json, show_table

if TYPE_CHECKING:
    from softcam.survey import SurveyRow

SUMMARY = "List what converts, exactly or after fine-tuning, with the size of the evidence maps"
EXAMPLES = """\
  softcam models
  softcam models --filter '*resnet*' --exact
  softcam models --kind pooled_norm
  softcam models --measure timm:resnet101 torchvision:regnet_y_1_6gf    (convert these now, with random weights)
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--filter", type=str, default="*", help="shell-style pattern on the name")
    parser.add_argument("--exact", action="store_true", help="only models that keep their logits")
    parser.add_argument("--kind", type=str, default=None, help="only heads of this kind, such as linear or pointwise")
    parser.add_argument("--measure", type=str, nargs="+", default=None, help="models to convert now instead")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(options: Any) -> int:
    """Print the survey, or measure the named models."""
    rows = _measure(options.measure) if options.measure else _select(options)
    if options.json:
        show_json([row.to_dict() for row in rows])
        return 0
    columns = ("model", "converts", "head", "map", "stride", "error or drift", "why not exactly")
    show_table(columns, [_cells(row) for row in rows])
    say(_summarise(rows))
    return 0


def _measure(names: list[str]) -> list[SurveyRow]:
    from softcam.survey.measure import measure_model

    return [measure_model(name) for name in names]


def _select(options: Any) -> tuple[SurveyRow, ...]:
    from softcam.survey import read_survey

    return read_survey().select(options.filter, head=options.kind, exact=options.exact)


def _cells(row: SurveyRow) -> tuple[str, ...]:
    from softcam.survey.table import WORDS

    return (
        row.model,
        WORDS[row.outcome],
        row.head or "",
        "x".join(map(str, row.grid or ())),
        "x".join(map(str, dict.fromkeys(row.map_stride or ()))),
        _measured(row),
        row.reason or "",
    )


def _measured(row: SurveyRow) -> str:
    if row.error is not None:
        return f"error {row.error:.0e}"
    return f"drift {row.drift:.2g}" if row.drift is not None else ""


def _summarise(rows: list[SurveyRow] | tuple[SurveyRow, ...]) -> str:
    if not rows:
        return "no model of the survey is like that; `--measure NAME` converts any other"
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("exact", "trainable")}
    return f"{len(rows)} models: {counts['exact']} exactly, {counts['trainable']} after fine-tuning"
