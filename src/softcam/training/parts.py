"""The parts of a recipe: data, model, penalty, loss, optimizer, schedule, stopping and stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from softcam.data import Augmentation
from softcam.nn import HeadChoice
from softcam.training.values import above_zero, at_least, require


@dataclass(frozen=True)
class DataRecipe:
    """Which images are learned from, and how they reach the network.

    Args:
        source: A manifest file, a folder with one subfolder per class, or the name of a built-in source (`elpv`).
            In a recipe file, a relative path starts at that file.
        classes: Class names in the order of the logits, the positive class of two last; by default in alphabetical
            order, or as a built-in source has them.
        image_size: Side of the network's input in pixels; by default the backbone's own.
        preprocessing: Values that replace the backbone's own, with the keys of `softcam.imaging.Preprocessing`.
        augmentation: Random changes of training images; all off by default.
        sampling: `balanced` draws the images of an epoch with replacement, each class as often as the others; `uniform`
            takes each image once. Not for independent classes.
        ordinal: Whether the classes are grades in their order: the loss is the same, validation and evaluation also
            report the quadratic weighted kappa.
        batch_size: Images per optimisation step, >= 1.
        num_workers: Processes that decode images, >= 0. The result does not depend on it.
    """

    source: str = "elpv"
    classes: tuple[str, ...] | None = None
    image_size: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)
    sampling: Literal["uniform", "balanced"] = "uniform"
    ordinal: bool = False
    batch_size: int = 32
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(bool(self.source), "data.source", "a path or the name of a source", self.source)
        require(self.image_size is None or self.image_size >= 2, "data.image_size", ">= 2", self.image_size)
        require(self.batch_size >= 1, "data.batch_size", ">= 1", self.batch_size)
        require(self.num_workers >= 0, "data.num_workers", ">= 0", self.num_workers)


@dataclass(frozen=True)
class ModelRecipe:
    """Which network is trained.

    Args:
        kind: `softcam` for the self-explainable model, `black_box` for its twin; both start from the same weights.
        backbone: Name as in `softcam.backbones`, such as `timm:resnet50`.
        weights: `pretrained`, `none` (random, by the recipe's seed), or a path. The folder of a bundle or a finished
            run is gone on from: a black box of that backbone, or a SoftCAM model, whose form then stays as it is. A
            file of weights of that backbone, safetensors or a state dict that torch saved, is begun from. In a recipe
            file, a relative path starts at that file.
        new_head: Whether the classifier starts from small random weights rather than from what the library, the
            bundle or the file gives; by default it does, unless `weights` is a folder.
        arguments: Further arguments of the backbone's constructor.
        exact: Whether to refuse a backbone whose logits no evidence maps can keep; by default its head is copied to
            every cell, with a warning, and the training makes up for it.
        head: Form of the class evidence layer, as `softcam.convert` takes it.
        map_stride: Input pixels per cell, for finer maps by dilation; by default the backbone's own.
        at: Strides or names of modules after which the class evidence layers sit, one or several; by default where
            the backbone pools.
        layers: Number of 1x1 layers of a class evidence layer that `at` names; by default 2 before the last stage.
    """

    kind: Literal["softcam", "black_box"] = "softcam"
    backbone: str = "timm:tf_efficientnet_lite0"
    weights: str = "pretrained"
    new_head: bool | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False
    head: HeadChoice = "auto"
    map_stride: int | None = None
    at: tuple[int | str, ...] = ()
    layers: int | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(self.map_stride is None or self.map_stride >= 1, "model.map_stride", ">= 1", self.map_stride)
        places = all(isinstance(place, str) or place >= 1 for place in self.at)
        require(places, "model.at", "strides >= 1 or names of modules", self.at)
        require(self.layers is None or self.layers >= 1, "model.layers", ">= 1", self.layers)
        require(self.layers is None or bool(self.at), "model.layers", "given together with model.at", self.layers)

    @property
    def origin(self) -> str | None:
        """The folder or file that the weights come from, if they do."""
        return None if self.weights in ("pretrained", "none") else self.weights

    @property
    def is_file(self) -> bool:
        """Whether the weights come from a file of tensors, rather than from a bundle."""
        return self.origin is not None and Path(self.origin).is_file()

    @property
    def renews_head(self) -> bool:
        """Whether the classifier starts from small random weights."""
        return self.origin is None or self.is_file if self.new_head is None else self.new_head

    def conversion(self) -> dict[str, Any]:
        """Return the arguments of `softcam.nn.convert` that shape the class evidence layer."""
        values = {"exact": self.exact, "head": self.head, "map_stride": self.map_stride}
        return values | {"at": self.at or None, "layers": self.layers}


@dataclass(frozen=True)
class PenaltyRecipe:
    """Strengths of `softcam.nn.ElasticNet` on the evidence maps; both zero is the dense SoftCAM.

    Args:
        l1: Strength of the absolute values, >= 0.
        l2: Strength of the Euclidean norm, >= 0.
        size_free: Whether means replace the paper's sums, so that a strength carries over to other map sizes.
        scales: Factors of both strengths for the maps of each class evidence layer, >= 0, in the order in which the
            network reaches them (fine to coarse); by default the summed map is penalised.
    """

    l1: float = 0.0
    l2: float = 0.0
    size_free: bool = False
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(at_least(self.l1, 0), "penalty.l1", "a finite number >= 0", self.l1)
        require(at_least(self.l2, 0), "penalty.l2", "a finite number >= 0", self.l2)
        fits = all(at_least(factor, 0) for factor in self.scales)
        require(fits, "penalty.scales", "finite numbers >= 0", self.scales)

    @property
    def active(self) -> bool:
        """Whether the maps are penalised at all."""
        return self.l1 > 0 or self.l2 > 0


@dataclass(frozen=True)
class LossRecipe:
    """The classification loss: cross-entropy, or binary cross-entropy per class for multi-label data.

    Args:
        class_weights: `balanced` weighs classes by their inverse frequency in the training split; `effective` by that
            of what their images add to each other, which lifts rare classes less (Cui et al. 2019).
        focus: Power, >= 1, with which the probability that the label lacks multiplies an image's loss, so that easy
            images hardly count (focal loss, Lin et al. 2017, usually 2); 0 is off.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        teacher: Folder of a black box (a bundle or a finished run) of the recipe's backbone, whose probabilities are
            learned from as well. In a recipe file, a relative path starts at that file.
        teacher_share: Share of the loss that is taken towards the teacher's probabilities, in (0, 1].
        temperature: What both models' logits are divided by for that, > 0.
    """

    class_weights: Literal["balanced", "effective", "none"] = "none"
    focus: float = 0.0
    label_smoothing: float = 0.0
    teacher: str | None = None
    teacher_share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        # Between them, the gradient of an image that is certain has no bound.
        require(self.focus == 0 or at_least(self.focus, 1), "loss.focus", "0, or a finite number >= 1", self.focus)
        require(0 <= self.label_smoothing < 1, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)
        require(0 < self.teacher_share <= 1, "loss.teacher_share", "in (0, 1]", self.teacher_share)
        require(above_zero(self.temperature), "loss.temperature", "a finite number > 0", self.temperature)


@dataclass(frozen=True)
class OptimizerRecipe:
    """How weights move.

    Args:
        name: `adamw`, or `sgd` as in the paper.
        lr: Learning rate after the warm-up, > 0.
        weight_decay: Decay of weight matrices and kernels, >= 0; biases and norms are left alone.
        momentum: For `sgd`, in [0, 1).
        nesterov: For `sgd`; needs a momentum.
        gradient_clip: Largest Euclidean norm of the gradient, > 0; by default unlimited.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(above_zero(self.lr), "optimizer.lr", "a finite number > 0", self.lr)
        require(at_least(self.weight_decay, 0), "optimizer.weight_decay", "a finite number >= 0", self.weight_decay)
        require(0 <= self.momentum < 1, "optimizer.momentum", "in [0, 1)", self.momentum)
        clip = self.gradient_clip
        require(clip is None or above_zero(clip), "optimizer.gradient_clip", "a finite number > 0", clip)
        bare = self.nesterov and self.name == "sgd" and self.momentum == 0
        require(not bare, "optimizer.nesterov", "false without momentum", self.nesterov)


@dataclass(frozen=True)
class ScheduleRecipe:
    """How the learning rate moves within each stage: linear warm-up, then a cosine, by default both per step.

    Args:
        warmup_epochs: Length of the warm-up, >= 0; fractions are allowed.
        min_lr: Learning rate that the cosine ends at, >= 0.
        span: Epoch of the stage at which the cosine is at its end, above the warm-up; by default the stage's last. A
            stage that is shorter stops on the way.
        per_epoch: Whether the cosine moves once per epoch, as in the paper, rather than with every step.
        floor: Learning rate below which the cosine is cut off, >= 0.
    """

    warmup_epochs: float = 0.5
    min_lr: float = 0.0
    span: int | None = None
    per_epoch: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(at_least(self.warmup_epochs, 0), "schedule.warmup_epochs", "a finite number >= 0", self.warmup_epochs)
        require(at_least(self.min_lr, 0), "schedule.min_lr", "a finite number >= 0", self.min_lr)
        late = self.span is None or self.span > self.warmup_epochs
        require(late, "schedule.span", "more epochs than the warm-up has", self.span)
        require(at_least(self.floor, 0), "schedule.floor", "a finite number >= 0", self.floor)


@dataclass(frozen=True)
class EarlyStoppingRecipe:
    """When the last stage ends before its time.

    Args:
        monitor: Validation metric; the loss is to fall, all others are to grow. It also picks the best epoch.
            `val_kappa` is there for ordinal classes alone.
        patience: Epochs without improvement that are accepted, >= 1; by default there is no early stop.
    """

    monitor: Literal["val_auroc", "val_loss", "val_accuracy", "val_kappa"] = "val_auroc"
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(self.patience is None or self.patience >= 1, "early_stopping.patience", ">= 1", self.patience)

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the monitored metric is to fall or to grow."""
        return "min" if self.monitor == "val_loss" else "max"


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs in which the same part of the network is trained.

    Args:
        epochs: Length, >= 1.
        trunk: Submodule, named as in the black box, up to which and including which everything is frozen; its output
            is computed once and kept on disk. By default everything is trained.
        views: Augmented versions of each training image that are cached, >= 1; epochs take turns with them.
        lr: Learning rate of this stage; by default the optimizer's.
        freeze_norms: Whether batch norms keep the statistics they came with. With few images, or images unlike those
            of the pretraining, statistics of a batch upset pretrained features.
    """

    epochs: int
    trunk: str | None = None
    views: int = 1
    lr: float | None = None
    freeze_norms: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(self.epochs >= 1, "stages.epochs", ">= 1", self.epochs)
        require(self.trunk != "", "stages.trunk", "the name of a submodule", self.trunk)
        require(self.views >= 1, "stages.views", ">= 1", self.views)
        require(self.views == 1 or self.trunk is not None, "stages.views", "1 without a trunk", self.views)
        require(self.lr is None or above_zero(self.lr), "stages.lr", "a finite number > 0", self.lr)
