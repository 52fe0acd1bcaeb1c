"""Does it explain better, and does it cost accuracy? The study: `make study`, or `python benchmarks/study.py`.

On drawn fundus photographs whose lesions are known to the pixel and on real solar cells, for three seeds: a black box,
and SoftCAM models without and with a penalty, at the last stage and at the place that `evidence_depth.py` chose, all
trained alike from ImageNet weights; every method of `softcam.attribution` on the black box, at its last stage and at
the same place; every metric of `softcam.evaluation`. Differences are paired, over the images of all seeds, with
intervals over patients; p-values of those by the decisive metrics are corrected by Holm. Work that was ended goes on.
Writes `benchmarks/results/study.json`, which `render_tables.py` and `docs/images/make_study.py` show.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from environment import describe_environment
from evidence_depth import read
from study_measure import list_parts, measure, name_main, read_values
from study_models import BEARABLE, LAYERS, SEEDS, Models
from study_sanity import kept, measure_fills, measure_resolution, measure_shortcut
from study_tables import DECISIVE

from softcam.evaluation.measures import list_metrics
from softcam.files import write_atomic
from softcam.metrics import bootstrap_interval, holm, paired_bootstrap
from softcam.runs import plain

RESAMPLES = 20_000
"""The smallest p-value is twice its inverse, and has to stay small when it is corrected for hundreds of comparisons."""

RESULT = Path(__file__).parent / "results" / "study.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and what was measured")
    parser.add_argument("--data", choices=sorted(LAYERS), nargs="+", default=sorted(LAYERS, reverse=True))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "environment": describe_environment(seeds=SEEDS),
        "seeds": list(SEEDS),
        "bearable": BEARABLE,
    }
    for data in options.data:
        studies = [Models(data, options.work, seed) for seed in options.seeds]
        result[data] = summarize(studies)
        result[data]["fills"] = [kept(one.seed.folder / "fills.json", measure_fills, one) for one in studies]
        if data == "lesions":
            result[data]["resolution"] = [
                kept(one.seed.folder / "resolution.json", measure_resolution, one) for one in studies
            ]
            result[data]["shortcut"] = kept(options.work / "shortcut" / "shortcut.json", measure_shortcut, options.work)
    if (set(options.data), tuple(options.seeds)) == (set(LAYERS), SEEDS):
        write_atomic(RESULT, json.dumps(shorten(result), indent=1) + "\n")
    return 0


GROUPS = {"broad": ("broad", "dozens", "thousands"), "deep": ("deep",)}
"""Parts whose methods are compared with each other."""


def summarize(studies: Sequence[Models]) -> dict[str, Any]:
    """Return what was found on one data set over all seeds."""
    first = studies[0]
    main_name = name_main(first)
    folders = [measure(one) for one in studies]
    parts = {part.name: part for part in list_parts(first.data, str(first.layers[1].module))}
    tables, directions = {}, {}
    for group, names in GROUPS.items():
        found = [read_values(seed, names, main_name) for seed in folders if names[0] in seed]
        tables[group] = gather(found, shared=first.data == "elpv")
        directions |= list_metrics(parts[names[0]].settings, located=True)
    own = [f"evidence:{name}" for name in first.softcams]
    return {
        "module": first.layers[1].module,
        "places": [layer.name for layer in first.layers],
        "penalties": {layer.name: first.choose(layer) for layer in first.layers},
        "models": classify(studies, [found["predictions"] for found in folders], main_name),
        "directions": directions,
        "methods": {name: describe(table, directions) for name, table in tables.items()},
        "differences": compare(tables["broad"], own, DECISIVE[first.data]),
        "seconds": [read_seconds(found) for found in folders],
    }


def gather(parts: Sequence[pd.DataFrame], *, shared: bool) -> pd.DataFrame:
    """Return the values of all seeds with `image` and `group` made unique over seeds.

    Args:
        parts: By seed, one row per image and method.
        shared: Whether all seeds have the same images: an image then is one unit of resampling in all of them.
    """
    frames = []
    for seed, part in enumerate(parts):
        unit = part["patient"].fillna("").where(part["patient"].fillna("") != "", part["image"])
        group = unit if shared else f"{seed} " + unit
        frames.append(part.assign(image=f"{seed} " + part["image"], group=group))
    return pd.concat(frames, ignore_index=True)


def describe(table: pd.DataFrame, directions: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the mean with its interval, by method and metric."""
    found: dict[str, dict[str, Any]] = {}
    for method, rows in table.groupby("method", sort=False):
        found[str(method)] = {}
        for metric in directions:
            if metric in rows and rows[metric].notna().any():
                values = rows[metric].to_numpy(float)
                interval = bootstrap_interval(values, groups=rows["group"].to_numpy(object))
                found[str(method)][metric] = {**interval._asdict(), "undefined": int(np.isnan(values).sum())}
    return found


def compare(table: pd.DataFrame, own: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return paired differences of SoftCAM's class maps less every post-hoc method's and floor's, on the same images.

    The p-values are corrected for all of them: these are the comparisons that the page makes claims of.
    """
    records = []
    groups = table.groupby("image")["group"].first()
    rivals = [name for name in dict.fromkeys(table["method"]) if not name.startswith("evidence")]
    for metric in [name for name in metrics if name in table]:
        wide = table.pivot(index="image", columns="method", values=metric)
        units = groups.loc[wide.index].to_numpy(object)
        for method, other in itertools.product(own, rivals):
            first, second = wide[method].to_numpy(), wide[other].to_numpy()
            found = paired_bootstrap(first, second, groups=units, resamples=RESAMPLES)
            records.append({
                "method": method, "against": other, "metric": metric, "difference": found.value,
                "low": found.low, "high": found.high, "n": found.n, "p": found.p_value,
            })  # fmt: skip
    adjusted = holm([record["p"] for record in records]).tolist() if records else []
    return [record | {"p_holm": p} for record, p in zip(records, adjusted, strict=True)]


def classify(studies: Sequence[Models], folders: Sequence[Path], main_name: str) -> dict[str, dict[str, Any]]:
    """Return, by model, what each seed found: AUROC, accuracy, difference from the black box, consistency."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        metrics = read(folder / "metrics.json")
        found = {main_name: metrics, **metrics["others"]}
        for name in studies[0].softcams:
            row = rows.setdefault(name, {"auroc": [], "accuracy": [], "against": [], "consistency": []})
            for key in ("auroc", "accuracy"):
                row[key].append(found[name]["classification"][key]["value"])
            row["against"].append(found[name]["noninferiority"])
            row["consistency"].append({key: value["value"] for key, value in found[name]["consistency"].items()})
        twin = rows.setdefault("black_box", {"auroc": [], "accuracy": []})
        for key in ("auroc", "accuracy"):
            twin[key].append(metrics["black_box"][key]["value"])
    return rows


def read_seconds(found: dict[str, Path]) -> dict[str, float]:
    """Return how long the evaluations of a seed took, as far as one call made them."""
    return {name: read(folder / "seconds.json")["seconds"] for name, folder in found.items()}


def shorten(result: dict[str, Any]) -> Any:
    """Return the result as JSON knows it, with numbers of six significant digits."""
    return json.loads(json.dumps(plain(result)), parse_float=lambda text: float(f"{float(text):.6g}"))


if __name__ == "__main__":
    sys.exit(main())
