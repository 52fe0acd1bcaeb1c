"""What decides an evaluation, validated when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from softcam.attribution import get_method
from softcam.evaluation.entries import parse_method
from softcam.metrics import FILLS
from softcam.nn import AUGMENTATIONS

DEFAULT_METHODS = (
    "evidence",
    "evidence_margin",
    "grad_cam",
    "layer_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "integrated_gradients",
    "guided_backprop",
    "random",
)
"""What an evaluation compares unless told otherwise: the usual methods that together take minutes on two CPU cores."""

MEASURES = (
    "localization",
    "curves",
    "drop",
    "road",
    "irof",
    "infidelity",
    "sensitivity_n",
    "max_sensitivity",
    "randomization",
    "grid_pointing",
    "complexity",
)
"""Everything that can be measured of a method's maps."""

CHEAP_MEASURES = ("localization", "curves", "drop", "complexity")
"""Those that take at most some twenty forward passes per map."""

Engine = Literal["torch", "openvino"]
ExplainedClass = Literal["reported", "most_probable"]

_PAPER_PATCH, _PAPER_SIZE = 33, 512


@dataclass(frozen=True)
class EvaluationSettings:
    """Numbers of an evaluation; the defaults suit two CPU cores and about 650 images of 224 px.

    Args:
        split: Which split of the manifest is evaluated; None for all of it.
        batch_size: Images in one forward pass, >= 1.
        seed: Seed of the bootstrap, of the subsamples and of the gallery.
        resamples: Bootstrap resamples, >= 1.
        margin: Loss of AUROC against the black box that counts as acceptable, in (0, 1).
        tolerance: Largest relative difference between logits and mean maps, > 0.
        methods: Names of `softcam.attribution.list_methods()` to compare, with `@module` to look at another layer than
            the last; "evidence" is what they are compared with.
        measures: What is measured of their maps, names of `MEASURES`. Those beyond `CHEAP_MEASURES` take dozens of
            forward passes or of further maps for each map.
        explained: Images, stratified by label, on which methods are compared, >= 0. 0 leaves the comparison out.
        explained_class: Which class's map is asked of every method: the one that the model reports, at its threshold
            where there are two, or the most probable. Of independent classes "reported" is the most probable of those
            that reach their thresholds, and of all where none does.
        explained_labels: Classes whose images are explained; none for all.
        explained_slowly: How many of these images are explained by methods of cost "many", >= 0.
        located: Images, stratified by label, on which the locality of the SoftCAM's cells is measured, >= 0. With
            fewer than two it is left out.
        windows: Sides of the windows outside of which everything is replaced for that, as shares of the input's side,
            each in (0, 1).
        patch: Side of a patch in pixels; None scales the paper's 33 px at 512 to the input (14 at 224).
        points: Numbers of patches replaced or shown at which curves are taken; increasing, the first 0, at least two.
        fills: What replaces patches in deletion, names of `softcam.metrics.FILLS`.
        insertion_fills: What is there before patches are shown. `noisy_linear` imputes nearly the whole image, which
            takes seconds for each.
        shares: Shares of the pixels that ROAD removes, increasing, in (0, 1).
        samples: Random regions for each value of infidelity and sensitivity-n, and four times the noisy copies of
            max-sensitivity; >= 2.
        right: Correctly classified images in the gallery, >= 0.
        wrong: Misclassified images in the gallery, >= 0.
        gallery_methods: Methods shown beside the evidence in the gallery.
        device: As torch names it; None takes a GPU if there is one.
        augment: Views of each image over which the SoftCAM models' logits and maps are averaged, see
            `softcam.nn.AUGMENTATIONS`; None looks once. Methods that look at a layer are then not defined for them.
        engine: What runs the forward passes on changed images: "torch", or "openvino", several times faster on a CPU.

    Raises:
        ValueError: If a value is out of range or a name is unknown.

    Example:
        >>> EvaluationSettings().patch_side(224)
        14
    """

    split: str | None = "test"
    batch_size: int = 32
    seed: int = 0
    resamples: int = 10_000
    margin: float = 0.02
    tolerance: float = 1e-5
    methods: tuple[str, ...] = DEFAULT_METHODS
    measures: tuple[str, ...] = CHEAP_MEASURES
    explained: int = 48
    explained_class: ExplainedClass = "reported"
    explained_labels: tuple[str, ...] = ()
    explained_slowly: int = 8
    located: int = 32
    windows: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5, 0.75)
    patch: int | None = None
    points: tuple[int, ...] = (0, 5, 10, 20, 30)
    fills: tuple[str, ...] = ("mean", "blur", "noisy_linear")
    insertion_fills: tuple[str, ...] = ("mean", "blur")
    shares: tuple[float, ...] = (0.1, 0.3, 0.5)
    samples: int = 32
    right: int = 6
    wrong: int = 6
    gallery_methods: tuple[str, ...] = ("grad_cam", "layer_cam", "guided_backprop")
    device: str | None = None
    engine: Engine = "torch"
    augment: str | None = None

    def __post_init__(self) -> None:
        # YAML and JSON know lists only.
        for field in fields(self):
            if field.type.startswith("tuple"):
                value = getattr(self, field.name)
                _require(not isinstance(value, str), field.name, "a list", value)
                object.__setattr__(self, field.name, tuple(value))
        for name in ("batch_size", "resamples"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("explained", "explained_slowly", "located", "right", "wrong", "seed"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _require(0 < self.margin < 1, "margin", "in (0, 1)", self.margin)
        _require(self.tolerance > 0, "tolerance", "above 0", self.tolerance)
        _require(self.patch is None or self.patch >= 1, "patch", "at least 1 or None", self.patch)
        shares = len(self.windows) > 0 and all(0 < share < 1 for share in self.windows)
        _require(shares, "windows", "shares in (0, 1), at least one", self.windows)
        ordered = list(self.shares) == sorted(set(self.shares)) and all(0 < share < 1 for share in self.shares)
        _require(self.shares and ordered, "shares", "increasing shares in (0, 1), at least one", self.shares)
        _require(self.samples >= 2, "samples", "at least 2", self.samples)
        for name, kind in {"engine": Engine, "explained_class": ExplainedClass}.items():
            value = getattr(self, name)
            _require(value in get_args(kind), name, f"among {', '.join(get_args(kind))}", value)
        known = self.augment is None or self.augment in AUGMENTATIONS
        _require(known, "augment", f"among {', '.join(AUGMENTATIONS)} or None", self.augment)
        for measure in self.measures:
            _require(measure in MEASURES, "measures", f"among {', '.join(MEASURES)}", measure)
        rising = all(b > a for a, b in zip(self.points, self.points[1:], strict=False))
        whole = len(self.points) >= 2 and self.points[0] == 0 and rising
        _require(whole, "points", "increasing numbers from 0, at least two", self.points)
        for fill in (*self.fills, *self.insertion_fills):
            _require(fill in FILLS, "fills", f"among {', '.join(sorted(FILLS))}", fill)
        for method in self.methods:
            parse_method(method)
        for method in self.gallery_methods:
            get_method(method)

    def patch_side(self, size: int) -> int:
        """Return the side of a patch in pixels.

        Args:
            size: Side of the network input in pixels.
        """
        return self.patch or max(1, round(_PAPER_PATCH * size / _PAPER_SIZE))

    def window_sides(self, size: int) -> tuple[int, ...]:
        """Return the sides of the windows in pixels.

        Args:
            size: Side of the network input in pixels.
        """
        return tuple(max(1, round(share * size)) for share in self.windows)


def _require(holds: object, name: str, constraint: str, value: object) -> None:
    if not holds:
        raise ValueError(f"Expected `{name}` to be {constraint}, but got {value!r}.")
