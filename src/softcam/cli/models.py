"""`softcam models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show_json, show_table

if TYPE_CHECKING:
    from softcam.survey import SurveyRow

SUMMARY = "List what converts, exactly or not, with the size of the evidence maps"
EXAMPLES = """\
  softcam models
  softcam models --filter '*resnet*'
  softcam models --measure timm:resnet101 torchvision:regnet_y_1_6gf    (convert these now, with random weights)
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--filter", type=str, default="*", help="shell-style pattern on the name")
    parser.add_argument("--measure", type=str, nargs="+", default=None, help="models to convert now instead")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(options: Any) -> int:
    """Print the survey, or measure the named models."""
    from softcam.survey import read_survey, survey_model

    rows = [survey_model(name) for name in options.measure] if options.measure else read_survey(options.filter)
    if options.json:
        show_json([row.to_dict() for row in rows])
    else:
        show_table(("model", "converts", "error", "map", "input", "why not"), [_cells(row) for row in rows])
    if not rows:
        say(f"no model of the survey matches {options.filter!r}; `--measure NAME` converts any other")
    return 0


def _cells(row: SurveyRow) -> tuple[str, ...]:
    if row.error is None or row.grid is None or row.input_size is None:
        reason = (row.refusal or "").partition(", but ")[2].partition(". ")[0]
        return (row.model, "no", "", "", "", reason.rstrip("."))
    return (row.model, "exactly", f"{row.error:.1e}", f"{row.grid[0]}x{row.grid[1]}", f"{row.input_size[0]} px", "")
