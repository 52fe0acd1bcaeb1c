"""Export a network of every kind of head, and say what came of it: `python benchmarks/export_matrix.py`.

Every row is one model with random weights: to ONNX and to OpenVINO with the differences that the export itself measures
on noise (batches of 1 and 3 images; the graph is traced with 2), through `torch.export`, strict and not, and through
`torch.compile` in one graph. The backend of `torch.compile` is `eager`: it shows that the whole model is one graph, not
that a backend generates code for it. A failure is an entry with its reason. Writes
`benchmarks/results/export_matrix.json` and prints a table.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from environment import PACKAGES, describe_environment
from options import choose_out, create_parser
from torch import Tensor, nn

from softcam.backbones import create_black_box
from softcam.export import ExportReport, export_onnx, export_openvino
from softcam.export.agreement import BATCHES, TOLERANCE
from softcam.export.graph import TRACED_BATCH
from softcam.files import write_atomic
from softcam.nn import Evidence, SoftCAM, convert
from softcam.survey.weights import randomise

RESULT = Path(__file__).parent / "results" / "export_matrix.json"
SEED = 0
NUM_CLASSES = 10
SWIN = "timm:swin_tiny_patch4_window7_224"
WRITERS = ("onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Case:
    """A black box, the size of its images and how it is converted."""

    name: str
    size: tuple[int, int] = (64, 96)
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def convert(self) -> SoftCAM:
        """Return the converted network in eval mode."""
        torch.manual_seed(SEED)
        black_box = create_black_box(self.name, num_classes=NUM_CLASSES, **self.arguments)
        return convert(randomise(black_box, seed=SEED), images=make_images(2, self.size), **self.options)

    @property
    def key(self) -> str:
        """What tells one row from another."""
        return json.dumps([self.name, self.arguments, self.options])


def sized(name: str, **arguments: Any) -> Case:
    """Return a case of a timm network that is built for one size of images."""
    return Case(name, (64, 64), arguments={"img_size": 64, **arguments})


CASES = (
    Case("timm:test_resnet"),
    sized(SWIN, depths=(2, 2, 2), embed_dim=48, num_heads=(2, 4, 8)),  # channels last, and smaller than any of timm
    Case("timm:mixer_s32_224", (224, 224)),  # a grid of tokens
    Case("timm:test_resnet", arguments={"global_pool": "max"}),
    Case("timm:test_resnet", arguments={"global_pool": "avgmax"}),
    Case("timm:test_resnet", arguments={"global_pool": "catavgmax"}),
    Case("timm:test_convnext"),
    sized("timm:test_vit", global_pool="avg"),
    Case("timm:efficientvim_m1", (224, 224)),
    sized("timm:resnet50_clip"),
    Case("timm:mobilenetv3_small_050", options={"exact": False}),
    Case("timm:test_vit", (160, 160), options={"exact": False}),  # a class token
    Case("torchvision:alexnet", (224, 224), options={"head": "fully_convolutional"}),
    Case("torchvision:resnet18", options={"at": 16}),
    Case("torchvision:resnet18", options={"at": (16, 32)}),
    Case("torchvision:resnet18", options={"map_stride": 16}),
)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("names", nargs="*", help="networks whose rows to measure again; default: all")
    options = parser.parse_args()
    out = choose_out(options, RESULT)
    kept = read_rows(out) if options.names else {}
    rows = []
    for case in CASES[:1] if options.quick else CASES:
        if not options.names or case.name in options.names:
            rows.append(measure(case))
            print(f"{case.name}: {rows[-1]['seconds']:.1f} s", file=sys.stderr)
        elif case.key in kept:
            rows.append(kept[case.key])
    setting = {
        "seed": SEED,
        "classes": NUM_CLASSES,
        "dtype": "float32",
        "traced_batch": TRACED_BATCH,
        "batches": list(BATCHES),
        "tolerance": TOLERANCE,
        "compile_backend": "eager",
    }
    environment = describe_environment((*PACKAGES, *WRITERS), seeds=[SEED])
    write_atomic(out, json.dumps({"environment": environment, "setting": setting, "rows": rows}, indent=2) + "\n")
    print(render_table(rows))


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run, by their keys."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return {json.dumps([row["model"], row["arguments"], row["options"]]): row for row in rows}


def measure(case: Case) -> dict[str, Any]:
    """Return one row; what fails is an entry with the reason."""
    started = time.perf_counter()
    row: dict[str, Any] = {"model": case.name, "arguments": dict(case.arguments), "options": dict(case.options)}
    try:
        model = case.convert()
    except Exception as error:  # noqa: BLE001 - one network must not cost the others
        return row | {"conversion": _failure(error), "seconds": _since(started)}
    size = model.conversion.input_size
    with torch.no_grad():
        grid = model.evidence(make_images(1, size)).maps.shape[2:]
    row |= {"head": model.conversion.head, "input_size": list(size), "grid": list(grid)}
    row |= {name: attempt(lambda check=check: check(model)) for name, check in CHECKS.items()}
    return row | {"seconds": _since(started)}


def attempt(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a check found and how long it took, or why it failed."""
    torch.compiler.reset()
    started = time.perf_counter()
    try:
        found = {"ok": True, **check()}
    except Exception as error:  # noqa: BLE001 - a failure is a result
        found = _failure(error)
    return found | {"seconds": _since(started)}


