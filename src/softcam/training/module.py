"""The Lightning module: one loss, one schedule and one set of metrics for a SoftCAM model and for its black box."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAUROC, MulticlassCohenKappa, MultilabelAUROC

from softcam.errors import DivergenceError
from softcam.nn import ElasticNet, Evidence, SoftCAM, is_batch_norm, run_from
from softcam.training.batches import Batch
from softcam.training.distillation import distillation_loss
from softcam.training.losses import classification_loss
from softcam.training.parts import Stage
from softcam.training.recipe import Recipe
from softcam.training.schedule import learning_rate, plan_segments
from softcam.training.trunk import Trunk

RANK_STRIDE = 0x9E3779B9
"""Between the seeds of processes: far from any distance between epochs or seeds."""


@dataclass(frozen=True)
class Task:
    """What is to be told apart.

    Args:
        num_classes: K.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
        class_weights: Weight of each class in the loss (K,); for multi-label data that of its positives.
        ordinal: Whether the classes are grades in their order.
    """

    num_classes: int
    multi_label: bool = False
    class_weights: Tensor | None = None
    ordinal: bool = False


class Learner(LightningModule):
    """A model that learns by a recipe.

    The penalty is taken on the evidence maps of every image of a step, which come from the pass that gave the
    logits; where no penalty is asked for, the maps are never made. A step whose images are split between processes or
    micro-batches has the loss and the penalty of all its images.

    Args:
        model: A SoftCAM model, or a black box returning logits (N, K).
        recipe: Loss, penalty, optimizer, schedule and stages.
        task: The classes.
        steps_per_epoch: Optimisation steps of an epoch, >= 1.
        trunk: What is frozen in the stages that have a trunk; needed if any has.
        teacher: A frozen black box whose probabilities are learned from as well; it sees what the model sees.

    Raises:
        ValueError: If a penalty is asked for and the model has no evidence maps.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        task: Task,
        steps_per_epoch: int,
        trunk: Trunk | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if recipe.penalty.active and not isinstance(model, SoftCAM):
            raise ValueError(
                f"Expected `model` to be a SoftCAM model, but got {type(model).__name__}. Drop the penalty."
            )
        self.model = model
        self.recipe = recipe
        self.multi_label = task.multi_label
        self.penalty = ElasticNet(recipe.penalty.l1, recipe.penalty.l2, size_free=recipe.penalty.size_free)
        self.register_buffer("class_weights", task.class_weights, persistent=False)
        self.auroc = _create_auroc(task)
        self.kappa = MulticlassCohenKappa(task.num_classes, weights="quadratic") if task.ordinal else None
        # Sums over all images and processes: a mean of batches would depend on how they are split. NaN stays NaN.
        self.loss_mean = MeanMetric(nan_strategy=math.nan)
        self.accuracy = MeanMetric(nan_strategy=math.nan)
        self._segments = plan_segments(recipe, steps_per_epoch)
        self._trunk = trunk
        # In a tuple, so that it is neither trained nor stored.
        self._teacher = () if teacher is None else (teacher.eval(),)
        self._frozen: tuple[nn.Module, ...] = ()

    @property
    def stage(self) -> Stage:
        """The stage of the current epoch."""
        return self.recipe.stage_at(self.current_epoch)

    def train(self, mode: bool = True) -> Learner:  # noqa: FBT001, FBT002 - torch's signature
        """Set train or eval mode; what is frozen stays in eval mode, so that its norms keep their statistics."""
        super().train(mode)
        for module in self._frozen:
            module.train(mode=False)
        return self

    def on_fit_start(self) -> None:
        """Put the teacher where the model is."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Freeze what the stage freezes, and make dropout depend on seed and epoch alone."""
        trunk = self._trunk if self.stage.trunk is not None else None
        self.model.requires_grad_()
        self._frozen = (trunk.modules if trunk else ()) + (_norms(self.model) if self.stage.freeze_norms else ())
        for parameter in trunk.parameters if trunk else ():
            parameter.requires_grad = False
            parameter.grad = None
        self.train()
        # A run that is taken up again at this epoch has to draw the same numbers as one that went through, and each
        # process others than the rest.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.current_epoch + self.global_rank * RANK_STRIDE)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a batch's part in the loss of its step; the mean over the step's batches is the loss of all images.

        Args:
            batch: Images (N, C, H, W) or cached activations, targets, indices, and the share of the step.
            batch_idx: Number of the batch in the epoch.

        Raises:
            DivergenceError: If the loss is not finite.
        """
        inputs, targets, _, share = batch
        logits, penalty = self._penalised(inputs)
        loss, penalty = share.weights * self.classification_loss(logits, targets), share.images * penalty
        for teacher in self._teacher:
            distance = share.images * self._distance(logits, self._run(teacher, inputs, teacher))
            loss = (1 - self.recipe.loss.teacher_share) * loss + self.recipe.loss.teacher_share * distance
        total = loss + penalty
        if not bool(torch.isfinite(total)):
            raise DivergenceError(
                f"Expected the training loss to be finite, but got {float(total.detach())} in epoch "
                f"{self.current_epoch + 1}, batch {batch_idx + 1}. "
                "Lower `optimizer.lr` or the penalty, or set `optimizer.gradient_clip`."
            )
        self._log(train_loss=loss, train_penalty=penalty, size=share.size)
        return total

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        """Add a batch, as in `training_step`, to the validation metrics."""
        inputs, targets, _, share = batch
        logits = self._run(self.model, inputs, self.model).float()
        if share.images == 0:
            return
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(1)
        hits = (probabilities > 0.5) == targets.bool() if self.multi_label else logits.argmax(1) == targets
        self.auroc.update(probabilities, targets.long())
        if self.kappa is not None:
            self.kappa.update(probabilities.argmax(1), targets)
        self.accuracy.update(hits.float())
        self.loss_mean.update(self.classification_loss(logits, targets), self._total_weight(targets))

    def on_validation_epoch_end(self) -> None:
        """Compute every metric once over all validation images of all processes."""
        metrics = {"val_loss": self.loss_mean, "val_accuracy": self.accuracy, "val_auroc": self.auroc}
        if self.kappa is not None:
            metrics["val_kappa"] = self.kappa
        for name, metric in metrics.items():
            self.log(name, metric.compute(), prog_bar=name in ("val_auroc", "val_kappa"))
            metric.reset()

    def classification_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss that the recipe asks for, without the penalty.

        Args:
            logits: (N, K).
            targets: Class indices (N,), or 0 and 1 (N, K) for multi-label data.
        """
        loss = self.recipe.loss
        return classification_loss(
            logits,
            targets,
            multi_label=self.multi_label,
            weights=cast("Tensor | None", self.class_weights),
            smoothing=loss.label_smoothing,
            focus=loss.focus,
        )

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its learning rate, which changes with every step."""
        optimizer = create_optimizer(self.model, self.recipe)
        base = self.recipe.optimizer.lr
        scheduler = LambdaLR(optimizer, lambda step: learning_rate(step, self._segments) / base)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _penalised(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the penalty of the maps that gave them."""
        if not self.recipe.penalty.active or not isinstance(self.model, SoftCAM):
            logits: Tensor = self._run(self.model, inputs, self.model)
            return logits, logits.new_zeros(())
        factors = self.recipe.penalty.scales
        if not factors:
            evidence: Evidence = self._run(self.model, inputs, self.model.evidence)
            return evidence.logits, self.penalty(evidence.maps)
        scales: tuple[Evidence, ...] = self._run(self.model, inputs, self.model.scales)
        penalties = [factor * self.penalty(scale.maps) for factor, scale in zip(factors, scales, strict=True)]
        return torch.stack([scale.logits for scale in scales]).sum(0), torch.stack(penalties).sum()

    def _distance(self, logits: Tensor, teacher: Tensor) -> Tensor:
        temperature = self.recipe.loss.temperature
        return distillation_loss(logits, teacher, temperature=temperature, multi_label=self.multi_label)

    def _total_weight(self, targets: Tensor) -> Tensor | int:
        """Return what a mean loss over images of these targets was divided by."""
        weights = cast("Tensor | None", self.class_weights)
        return len(targets) if weights is None or self.multi_label else weights[targets].sum()

    def _run(self, model: nn.Module, inputs: Tensor, call: Callable[[Tensor], Any]) -> Any:
        """Return what `call`, a way to run `model`, gives for images or cached activations."""
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self._trunk is None or self.stage.trunk is None:
            return call(inputs)
        example = self._trunk.example.to(inputs.device)
        return run_from(model, self.stage.trunk, inputs.float(), example, call=call)

    def _log(self, *, size: int, **values: Tensor) -> None:
        for name, value in values.items():
            bar = name == "train_loss"
            self.log(name, value.detach(), on_step=False, on_epoch=True, batch_size=size, prog_bar=bar, sync_dist=True)


