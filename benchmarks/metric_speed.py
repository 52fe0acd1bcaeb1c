"""What metrics cost beside those of Quantus and pytorch-grad-cam: `python benchmarks/metric_speed.py`.

The same images, maps and network for all; softcam and its peers take turns within every repeat, so that a change of the
machine's pace meets all of them. A ratio is a peer's time over softcam's, the median over repeats of the ratio within a
repeat. The numbers are compared, too: `difference` is the largest over all images and points, with what is the same
definition on both sides. Insertion has no peer. Curves are passes through the network and little else, so they are
timed with the same passes as the peer's and with those of `compile_forward` as well. A peer that is not installed is
left out (`pip install --no-deps quantus cachetools`). Writes `benchmarks/results/metric_speed.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import PACKAGES, describe_environment
from numpy.typing import NDArray
from options import choose_out, create_parser
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timing import summarize, time_in_turn
from torch import Tensor, nn

from softcam.backbones import create_black_box
from softcam.export import compile_forward
from softcam.files import write_atomic
from softcam.metrics import (
    NoisyLinearFill,
    activation_precision,
    deletion_curve,
    insertion_curve,
    pointing_game,
    rank_accuracy,
)

RESULT = Path(__file__).parent / "results" / "metric_speed.json"
THREADS = 2
SIZES = {"images": (64, 4), "road_images": (4, 1), "size": (224, 64), "repeats": (5, 1)}
BACKBONE = "timm:tf_efficientnet_lite0"
# Points of a curve, between which a sixteenth of the pixels is removed; Quantus wants a whole number of pixels.
POINTS = 16
PERCENTAGES = (10, 30, 50)
Answer = NDArray[np.float64]
Call = Callable[[], Answer]


class Grey(nn.Module):
    """Grey images for a network of colours, since Quantus removes a pixel's channels one by one."""

    def forward(self, images: Tensor) -> Tensor:
        """Repeat the one channel, in the memory format that is fast on a CPU."""
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Setting:
    """What all metrics measure.

    Args:
        model: (N, 1, H, W) to (N, 2) probabilities.
        images: (N, 1, H, W).
        maps: (N, H, W) without ties, from 0 to 1.
        masks: (N, H, W) of 0 and 1.
        target: (N,) class indices.
    """

    model: nn.Module
    images: Tensor
    maps: Tensor
    masks: Tensor
    target: Tensor

    @property
    def pixels(self) -> int:
        """How many pixels an image has."""
        return self.maps[0].numel()

    def predict(self, images: Tensor) -> Tensor:
        """Return probabilities (N, 2)."""
        probabilities: Tensor = self.model(images)
        return probabilities

    def decide(self, images: Tensor) -> Tensor:
        """Return the decision as a probability of 0 or 1."""
        return nn.functional.one_hot(self.predict(images).argmax(1), 2).float()


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--images", type=int, default=None, help="default: 64, or 4 with --quick")
    parser.add_argument(
        "--road-images", type=int, default=None, help="images for ROAD, of which peers solve seconds each; default: 4"
    )
    parser.add_argument("--size", type=int, default=None, help="default: 224, or 64 with --quick")
    parser.add_argument("--repeats", type=int, default=None, help="default: 5, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--backbone", default=BACKBONE)
    options = parser.parse_args()
    for name, (whole, small) in SIZES.items():
        setattr(options, name, getattr(options, name) or (small if options.quick else whole))
    torch.set_num_threads(options.threads)
    many = create_setting(options.backbone, options.images, options.size)
    few = create_setting(options.backbone, options.road_images, options.size)
    cases = [*list_curves(many), *list_road(few), *list_localization(many)]
    rows = [measure(*case, repeats=options.repeats) for case in cases]
    setting = {name: value for name, value in vars(options).items() if name not in ("out", "quick")}
    setting |= {"points": POINTS, "percentages": PERCENTAGES, "dtype": "float32"}
    result = {"environment": describe_environment((*PACKAGES, "quantus"), seeds=[0]), "setting": setting, "rows": rows}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(render_table(rows))


def create_setting(backbone: str, count: int, size: int) -> Setting:
    torch.manual_seed(0)
    model = nn.Sequential(Grey(), create_black_box(backbone, num_classes=2, weights="pretrained"), nn.Softmax(1)).eval()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.rand(count, size * size, dtype=torch.float64).argsort(1)
    maps = (order / (size * size - 1)).float().reshape(count, size, size)
    masks = torch.rand(count, size, size) < 0.1
    return Setting(model, torch.randn(count, 1, size, size), maps, masks, torch.arange(count) % 2)


Case = tuple[str, dict[str, Call], dict[str, Callable[[], float]]]
"""A metric's name, what to time by library (softcam first), and by peer the largest difference of the numbers."""


