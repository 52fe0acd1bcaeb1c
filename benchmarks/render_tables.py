"""Write the README's tables from the committed results: `python benchmarks/render_tables.py [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from softcam.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MEASURES = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "calibration error",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the README is out of date")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    fresh = text
    for name, render in (("demo", render_demo), ("cost", render_cost), ("conversion", render_conversion)):
        before, begin, rest = fresh.partition(f"<!-- {name}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        fresh = f"{before}{begin}{render()}{end}{after}"
    if options.check:
        return int(fresh != text)
    write_atomic(readme, fresh)
    return 0


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def render_demo() -> str:
    lines = []
    for name, title in (("demo", "`make demo`: the last two stages trained"), ("demo_full", "`make demo-full`")):
        if (RESULTS / f"{name}.json").is_file():
            lines += _demo_table(read(name), title)
    return "\n".join(lines) + "\n"


def _demo_table(result: dict[str, Any], title: str) -> list[str]:
    test, counts = result["noninferiority"], result["counts"]
    rows = [
        f"| {label} | {interval(result['classification'][name])} | {interval(result['black_box'][name])} |"
        for name, label in MEASURES.items()
    ]
    verdict = "not inferior" if test["passed"] else "not shown to be non-inferior"
    machine = result["environment"]["machine"]
    return [
        f"**{title}**, {counts['test']} test images, {result['seconds'] / 60:.1f} minutes on {machine['cores']} cores:",
        "",
        "| 95 % intervals | SoftCAM | black box |",
        "|---|---|---|",
        *rows,
        "",
        (
            f"AUROC {verdict} to the black box's: difference {test['difference']:+.4f}, "
            f"lower bound {test['low']:+.4f}, margin {test['margin']:g}. "
            f"Largest relative error of the sum over all predictions: {result['identity']['max_relative_error']:.1e}."
        ),
        "",
    ]


def render_cost() -> str:
    result = read("evidence_cost")
    lines = [
        (
            "Time of one call relative to the black box's forward pass (`python benchmarks/evidence_cost.py`, "
            f"{result['environment']['machine']['threads']} threads, 224 px, medians within one run):"
        ),
        "",
        "| model | classes | batch | logits and maps | Grad-CAM |",
        "|---|---|---|---|---|",
    ]
    lines += [
        (
            f"| {row['model']} | {row['classes']} | {row['batch']} "
            f"| {row['evidence_ratio']:.2f} | {row['grad_cam_ratio']:.1f} |"
        )
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n\n"


def render_conversion() -> str:
    result = read("conversion")
    rows = result["models"]
    exact = [row for row in rows if row["exact"]]
    worst = max(row["error"] for row in exact)
    return (
        f"Conversion (`softcam models`): {len(exact)} of {len(rows)} surveyed architectures of timm and torchvision "
        f"convert exactly, with a largest relative difference of the logits of {worst:.1e} in float32; the others are "
        "refused with the reason.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
