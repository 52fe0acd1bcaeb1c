"""`softcam verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json, telling

SUMMARY = "Check signed records, and compute recorded predictions again"
EXAMPLES = """\
  softcam verify explained --key keys/key.pub.pem
  softcam verify explained --key keys/key.pub.pem --model model --images photographs/
  softcam verify store/records.jsonl --key key.pub.pem --head 9f2c...
"""

RECORDS = "records.jsonl"
_SHOWN = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("records", type=Path, help="file of records, or the folder that it is in")
    parser.add_argument("--key", type=Path, nargs="*", default=[], help="public keys whose signatures count")
    parser.add_argument("--head", type=str, default=None, help="digest of the last record, as it was kept elsewhere")
    parser.add_argument("--model", type=Path, default=None, help="model folder, to compute predictions again")
    parser.add_argument("--images", type=str, nargs="*", default=[], help="the images that were predicted")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference, relative to the logits")
    parser.add_argument("--backend", choices=["auto", "torch", "onnxruntime", "openvino"], default="auto")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Confirm the records, or say which of them, which field and by how much."""
    from softcam.records import check_chain, load_verifier

    if (options.model is None) != (not options.images):
        raise ValueError("Expected --model and --images together, but got one of them.")
    path = options.records / RECORDS if options.records.is_dir() else options.records
    report = check_chain(path, keys=[load_verifier(key) for key in options.key], head=options.head)
    comparisons = [] if options.model is None else _recompute(options, path)
    wrong = [found for found in comparisons if found.outcome != "confirmed"]
    if options.json:
        show_json(_to_json(report, comparisons))
    else:
        for fault in report.faults[:_SHOWN]:
            show(f"line {fault.line}: {fault.text}")
        for found in wrong[:_SHOWN]:
            show(_describe(found))
        if more := sum(max(0, len(found) - _SHOWN) for found in (report.faults, wrong)):
            say(f"{more} more are not shown; --json shows all of them")
        show(_conclude(report, comparisons))
    if not report.signed:
        say("signatures were not checked: give the public key with --key")
    return 1 if report.faults or wrong else 0


def _recompute(options: Any, path: Path) -> list[Any]:
    from softcam.bundle import find_bundle
    from softcam.predict import Predictor
    from softcam.records import read_chain, recompute
    from softcam.reporting.inputs import Draft, list_entries

    records = [record for record in read_chain(path) if record is not None]
    draft = any(record.body.get("reading", {}).get("draft") for record in records)
    with telling("softcam.predict"), progress() as report:
        augment = next((r.body["model"].get("augment") for r in records if r.body.get("kind") == "context"), None)
        predictor = Predictor(find_bundle(options.model), backend=options.backend, augment=augment)
        side = predictor.preprocessing.least_side
        entries = (entry for entry in list_entries(options.images, exclude=Path(path).parent) if not entry.refusal)
        images = ((Draft(entry, side) if draft else entry, entry.frame) for entry in entries)
        found = []
        total = sum(record.body.get("kind") == "prediction" for record in records)
        for comparison in recompute(records, predictor, images, tolerance=options.tolerance, folder=path.parent):
            found.append(comparison)
            report("verify", len(found), total)
    return found


def _describe(found: Any) -> str:
    if found.outcome == "absent":
        return f"record {found.sequence}, {found.name}: no image with the recorded digest was given"
    fields = "; ".join(f"{name}: {text}" for name, text in found.differences.items())
    return f"record {found.sequence}, {found.name}: {fields}"


def _conclude(report: Any, comparisons: list[Any]) -> str:
    chain = f"{report.records} records, {len(report.faults)} faults, head {report.head}"
    if not comparisons:
        return chain
    counts = {kind: sum(found.outcome == kind for found in comparisons) for kind in ("confirmed", "differs", "absent")}
    identical = sum(found.identical for found in comparisons)
    counted = f"{counts['confirmed']} confirmed ({identical} to the last bit), {counts['differs']} differ"
    return f"{chain}; {counted}, {counts['absent']} without their image"


def _to_json(report: Any, comparisons: list[Any]) -> dict[str, Any]:
    return {
        "records": report.records,
        "head": report.head,
        "signatures_checked": report.signed,
        "faults": [vars(fault) for fault in report.faults],
        "predictions": [
            {
                "sequence": found.sequence,
                "name": found.name,
                "outcome": found.outcome,
                "identical": found.identical,
                "largest_difference": None if found.outcome == "absent" else found.largest,
                "differences": dict(found.differences),
            }
            for found in comparisons
        ],
    }