def list_curves(setting: Setting) -> Iterator[Case]:
    step = setting.pixels // POINTS
    points = range(step, setting.pixels + 1, step)

    compiled = compile_forward(setting.model, setting.images[:2])

    def follow(curve: Callable[..., Tensor], predict: Callable[[Tensor], Tensor]) -> Call:
        asked = setting.images, setting.maps, setting.target
        return lambda: curve(predict, *asked, patch=1, steps=points).numpy()

    def forward() -> Answer:
        with torch.no_grad():
            return torch.stack([setting.predict(setting.images) for _ in points]).numpy()

    for name, curve in {"deletion": deletion_curve, "insertion": insertion_curve}.items():
        calls = {"softcam": follow(curve, setting.predict), "compiled": follow(curve, compiled), "forward": forward}
        if name == "deletion" and has_quantus():
            calls["quantus"] = ask_quantus(setting, "PixelFlipping", features_in_step=step, perturb_baseline=0.0)
        yield name, calls, compare(calls)


def list_road(setting: Setting) -> Iterator[Case]:
    # grad-cam removes what is not below the percentile, Quantus a share that is cut off.
    counts = [setting.pixels - math.ceil((1 - p / 100) * (setting.pixels - 1)) for p in PERCENTAGES]
    whole = [int(setting.pixels * p / 100) for p in PERCENTAGES]

    def ours(predict: Callable[[Tensor], Tensor], steps: Sequence[int]) -> Answer:
        fill = NoisyLinearFill(noise=0)
        return deletion_curve(
            predict, setting.images, setting.maps, setting.target, patch=1, steps=steps, fill=fill
        ).numpy()

    compiled = compile_forward(setting.model, setting.images[:2])
    calls: dict[str, Call] = {
        "softcam": lambda: ours(setting.predict, counts),
        "compiled": lambda: ours(compiled, counts),
        "grad_cam": lambda: ask_grad_cam(setting),
    }
    differences = compare(calls)
    if has_quantus():
        quantus = ask_quantus(setting, "ROAD", percentages=list(PERCENTAGES), noise=0)
        calls["quantus"] = quantus
        # Quantus follows the share of right decisions.
        differences["quantus"] = lambda: largest(ours(setting.decide, whole).mean(0), quantus())
    yield "road_morf", calls, differences


def list_localization(setting: Setting) -> Iterator[Case]:
    metrics = {
        "pointing_game": (pointing_game, "PointingGame"),
        "activation_precision": (activation_precision, "RelevanceMassAccuracy"),
        "rank_accuracy": (rank_accuracy, "RelevanceRankAccuracy"),
    }
    for name, (metric, theirs) in metrics.items():
        calls: dict[str, Call] = {"softcam": lambda metric=metric: metric(setting.maps, setting.masks).numpy()}  # type: ignore[misc]
        if has_quantus():
            calls["quantus"] = ask_quantus(setting, theirs)
        yield name, calls, compare(calls)


def ask_grad_cam(setting: Setting) -> Answer:
    targets = [ClassifierOutputTarget(int(t)) for t in setting.target]
    columns = []
    for percentage in PERCENTAGES:
        remover = RemoveMostRelevantFirst(100 - percentage, NoisyLinearImputer(noise=0))
        metric = PerturbationConfidenceMetric(remover)
        columns.append(metric(setting.images, setting.maps.numpy(), targets, setting.model, return_diff=False))
    return np.stack(columns, axis=1).astype(np.float64)


def ask_quantus(setting: Setting, name: str, **options: Any) -> Call:
    import quantus  # noqa: PLC0415 - may be absent

    metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True, **options)
    arguments = {
        "model": setting.model,
        "x_batch": setting.images.numpy(),
        "y_batch": setting.target.numpy(),
        "a_batch": setting.maps[:, None].numpy(),
        "s_batch": setting.masks[:, None].numpy(),
    }

    def call() -> Answer:
        scores = metric(**arguments, channel_first=True, device="cpu", batch_size=len(setting.images))
        return np.array(list(scores.values()) if isinstance(scores, dict) else scores, dtype=np.float64)

    return call


def has_quantus() -> bool:
    return find_spec("quantus") is not None


def compare(calls: dict[str, Call]) -> dict[str, Callable[[], float]]:
    """Return the largest difference from softcam of each peer, measured when it is asked for."""
    ours = calls["softcam"]
    return {
        name: lambda call=call: largest(ours(), call())  # type: ignore[misc]
        for name, call in calls.items()
        if name not in {"softcam", "forward"}
    }


def largest(first: Answer, second: Answer) -> float:
    return float(np.abs(first - second).max())


def measure(
    name: str, calls: dict[str, Call], differences: dict[str, Callable[[], float]], *, repeats: int
) -> dict[str, Any]:
    row = {"metric": name, **summarize(time_in_turn(calls, repeats), "softcam")}
    return row | {"difference": {peer: difference() for peer, difference in differences.items()}}


def render_table(rows: Sequence[dict[str, Any]]) -> str:
    columns = ("compiled", "forward", "quantus", "grad_cam")
    lines = [f"| metric | softcam, ms | {' | '.join(columns)} | difference |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ratios = [f"{row[f'{call}_ratio']:.2f}x" if f"{call}_ratio" in row else "-" for call in columns]
        difference = " ".join(f"{call} {value:.1e}" for call, value in row["difference"].items())
        lines.append(f"| {row['metric']} | {row['softcam_ms']:.1f} | {' | '.join(ratios)} | {difference} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