def _norms(model: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(module for module in model.modules() if is_batch_norm(module))


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe, fused where torch has that; weight decay spares biases and norms' weights.

    Args:
        model: Whose parameters are to move.
        recipe: Its `optimizer` is used.
    """
    settings = recipe.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [item for item in parameters if item.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [item for item in parameters if item.ndim <= 1], "weight_decay": 0.0},
    ]
    create: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    options: dict[str, Any] = {"lr": settings.lr}
    if settings.name == "sgd":
        create = torch.optim.SGD
        options |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
    if _allows_fused(recipe):
        try:
            return create(groups, fused=True, **options)
        except (RuntimeError, TypeError):  # by devices and versions that have no such kernel
            pass
    return create(groups, **options)


def _allows_fused(recipe: Recipe) -> bool:
    # A fused optimizer unscales gradients by itself, after the moment at which mixed precision would clip them, and
    # torch's fused SGD takes no weights that begin to move when others have a momentum.
    clips_scaled = recipe.optimizer.gradient_clip is not None and recipe.precision != "32-true"
    return not clips_scaled and (recipe.optimizer.name != "sgd" or len(recipe.stages) == 1)


def _create_auroc(task: Task) -> Metric:
    if task.num_classes == 1:
        return BinaryAUROC()
    if task.multi_label:
        return MultilabelAUROC(num_labels=task.num_classes)
    return MulticlassAUROC(num_classes=task.num_classes)
