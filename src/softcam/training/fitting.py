"""One call of Lightning's trainer, set up so that it can be interrupted at any time and taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from softcam.errors import RunError
from softcam.training.callbacks import BestAndLast, EpochTable, LastStageStopping, WholeCheckpoints
from softcam.training.crew import Crew, find_environment, is_lost, lost_process
from softcam.training.data import StagedDataModule
from softcam.training.hardware import choose_precision
from softcam.training.module import Learner
from softcam.training.recipe import Recipe


@dataclass(frozen=True)
class Fit:
    """What came out of a fit.

    Args:
        weights: State of the model in its best epoch.
        row: The best epoch's row of the table of metrics.
        seconds: Training time of all epochs, also those before an interruption.
    """

    weights: dict[str, torch.Tensor]
    row: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Place:
    """Where a fit is computed, and where it leaves its files.

    Args:
        out: Folder of the run: `checkpoints/`, `metrics.csv` and `tensorboard/` are written.
        crew: The processes that take part.
        progress: Whether a progress bar is shown on stderr.
    """

    out: Path
    crew: Crew
    progress: bool = True


class StagedDDP(DDPStrategy):
    """Data-parallel training that averages the gradients of what the current stage trains, and of nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._wrapped: tuple[bool, ...] = ()

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        self._wrapped = _trained(model)
        return super()._setup_model(model)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Wrap the model anew where a stage has frozen or thawed a part of it, then take the step."""
        model = self.lightning_module
        if model is not None and _trained(model) != self._wrapped:
            self.model = self._setup_model(model)
        return super().training_step(*args, **kwargs)


def _trained(model: nn.Module) -> tuple[bool, ...]:
    return tuple(parameter.requires_grad for parameter in model.parameters())


def fit(learner: Learner, data: StagedDataModule, place: Place, *, data_digest: str) -> Fit:
    """Train to the end, from where an earlier call was interrupted.

    Args:
        learner: The model with its recipe.
        data: Loaders for each stage.
        place: Where.
        data_digest: Of the training table.

    Raises:
        RunError: If the loss is not finite, no epoch had a finite validation metric, or another process was lost.
        KeyboardInterrupt: If interrupted; the last whole epoch is kept.
    """
    recipe = learner.recipe
    table = EpochTable(place.out / "metrics.csv", recipe)
    keeper = BestAndLast(place.out / "checkpoints", recipe.early_stopping, data_digest=data_digest)
    if keeper.last.is_file():
        _peek(keeper, table)
    if not keeper.is_done:
        callbacks = [table, keeper, *_optional_callbacks(recipe, progress=place.progress and place.crew.is_first)]
        _run_trainer(learner, data, place, callbacks)
    return _collect(keeper, table)


def _peek(keeper: BestAndLast, table: EpochTable) -> None:
    states = WholeCheckpoints().load_checkpoint(keeper.last)["callbacks"]
    keeper.load_state_dict(states[keeper.state_key])
    table.load_state_dict(states[table.state_key])


def _run_trainer(learner: Learner, data: StagedDataModule, place: Place, callbacks: list[Callback]) -> None:
    last = place.out / "checkpoints" / "last.ckpt"
    trainer = _create_trainer(learner.recipe, place, callbacks)
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SIGTERMException:
        raise
    except SystemExit as error:  # what Lightning turns an interrupt into
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        if is_lost(error, place.crew):
            raise lost_process(place.crew.world) from error
        raise


def _create_trainer(recipe: Recipe, place: Place, callbacks: list[Callback]) -> Trainer:
    crew, environment = place.crew, find_environment()
    return Trainer(
        accelerator=crew.accelerator,
        devices=crew.local_world,
        num_nodes=crew.nodes,
        strategy=StagedDDP() if crew.world > 1 else "auto",
        precision=choose_precision(recipe, crew.hardware),
        accumulate_grad_batches=crew.hardware.accumulate_grad_batches,
        max_epochs=recipe.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(place.out, name="tensorboard", version=""),
        plugins=[WholeCheckpoints(), *(() if environment is None else (environment,))],
        gradient_clip_val=recipe.optimizer.gradient_clip,
        deterministic="warn" if recipe.deterministic else None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=any(isinstance(item, RichProgressBar) for item in callbacks),
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=int(len(recipe.stages) > 1),
        use_distributed_sampler=False,  # the loaders give each process its own batches
        default_root_dir=place.out,
    )


def _optional_callbacks(recipe: Recipe, *, progress: bool) -> list[Callback]:
    callbacks: list[Callback] = []
    if recipe.early_stopping.patience is not None:
        callbacks.append(LastStageStopping(recipe, patience=recipe.early_stopping.patience))
    if recipe.averaging > 0:
        callbacks.append(EMAWeightAveraging(decay=recipe.averaging))
    if progress:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    return callbacks


def _collect(keeper: BestAndLast, table: EpochTable) -> Fit:
    if keeper.best_epoch is None:
        raise RunError("Expected a finite validation metric in some epoch, but there was none. Look at the val split.")
    state: dict[str, Any] = WholeCheckpoints().load_checkpoint(keeper.best)["state_dict"]
    weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    return Fit(weights, table.rows[keeper.best_epoch - 1], sum(row["seconds"] for row in table.rows))
