"""One call of Lightning's trainer, set up so that it can be interrupted at any time and taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from softcam.errors import RunError
from softcam.training.callbacks import BestAndLast, EpochTable, LastStageStopping, WholeCheckpoints
from softcam.training.data import StagedDataModule
from softcam.training.module import Learner
from softcam.training.recipe import Recipe

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


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


def fit(learner: Learner, data: StagedDataModule, out: Path, *, data_digest: str, progress: bool = True) -> Fit:
    """Train to the end, from where an earlier call was interrupted.

    Args:
        learner: The model with its recipe.
        data: Loaders for each stage.
        out: Folder of the run: `checkpoints/`, `metrics.csv` and `tensorboard/` are written.
        data_digest: Of the training table.
        progress: Whether a progress bar is shown on stderr.

    Raises:
        RunError: If the loss is not finite, or no epoch had a finite validation metric.
        KeyboardInterrupt: If interrupted; the last whole epoch is kept.
    """
    recipe = learner.recipe
    table = EpochTable(out / "metrics.csv", recipe)
    keeper = BestAndLast(out / "checkpoints", recipe.early_stopping, data_digest=data_digest)
    if keeper.last.is_file():
        _peek(keeper, table)
    if not keeper.is_done:
        _run_trainer(learner, data, [table, keeper, *_optional_callbacks(recipe, progress=progress)], out)
    return _collect(keeper, table)


def choose_precision(recipe: Recipe) -> Precision:
    """Return the arithmetic of a run: a recipe's own, or by the hardware."""
    if recipe.precision != "auto":
        return recipe.precision
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _peek(keeper: BestAndLast, table: EpochTable) -> None:
    states = WholeCheckpoints().load_checkpoint(keeper.last)["callbacks"]
    keeper.load_state_dict(states[keeper.state_key])
    table.load_state_dict(states[table.state_key])


def _run_trainer(learner: Learner, data: StagedDataModule, callbacks: list[Callback], out: Path) -> None:
    recipe = learner.recipe
    last = out / "checkpoints" / "last.ckpt"
    shows_progress = any(isinstance(item, RichProgressBar) for item in callbacks)
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision=choose_precision(recipe),
        max_epochs=recipe.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name="tensorboard", version=""),
        plugins=[WholeCheckpoints()],
        gradient_clip_val=recipe.optimizer.gradient_clip,
        deterministic="warn" if recipe.deterministic else None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=shows_progress,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=int(len(recipe.stages) > 1),
        default_root_dir=out,
    )
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SIGTERMException:
        raise
    except SystemExit as error:  # what Lightning turns an interrupt into
        raise KeyboardInterrupt from error


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