def check_onnx(model: SoftCAM) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _describe(export_onnx(model, Path(folder) / "model.onnx"))


def check_openvino(model: SoftCAM) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _describe(export_openvino(model, Path(folder) / "model.xml"))


def check_export(model: SoftCAM, *, strict: bool) -> dict[str, Any]:
    images = make_images(TRACED_BATCH, model.conversion.input_size)
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model.with_evidence(), (images,), dynamic_shapes=batch, strict=strict)
    return _compare(program.module(), model)


def check_compile(model: SoftCAM) -> dict[str, Any]:
    return _compare(torch.compile(model.with_evidence(), backend="eager", fullgraph=True), model)


CHECKS: Mapping[str, Callable[[SoftCAM], dict[str, Any]]] = {
    "onnx": check_onnx,
    "openvino": check_openvino,
    "export_strict": lambda model: check_export(model, strict=True),
    "export_non_strict": lambda model: check_export(model, strict=False),
    "compile": check_compile,
}


def make_images(count: int, size: Sequence[int]) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count))


def _describe(report: ExportReport) -> dict[str, Any]:
    errors = report.agreement
    return {
        "agreement": {"logits": errors.logits, "maps": errors.maps, "mean": errors.mean},
        "bytes": report.bytes,
        "opset": report.opset,
    }


def _compare(module: nn.Module, model: SoftCAM) -> dict[str, Any]:
    errors = [_largest_error(module, model, make_images(count, model.conversion.input_size)) for count in BATCHES]
    if not max(errors) <= TOLERANCE:
        raise ValueError(f"differs from the model by {max(errors):.1e}")
    return {"error": max(errors)}


@torch.no_grad()
def _largest_error(module: nn.Module, model: SoftCAM, images: Tensor) -> float:
    found, expected = module(images), model.evidence(images)
    if not isinstance(found, Evidence):
        raise TypeError(f"gives {type(found).__name__}")
    pairs = ((found.logits, expected.logits), (found.maps, expected.maps))
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def _failure(error: Exception) -> dict[str, Any]:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return {"ok": False, "reason": f"{type(error).__name__}: {reason}"[:400]}


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 2)


def render_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["model", "head", *CHECKS]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in rows:
        cells = [row["model"], row.get("head", "not converted"), *(_cell(row.get(name)) for name in CHECKS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if not found["ok"]:
        return str(found["reason"])
    error = max(found["agreement"].values()) if "agreement" in found else found["error"]
    return f"{error:.1e}, {found['seconds']:.0f} s"


if __name__ == "__main__":
    main()
