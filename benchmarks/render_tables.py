"""Write the documents' tables from the committed results: `python benchmarks/render_tables.py [--check]`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import reliability_tables
import scaling_tables
import study_tables
import tutorial

from softcam.attribution import get_method
from softcam.files import write_atomic
from softcam.survey import SurveyRow, read_survey

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MEASURES = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "calibration error",
}


HEADS = {
    "linear": "1x1 convolution under a mean",
    "max": "1x1 convolution under a maximum",
    "avgmax": "1x1 convolution under mean and maximum",
    "catavgmax": "two 1x1 convolutions, under mean and maximum",
    "pooled_norm": "norm of the mean, 1x1 convolution",
    "several": "one 1x1 convolution per map",
    "attention": "attention weights of the image, 1x1 convolution",
    "pointwise": "the head's own layers at every cell",
    None: "none",
}
KEPT = {"exact": "yes", "trainable": "after fine-tuning", "no": "new layer only", "defect": "defect"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document is out of date")
    options = parser.parse_args()
    tables = {
        "README.md": {"demo": render_demo},
        "docs/tutorial/first-hour.md": {"tutorial": render_tutorial},
        "docs/how-to/choose-lambda.md": {"lambda-sweep": render_lambda_sweep},
        "docs/how-to/export.md": {"export": render_export},
        "docs/how-to/evaluate.md": {"evaluation-speed": render_evaluation_speed, "metric-speed": render_metric_speed},
        "docs/how-to/train-at-scale.md": {"training-speed": render_training_speed},
        "docs/how-to/cluster.md": {"ray-speed": render_ray_speed},
        "docs/how-to/dicom.md": {"dicom-files": render_dicom_files},
        "docs/how-to/serve.md": {"service-load": render_service_load},
        "docs/how-to/speed.md": {
            "backend-speed": render_backend_speed,
            "gpu-speed": render_gpu_speed,
            "explain-speed": render_explain_speed,
            "explain-memory": render_explain_memory,
        },
        "docs/explanation/evidence-depth.md": {
            "lesions": render_lesions,
            "peers": render_peers,
            "elpv": render_elpv,
            "depth-cost": render_depth_cost,
        },
        "docs/explanation/study.md": list_study(),
        "docs/explanation/reliability.md": {"crash-safety": render_crash_safety, **reliability_tables.list_tables()},
        "docs/explanation/scaling.md": scaling_tables.list_tables(
            read("scaling") if (RESULTS / "scaling.json").is_file() else None
        ),
        "docs/explanation/cost.md": {"cost": render_cost},
        "docs/explanation/conversion.md": {
            "conversion": render_conversion,
            "fine-tuning": render_fine_tuning,
            "conversion-cost": render_conversion_cost,
        },
    }
    stale = {}
    for document, renders in tables.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        if (fresh := put_tables(text, renders)) != text:
            stale[ROOT / document] = fresh
    if options.check:
        return int(bool(stale))
    for path, fresh in stale.items():
        write_atomic(path, fresh)
    return 0


def put_tables(text: str, renders: Mapping[str, Callable[[], str]]) -> str:
    for name, render in renders.items():
        if f"<!-- {name}:begin -->\n" not in text:
            raise ValueError(f"Expected a place for the table {name!r} in its document, but found none.")
        before, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        text = f"{before}{begin}{render()}{end}{after}"
    return text


def list_study() -> dict[str, Callable[[], str]]:
    """Return the tables of the study by the name of their place in the page."""
    renders: dict[str, Callable[[], str]] = {}
    for data, decisive in study_tables.DECISIVE.items():
        tables = {
            "models": study_tables.classification,
            "penalties": study_tables.penalties,
            "leads": partial(study_tables.leads, metrics=decisive),
            "faithful": partial(study_tables.table, part="broad", metrics=study_tables.FAITHFUL, own=False),
            "complex": partial(study_tables.table, part="broad", metrics=study_tables.COMPLEX, own=False),
            "robust": partial(study_tables.table, part="deep", metrics=study_tables.ROBUST),
            "perturbed": partial(study_tables.table, part="deep", metrics=study_tables.PERTURBED),
            "fills": study_tables.fills,
        }
        if data == "lesions":
            tables |= {
                "located": partial(study_tables.table, part="broad", metrics=study_tables.LOCATED, own=False),
                "resolution": study_tables.resolution,
                "shortcut-models": study_tables.shortcut_models,
                "shortcut-methods": study_tables.shortcut_methods,
            }
        renders |= {
            f"study-{data}-{name}": lambda data=data, render=render: render(read("study")[data])  # type: ignore[misc]
            for name, render in tables.items()
        }
    return renders


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def render_training_speed() -> str:
    if not (RESULTS / "training_speed.json").is_file():
        return "Not measured yet.\n"
    result = read("training_speed")
    lines = ["| compared | network | ratio (range) |", "|---|---|---|"]
    lines += [
        _ratio_row("step with the penalty / without", row, "penalty", f"batch {row['batch']}, {_trunk(row)}")
        for row in result["penalty"]
    ]
    lines += [
        _ratio_row("step in channels_last / NCHW", row, "channels_last", f"batch {row['batch']}, all trained")
        for row in result["format"]
    ]
    for row in result["optimizer"]:
        lines += [_ratio_row(f"{row['optimizer']}: {name} / plain", row, name, "weights moved") for name in KERNELS]
    found = result["processes"]
    lines.append(
        f"| images per second: two processes with half of the cores / one with all | {found['model']}, batch "
        f"{found['batch']}, {found['two_images_per_second']:.1f} / {found['one_images_per_second']:.1f} "
        f"| {found['ratio']:.2f} |"
    )
    machine, versions = result["environment"]["machine"], result["environment"]["versions"]
    where = f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}, float32"
    repeats = result["setting"]["repeats"]
    return "\n".join([*lines, "", f"Medians and ranges of {repeats} repeats and more; {where}.", ""])


KERNELS = ("foreach", "fused")


def _trunk(row: dict[str, Any]) -> str:
    return "all trained" if row["trunk"] is None else f"trunk cached up to {row['trunk']}"


def _ratio_row(what: str, row: dict[str, Any], arm: str, how: str) -> str:
    low, high = row[f"{arm}_ratio_range"]
    return f"| {what} | {row['model']}, {how} | {row[f'{arm}_ratio']:.3f} ({low:.3f} to {high:.3f}) |"


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
    for row in result.get("slow", ()):
        gradients, cam = (f"{row[f'{name}_ratio']:,.0f} times" for name in ("integrated_gradients", "score_cam"))
        lines += ["", f"One image of {row['model']}: integrated gradients of {row['steps']} steps take {gradients} the"]
        lines += [f"forward pass, Score-CAM {cam}."]
    return "\n".join(lines) + "\n\n"


def render_conversion() -> str:
    survey = read_survey()
    lines = [
        "Every classifier of torchvision and timm (`softcam models`; `make survey` makes the table again):",
        "",
        "| class evidence layer | logits kept | torchvision | timm |",
        "|---|---|---|---|",
    ]
    counts = {library: count_heads(survey.select(f"{library}:*")) for library in ("torchvision", "timm")}
    kinds = sorted({*counts["torchvision"], *counts["timm"]}, key=lambda kind: (kind[1] != "exact", kind[0] or "~"))
    lines += [
        f"| {HEADS[kind[0]]} | {KEPT[kind[1]]} | {counts['torchvision'][kind]} | {counts['timm'][kind]} |"
        for kind in kinds
    ]
    totals = [f"{sum(found.values())}" for found in counts.values()]
    exact = [sum(count for kind, count in found.items() if kind[1] == "exact") for found in counts.values()]
    lines += [f"| **all** | {exact[0]} and {exact[1]} exactly | **{totals[0]}** | **{totals[1]}** |", ""]
    measured = [row for row in survey.rows if row.error is not None]
    worst = max(row.error or 0.0 for row in measured), max(row.error64 or 0.0 for row in measured)
    lines += [
        (
            f"{len(measured)} of the exact ones were converted whole: largest relative difference of the logits "
            f"{worst[0]:.1e} in float32, {worst[1]:.1e} in float64. The others were judged by their heads."
        )
    ]
    return "\n".join(lines) + "\n"


def count_heads(rows: Sequence[SurveyRow]) -> Counter[tuple[str | None, str]]:
    return Counter((row.head, row.outcome) for row in rows)


def render_ray_speed() -> str:
    if not (RESULTS / "ray_speed.json").is_file():
        return ""
    result = read("ray_speed")
    rows = [("local engine, 1 thread", [result["local"]]), ("1 worker", result["one"]), ("2 workers", result["two"])]
    rows += [("2 workers, one killed on the way", [result["killed"]])]
    lines = [
        (
            f"`python benchmarks/ray_speed.py`: {result['images']} images of {result['side']} px, {result['model']}, "
            f"one thread of the model per worker, {result['environment']['machine']['cores']} cores. Two workers are "
            f"**{result['ratio']:.2f}** times as fast as one."
        ),
        "",
        "| run | images per second | seconds with the start of the workers | rows |",
        "|---|---|---|---|",
    ]
    for name, runs in rows:
        rate, seconds = (statistics.median(run[key] for run in runs) for key in ("rate", "seconds"))
        lines.append(f"| {name} | {rate:.2f} | {seconds:.0f} | {runs[0]['rows']} of {result['images']} |")
    return "\n".join(lines) + "\n"


def render_export() -> str:
    result = read("export_matrix")
    setting, versions = result["setting"], result["environment"]["versions"]
    checks = ("onnx", "openvino", "export_strict", "export_non_strict", "compile")
    batches = " and ".join(map(str, setting["batches"]))
    lines = [
        (
            f"`python benchmarks/export_matrix.py`, random weights, batches of {batches} images (traced with "
            f"{setting['traced_batch']}). Largest relative difference from the model, of logits, maps and their mean "
            "(equal: to the last bit); "
            f"torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}, OpenVINO {versions['openvino']}. "
            f"`torch.compile` with the backend `{setting['compile_backend']}` shows that the model is one graph, not "
            "more."
        ),
        "",
        "| model | class evidence layer | ONNX | OpenVINO | torch.export, strict | not strict | torch.compile |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        asked = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        cells = [row["model"], f"`{row['head']}`" + (f" ({asked})" if asked else "")]
        lines.append(f"| {' | '.join(cells + [_outcome(row[check]) for check in checks])} |")
    return "\n".join(lines) + "\n"


def render_backend_speed() -> str:
    if not (RESULTS / "backend_speed.json").is_file():
        return "`python benchmarks/backend_speed.py` measures it.\n"
    result = read("backend_speed")
    names = ("torch", "onnxruntime", "openvino")
    versions, setting = result["environment"]["versions"], result["setting"]
    lines = [
        (
            f"`python benchmarks/backend_speed.py`, {result['environment']['machine']['threads']} threads, "
            f"{setting['size']} px, float32, medians; in brackets the share of the machine's float32 matrix product, "
            f"measured in turn; torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}, "
            f"OpenVINO {versions['openvino']}."
        ),
        "",
        "| model | batch | torch, ms per image | ONNX Runtime | OpenVINO | `auto` takes | maps, to black box |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        found = [row["backends"][name] for name in names]
        times = " | ".join(f"{entry['ms_per_image']:.1f} ({entry['gemm_share']:.0%})" for entry in found)
        ratios = ", ".join(f"{entry['to_black_box'][0]:.2f}" for entry in found)
        lines.append(f"| {row['model']} | {row['batch']} | {times} | {row['chosen']} | {ratios} |")
    return "\n".join(lines) + "\n"


def render_service_load() -> str:
    if not (RESULTS / "service_load.json").is_file():
        return "`python benchmarks/service_load.py` measures it.\n"
    result = read("service_load")
    load, attack, setting = result["load"], result["attack"], result["setting"]
    statuses = ", ".join(f"{count:,} x {status}" for status, count in load["statuses"].items())
    lines = [
        (
            f"`python benchmarks/service_load.py`: {setting['model']}, {setting['size']} px, "
            f"{result['environment']['machine']['cores']} cores, which {setting['client']} shares; "
            f"answers: {statuses}. The session alone computes "
            f"{' and '.join(f'{value:.0f}' for value in load['bare_per_second'])} images per second before and after, "
            f"in batches of {setting['batch_size']} ready tensors."
        ),
        "",
        "| clients | images per second | of the session alone | p50, ms | p95 | p99 | memory, before and after |",
        "|---|---|---|---|---|---|---|",
        (
            f"| {load['clients']} | {load['per_second']:.1f} | {load['share']:.0%} | {load['p50_ms']:.0f} "
            f"| {load['p95_ms']:.0f} | {load['p99_ms']:.0f} | {load['loaded_mib']:.0f} and {load['end_mib']:.0f} MiB |"
        ),
        "",
        (
            f"Of {attack['clients']} clients alone, p95 is {statistics.mean(attack['alone_p95_ms']):.0f} ms; beside "
            f"others that mean harm {attack['beside_p95_ms']:.0f} ms, **{attack['slower_ratio']:.1f}** times as long."
        ),
    ]
    return "\n".join(lines) + "\n"


def render_gpu_speed() -> str:
    result = read("gpu_speed")
    machine, versions = result["environment"]["machine"], result["environment"]["versions"]
    lines = [
        (
            f"`python benchmarks/gpu_speed.py`, {machine['accelerator']}, {result['setting']['size']} px, "
            f"{result['setting']['classes']} classes, medians of ratios within a repeat; torch {versions['torch']}."
        ),
        "",
        "| model | arithmetic | batch | black box, ms | logits and maps | `Predictor` | Grad-CAM | images/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cam = f"{row['grad_cam_ratio']:.1f}" if "grad_cam_ratio" in row else ""
        ratios = f"{row['evidence_ratio']:.2f} | {row['backend_ratio']:.2f} | {cam}"
        cells = f"{row['model']} | {row['dtype']} | {row['batch']} | {row['forward_ms']:.1f} | {ratios}"
        lines.append(f"| {cells} | {row['images_per_second']:,.0f} |")
    lines += ["", "A training step of the whole network, with the penalty to without:", ""]
    lines += ["| model | arithmetic | batch | without, ms | with | images/s |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['dtype']} | {row['batch']} | {row['without_ms']:.1f} | {row['penalty_ratio']:.3f} "
        f"| {row['images_per_second']:,.0f} |"
        for row in result["training"]
    ]
    return "\n".join(lines) + "\n"


def _outcome(found: dict[str, Any]) -> str:
    if not found["ok"]:
        return f"no: {found['reason']}"
    error = max(found["agreement"].values()) if "agreement" in found else found["error"]
    return f"{error:.0e}" if error else "equal"


def render_dicom_files() -> str:
    result = read("dicom_files")
    rows, versions = result["rows"], result["environment"]["versions"]
    images = [row for row in rows if row["outcome"] == "image"]
    equal = sum(row["equal"] for row in images)
    lines = [
        (
            f"`python benchmarks/dicom_files.py`, pydicom {versions['pydicom']}: of {len(rows)} files, {len(images)} "
            f"are pictures, {equal} of them as pydicom's own functions give them (largest difference 1e-5 of the "
            f"scale), and {len(rows) - len(images)} are refused."
        ),
        "",
        "| picture | files |",
        "|---|---|",
        *_group_files({row["file"]: _describe_picture(row) for row in images}),
        "",
        "| refused as | files |",
        "|---|---|",
        *_group_files({row["file"]: row["reason"] for row in rows if row["outcome"] == "refused"}),
    ]
    return "\n".join(lines) + "\n"


def _describe_picture(row: Mapping[str, Any]) -> str:
    frames = f", {row['frames']} frames" if row["frames"] > 1 else ""
    return f"{row['height']} x {row['width']}, {'RGB' if row['colour'] else 'grey'}, {row['bits']} bits{frames}"


def _group_files(files: Mapping[str, str]) -> list[str]:
    """Return a line for each description; of the folders of a disc, only how many files they have."""
    groups: dict[str, list[str]] = {}
    for name, description in files.items():
        groups.setdefault(description, []).append(name)
    lines = []
    for description, names in sorted(groups.items()):
        shown = [f"`{name}`" for name in names if name.count("/") < 2 or name.endswith(("DICOMDIR", "README"))]
        rest = len(names) - len(shown)
        lines.append(f"| {description} | {', '.join([*shown, *([f'{rest} of `dicomdirtests/`'] if rest else [])])} |")
    return lines


MAPS = {
    "pointing_game": "pointing, 16 px",
    "pixel_auroc": "pixel AUROC",
    "activation_precision": "activation precision",
    "topk_precision": "top-3 patches",
}
SWAP_WINDOW = 64


def render_lesions() -> str:
    found = read("evidence_depth")["lesions"]
    lines = [
        (
            "| class evidence layer | AUROC by seed | lowest bound of the difference | half of a cell's energy "
            f"within | change if all but {SWAP_WINDOW} px is swapped | {' | '.join(MAPS.values())} | training |"
        ),
        "|---" * (6 + len(MAPS)) + "|",
    ]
    for row in found["rows"]:
        maps = " | ".join(f"{row['metrics'][name]['value']:.3f}" for name in MAPS)
        if "auroc" in row:
            before = f"{row['name']} | {_scores(row)} | {_lowest(row)} | {_local(row)}"
            lines.append(f"| {before} | {maps} | {_seconds(row)} |")
        else:
            method, _, place = row["name"].partition(" @ ")
            title = get_method(method).title + (f", black box, {place}" if place else "")
            lines.append(f"| {title} | | | | | {maps} | |")
    return "\n".join(lines) + "\n"


def render_peers() -> str:
    """Return, per model, the smallest lead over any post-hoc method, at the last stage or at the same place."""
    found = read("evidence_depth")["lesions"]
    lines = [f"| model | {' | '.join(MAPS.values())} |", "|---" * (1 + len(MAPS)) + "|"]
    for name in dict.fromkeys(row["model"] for row in found["differences"]):
        cells = []
        for metric in MAPS:
            rivals = [
                row
                for row in found["differences"]
                if (row["model"], row["metric"]) == (name, metric) and " @ " in row["against"]
            ]
            least = min(rivals, key=lambda row: row["low"])
            method, _, place = least["against"].partition(" @ ")
            interval = f"{least['low']:+.3f} to {least['high']:+.3f}"
            cells.append(f"{least['difference']:+.3f} ({interval}), {get_method(method).title} at {place}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render_elpv() -> str:
    found = read("evidence_depth")["elpv"]
    lines = [
        (
            "| class evidence layer | AUROC by seed | mean difference | lowest bound | half of a cell's energy "
            f"within | change if all but {SWAP_WINDOW} px is swapped | training |"
        ),
        "|---" * 7 + "|",
    ]
    for row in found["rows"]:
        mean = statistics.mean(one["difference"] for one in row["against"])
        accuracy = f"{_scores(row)} | {mean:+.4f} | {_lowest(row)}"
        lines.append(f"| {row['name']} | {accuracy} | {_local(row)} | {_seconds(row)} |")
    return "\n".join(lines) + "\n"


def _scores(row: dict[str, Any]) -> str:
    return ", ".join(f"{value:.4f}" for value in row["auroc"])


def _lowest(row: dict[str, Any]) -> str:
    return f"{min(one['low'] for one in row['against']):+.4f}"


def _local(row: dict[str, Any]) -> str:
    windows = read("evidence_depth")["windows"]
    swap = statistics.mean(changes[windows.index(SWAP_WINDOW)] for changes in row["context_swap"])
    return f"{statistics.mean(row['receptive_field']):.0f} px | {swap:.2f}"


def _seconds(row: dict[str, Any]) -> str:
    return f"{statistics.mean(row['seconds']):.0f} s" if any(row["seconds"]) else "none"


def render_depth_cost() -> str:
    result = read("evidence_cost")
    lines = [
        "| model | stride | batch | logits and maps, over the black box up to there | over the whole black box |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['stride']} | {row['batch']} | {row['evidence_ratio']:.2f} "
        f"| {row['evidence_ms'] / row['forward_ms']:.2f} |"
        for row in result["places"]
    ]
    return "\n".join(lines) + "\n"


def render_lambda_sweep() -> str:
    """Return a table for each search, with what the rule chose and what the test images say of it."""
    if not (RESULTS / "lambda_sweep.json").is_file():
        return "`python benchmarks/lambda_sweep.py` measures it.\n"
    result = read("lambda_sweep")
    lines = []
    for found in result["searches"]:
        lines += [
            f"**{found['name']}**, {found['images']} validation images, maps of {found['located']} of them:",
            "",
            "| l1 | AUROC | difference, lower bound | Gini | near zero | size of a cell, logits | deletion, blur |",
            "|---|---|---|---|---|---|---|",
            *(_lambda_row(row, found) for row in found["rows"]),
            "",
            _lambda_choice(found),
            "",
        ]
    return "\n".join(lines)


def _lambda_row(row: dict[str, Any], found: dict[str, Any]) -> str:
    values, mark = row["values"], "**" if row["name"] == found["chosen"] else ""
    strength = f"{mark}{row['point']['l1']:g}{mark}" if row["point"]["l1"] else f"{mark}0, dense{mark}"
    kept = "" if row["not_inferior"] else " (inferior, or not shown not to be)"
    return (
        f"| {strength} | {row['auroc']:.4f} | {row['difference']:+.4f}, {row['low']:+.4f}{kept} | {values['gini']:.3f} "
        f"| {values['near_zero_share']:.3f} | {values['evidence']:.3f} | {values['deletion_area_blur']:.3f} |"
    )


def _lambda_choice(found: dict[str, Any]) -> str:
    test = found["test"]
    if found["chosen"] == found["reference"]:
        said = "the dense model; no penalty made the maps sparser at that price"
        return f"Chosen: {said}. AUROC on {test['n']} test images: {test['auroc']:.4f}."
    return (
        f"Chosen: the row in bold. On {test['n']} test images its AUROC is {test['auroc']:.4f} against "
        f"{test['dense']:.4f} of the dense model, difference {test['difference']:+.4f}, lower bound {test['low']:+.4f}."
    )


def render_fine_tuning() -> str:
    result = read("fine_tuning")
    lines = [
        "| network | class evidence layer | drift | AUROC: black box | copied | fine-tuned | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        scores = row["auroc"]
        tuned = row["tuned"]
        lines.append(
            f"| {row['backbone']} | `{row['head']}` | {row['drift']:.2g} | {scores['black_box']:.4f} | "
            f"{scores['copied']:.4f} | {scores['tuned']:.4f} | {tuned['difference']:+.4f}, bound {tuned['low']:+.4f} |"
        )
    return "\n".join(lines) + "\n"


def render_conversion_cost() -> str:
    lines = [
        "| network | seconds | relative to copying and running it | growth of peak memory, relative to its size |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['seconds']:.2f} | {row['copy_and_run_ratio']:.1f} | {row['peak_growth_ratio']:.1f} |"
        for row in read("conversion_cost")["rows"]
    ]
    return "\n".join(lines) + "\n"


def render_metric_speed() -> str:
    result = read("metric_speed")
    lines = [
        "| metric | images | softcam, ms | Quantus | and softcam compiled | pytorch-grad-cam | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        images = result["setting"]["road_images" if row["metric"] == "road_morf" else "images"]
        ratios = [_ratio(row, "quantus"), _ratio(row, "quantus", over="compiled"), _ratio(row, "grad_cam")]
        cells = [row["metric"], str(images), f"{row['softcam_ms']:,.1f}", *ratios, _apart(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(row: Mapping[str, Any], call: str, *, over: str | None = None) -> str:
    """Return how many times as long as softcam, or as another call, one takes."""
    names = [f"{name}_ratio" for name in (call, over) if name]
    if any(name not in row for name in names):
        return ""
    found = [row[name] for name in names]
    return f"{found[0] / found[1] if over else found[0]:.1f}x"


def _apart(row: Mapping[str, Any]) -> str:
    found = [value for name, value in row["difference"].items() if name != "compiled"]
    return f"{max(found):.0e}" if found else ""


def render_evaluation_speed() -> str:
    result = read("evaluation_speed")
    lines = ["| engine | images | minutes | of these in methods and measures | peak memory |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['engine']} | {row['images']} | {row['seconds'] / 60:.1f} | {row['stages']['explain'] / 60:.1f} "
        f"| {row['peak_gib']:.1f} GiB |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def render_explain_speed() -> str:
    """Return the rates of whole runs and the costs of their steps; nothing before they were measured."""
    if not (RESULTS / "explain_speed.json").is_file():
        return ""
    result = read("explain_speed")
    lines = ["| run | backend | images | per second | the network alone | share |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['backend']} | {row['images']} | {row['per_second']:.1f} "
        f"| {statistics.mean(row['bare_per_second']):.1f} | {100 * row['share']:.0f} % |"
        for row in result["runs"]
    ]
    lines += ["", "| step, one core | ms per image |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in result["stages_ms"].items()]
    lines += ["", "| decoding and resizing by | images per second |", "|---|---|"]
    lines += [f"| {name} | {value:.0f} |" for name, value in result["readers_per_second"].items()]
    cores = result["environment"]["machine"]["cores"]
    most = [f"{100 * _most_share(row, result['stages_ms'], cores):.0f} %" for row in result["runs"]]
    lines += ["", f"Network, decoding and writing share the cores, so at most {' and '.join(most)} could be reached."]
    start, draft = statistics.median(result["start_up_seconds"]), result["draft_grey_levels"]
    lines += ["", f"From the command to the end of a run of one image: {start:.1f} s. In draft the network's input"]
    lines += [f"differs by {draft['mean']:.2f} of 255 grey levels in the mean, by at most {draft['largest']:.0f}."]
    return "\n".join(lines) + "\n"


def _most_share(row: dict[str, Any], stages: dict[str, float], cores: int) -> float:
    """Return the share of the network's rate that is left if nothing but the steps of an image takes the cores."""
    network = 1000 * cores / statistics.mean(row["bare_per_second"])
    kind = ", draft" if row["name"] == "draft" else ""
    steps = (f"decode{kind}", f"resize and normalize{kind}", "encode evidence", "write evidence")
    return network / (network + sum(stages[step] for step in steps))


