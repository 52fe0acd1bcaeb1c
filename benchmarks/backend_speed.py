"""What runs a model fastest on this machine: `python benchmarks/backend_speed.py [--quick]`.

Every backend of `Predictor` and this machine's float32 matrix product are timed in turn within every repeat, so that a
change of the machine's pace meets all of them. The black box alone is exported and timed in the same runtime, which
shows what logits and maps cost there. Times are medians over repeats, ratios medians of the ratio within a repeat.
FLOPs are counted by torch, two per multiplication with addition. Writes `benchmarks/results/backend_speed.json`; about
four minutes on two cores.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from environment import PACKAGES, describe_environment
from evidence_cost import time_in_turn
from options import choose_out, create_parser
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from softcam.backbones import create_black_box
from softcam.export import KeptGraph
from softcam.export.runtime import get_openvino
from softcam.files import write_atomic
from softcam.libraries import load_library
from softcam.nn import SoftCAM, convert
from softcam.predict.backends import GraphBackend, TorchBackend
from softcam.predict.choice import AutoBackend, Exportable

RESULT = Path(__file__).parent / "results" / "backend_speed.json"
THREADS, SIZE, CLASSES = 2, 224, 1000
RUNTIMES = ("onnxruntime", "openvino")
MODELS = ("timm:resnet50", "timm:densenet121", "timm:convnext_tiny", "timm:tf_efficientnet_lite0")
GEMM = 1536
Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    if options.quick:
        options.models, options.repeats = ["timm:tf_efficientnet_lite0"], 3
    torch.set_num_threads(THREADS)
    rows = [row for name in options.models for row in measure(name, options.batches, options.repeats)]
    setting = {"size": SIZE, "classes": CLASSES, "gemm": GEMM, "repeats": options.repeats, "seed": 0}
    environment = describe_environment((*PACKAGES, *RUNTIMES), seeds=[0])
    result = {"environment": environment, "setting": setting, "rows": rows}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row))


def measure(name: str, batches: list[int], repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    black_box = create_black_box(name, num_classes=CLASSES).eval()
    with tempfile.TemporaryDirectory() as folder:
        source, plain = prepare(black_box, Path(folder))
        flops = count_flops(black_box)
        rows = [
            {"model": name, "batch": batch, "gflops_per_image": round(flops / 1e9, 2)}
            | measure_batch(source, plain, batch, flops=flops, repeats=repeats)
            for batch in batches
        ]
    gc.collect()
    return rows


def prepare(black_box: nn.Module, folder: Path) -> tuple[Exportable, Mapping[str, Callable[[Tensor], object]]]:
    """Return the model with its graph, and the black box in every backend."""
    model: SoftCAM = convert(black_box)
    kept = KeptGraph("model.onnx", (folder,))
    kept.make(model, (SIZE, SIZE))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = Exportable(model, TorchBackend(model, torch.device("cpu")), kept, (3, SIZE, SIZE))
    path = folder / "plain.onnx"
    example = torch.zeros(2, 3, SIZE, SIZE)
    torch.onnx.export(
        black_box, (example,), path, dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False
    )
    black_box.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return source, {"torch": run_torch(black_box), "onnxruntime": run_onnx(path), "openvino": run_openvino(path)}


def run_torch(black_box: nn.Module) -> Callable[[Tensor], object]:
    def run(images: Tensor) -> object:
        with torch.inference_mode():
            return black_box(images.contiguous(memory_format=torch.channels_last))

    return run


def run_onnx(path: Path) -> Callable[[Tensor], object]:
    runtime = load_library("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = [entry.name for entry in session.get_inputs()]
    return lambda images: session.run(None, {name: images.numpy()})


def run_openvino(path: Path) -> Callable[[Tensor], object]:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS, "ENABLE_CPU_PINNING": False}
    compiled = get_openvino().compile_model(str(path), "CPU", options)
    return lambda images: compiled(images.numpy())


def measure_batch(
    source: Exportable, plain: Mapping[str, Callable[[Tensor], object]], batch: int, *, flops: float, repeats: int
) -> dict[str, Any]:
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    left, right = torch.randn(GEMM, GEMM), torch.randn(GEMM, GEMM)
    calls: Calls = {"gemm": lambda: left @ right}
    backends = {"torch": source.reference} | {name: open_backend(source, name) for name in RUNTIMES}
    for name, backend in backends.items():
        calls[f"{name} black box"] = lambda name=name: plain[name](images)  # type: ignore[misc]
        calls[name] = lambda backend=backend: backend(images)  # type: ignore[misc]
    seconds = time_in_turn(calls, repeats)
    rates = [2 * GEMM**3 / taken for taken in seconds["gemm"]]
    row: dict[str, Any] = {"gemm_gflops": round(statistics.median(rates) / 1e9, 1), "backends": {}}
    for name in backends:
        share = [batch * flops / t / rate for t, rate in zip(seconds[name], rates, strict=True)]
        row["backends"][name] = {
            "ms_per_image": round(1000 * statistics.median(seconds[name]) / batch, 2),
            "gemm_share": round(statistics.median(share), 3),
            "to_black_box": ratio(seconds[name], seconds[f"{name} black box"]),
            "to_torch": ratio(seconds[name], seconds["torch"]),
        }
    return row | {"chosen": choose(source, images)}


def open_backend(source: Exportable, name: str) -> GraphBackend:
    return GraphBackend(name, source.kept, source.shape[1:], source.reference)


def choose(source: Exportable, images: Tensor) -> str:
    """Return what `auto` takes on this machine, by a probe of its own."""
    source.kept.write_notes({})
    auto = AutoBackend(source)
    auto(images)
    return auto.name


def ratio(mine: list[float], theirs: list[float]) -> list[float]:
    """Return median, smallest and largest ratio within a repeat."""
    found = [one / other for one, other in zip(mine, theirs, strict=True)]
    return [round(value, 3) for value in (statistics.median(found), min(found), max(found))]


def count_flops(black_box: nn.Module) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        black_box(torch.zeros(1, 3, SIZE, SIZE))
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
