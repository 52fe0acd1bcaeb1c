"""Count what is held back: malformed files, bytes that look for trouble, data that would act, edited records.

    python benchmarks/safeguards.py [--quick] [--seconds 60] [--parts corpus fuzz malicious records sets]

- corpus: every file of `tests/fuzz/corpus.py` has to be refused for the reason that is expected of it.
- fuzz: every target of `tests/fuzz/targets.py` runs for so many seconds, guided by coverage.
- malicious: `tests/integration/test_malicious_input.py` hands over data that would run code, leave its folder or speak
  to a spreadsheet.
- records: every byte of a signed chain is changed in one bit, every record is removed, copied and exchanged with the
  next one, and the end is cut off; `check_chain` has to find each.
- sets: how often prediction sets hold the truth, for drawn scores, against what was promised.

Writes `benchmarks/results/safeguards.json`; parts that are not asked for stay as they are there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment
from options import choose_out, create_parser

from softcam.errors import ImageError, RecordError
from softcam.files import write_atomic
from softcam.imaging import DecodeLimits, decode_image
from softcam.metrics import conformal
from softcam.records import check_chain, create_key, load_signer, write_chain

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "safeguards.json"
SECONDS, QUICK_SECONDS = 60, 2
RECORDS = 6
SPLITS, CALIBRATION, CHECKED = 400, 200, 1000
ALPHA = 0.1
SEED = 0
FUZZ = ROOT / "tests" / "fuzz"


def try_corpus(_: argparse.Namespace) -> dict[str, Any]:
    """Decode every malformed file."""
    sys.path.insert(0, str(FUZZ))
    malformed = list(importlib.import_module("corpus").list_malformed())
    refused, longest = 0, 0.0
    for found in malformed:
        begun = time.perf_counter()
        try:
            decode_image(found.content, limits=DecodeLimits(max_pixels=50_000_000))
        except ImageError as error:
            refused += bool(re.search(found.reason, str(error)))
        longest = max(longest, time.perf_counter() - begun)
    return {"files": len(malformed), "refused": refused, "longest_seconds": round(longest, 2)}


def try_fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Run each target, and count its runs."""
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    targets = ("boxes", "config", "dicom", "image", "polyglot", "recipe")
    runs, failed = {}, []
    with tempfile.TemporaryDirectory() as corpus:
        for target in targets:
            command = [sys.executable, str(FUZZ / "targets.py"), target, "--seconds", str(seconds), "--corpus", corpus]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            counts = re.findall(r"^Done (\d+) (?:runs|in)|^#(\d+)\tDONE", done.stderr, re.MULTILINE)
            runs[target] = max((int(one or other) for one, other in counts), default=0)
            if done.returncode or not runs[target]:
                failed.append(f"{target}: {done.stderr[-500:]}")
    return {"seconds": seconds, "runs": runs, "failed": failed}


def try_malicious(_: argparse.Namespace) -> dict[str, Any]:
    """Run the tests of malicious input."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = str(ROOT / "tests" / "integration" / "test_malicious_input.py")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", tests]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        suite = next(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314 - our own report
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    held = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return {"inputs": counts["tests"] - counts["skipped"], "held": held}


def try_records(_: argparse.Namespace) -> dict[str, Any]:
    """Change a chain in every way that there is, and count what is found."""
    found: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signer, path = load_signer(create_key(folder / "keys")[0]), folder / "records.jsonl"
        bodies = ({"kind": "note", "number": number, "text": "left"} for number in range(RECORDS))
        write_chain(path, ((body, f"2026-01-0{body['number'] + 1}T00:00:00+00:00") for body in bodies), signer)
        whole = path.read_bytes()
        head = check_chain(path, keys=[signer.verifier]).head
        for kind, changed in change_chain(whole):
            path.write_bytes(changed)
            try:
                noticed = bool(check_chain(path, keys=[signer.verifier], head=head).faults)
            except RecordError:
                noticed = True
            found.setdefault(kind, []).append(noticed)
    return {kind: {"changes": len(noticed), "found": sum(noticed)} for kind, noticed in found.items()}


def change_chain(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every change with its kind."""
    generator = np.random.default_rng(SEED)
    for place in range(len(whole)):
        bit = 1 << int(generator.integers(8))
        yield "one bit", whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
    lines = whole.splitlines(keepends=True)
    for number in range(len(lines)):
        yield "record removed", b"".join(lines[:number] + lines[number + 1 :])
        yield "record copied", b"".join(lines[: number + 1] + lines[number:])
        yield "end cut off", b"".join(lines[:number])
    for number in range(len(lines) - 1):
        yield "records exchanged", b"".join([*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]])


def try_sets(_: argparse.Namespace) -> dict[str, Any]:
    """Return how often prediction sets hold the truth, over many splits of drawn scores."""
    found = {}
    for score in ("lac", "aps"):
        generator = np.random.default_rng(SEED)
        held = 0
        for _split in range(SPLITS):
            logits = generator.normal(size=(CALIBRATION + CHECKED, 4)) * 2
            odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            truth = np.array([generator.choice(4, p=row) for row in odds])
            scores = conformal.true_scores(odds[:CALIBRATION], truth[:CALIBRATION], score=score)
            quantile = conformal.conformal_quantile(scores, alpha=ALPHA)
            sets = conformal.prediction_sets(odds[CALIBRATION:], quantile=quantile, score=score)
            held += int(sets[np.arange(CHECKED), truth[CALIBRATION:]].sum())
        found[score] = round(held / (SPLITS * CHECKED), 4)
    return {"promised": 1 - ALPHA, "splits": SPLITS, "images": CHECKED, "held": found}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "corpus": try_corpus,
    "fuzz": try_fuzz,
    "malicious": try_malicious,
    "records": try_records,
    "sets": try_sets,
}


def main(options: argparse.Namespace) -> int:
    out = choose_out(options, RESULT)
    result = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    for part in options.parts:
        result[part] = PARTS[part](options)
        print(part, result[part], flush=True)
        result |= {"command": "python benchmarks/safeguards.py", "environment": describe_environment(seeds=[SEED])}
        write_atomic(out, json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = create_parser(__doc__)
    parser.add_argument("--seconds", type=int, default=None, help="for each target of the fuzzer")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    sys.exit(main(parser.parse_args()))