def render_tutorial() -> str:
    if (RESULTS / "tutorial.json").is_file():
        return tutorial.describe(read("tutorial"))
    parts, machine = read("demo")["seconds_by_part"], read("demo")["environment"]["machine"]
    trainings = [parts[name] / 60 for name in ("black_box", "model")]
    return (
        f"Most of the time goes to the two trainings: {trainings[0]:.1f} and {trainings[1]:.1f} minutes on "
        f"{machine['cores']} cores (`python benchmarks/demo.py`, the same images and recipe).\n"
    )


def render_crash_safety() -> str:
    if not (RESULTS / "crash_safety.json").is_file():
        return "`python benchmarks/crash_safety.py` measures it.\n"
    lines = ["| command | seconds undisturbed | kills | runs that came to their end | torn files | different results |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {row['command']} | {row['seconds']:.1f} | {row['kills']} | {row['finished']} | {len(row['torn'])} "
        f"| {len(row['different'])} |"
        for row in read("crash_safety")["rows"]
    ]
    return "\n".join(lines) + "\n"


def render_explain_memory() -> str:
    result = read("explain_memory")
    lines = ["| images | before | largest |", "|---|---|---|"]
    lines += [
        f"| {row['images']} | {row['loaded_mib']:.0f} MiB | {row['peak_mib']:.0f} MiB |" for row in result["runs"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
