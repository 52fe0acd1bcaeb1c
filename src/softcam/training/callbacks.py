"""What happens after each epoch: the table of metrics, early stopping, the best and the last checkpoint."""

from __future__ import annotations

import csv
import io
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from softcam.errors import RunError
from softcam.files import atomic_path, write_atomic
from softcam.training.parts import EarlyStoppingRecipe
from softcam.training.recipe import Recipe

COLUMNS = (
    "epoch", "stage", "lr", "train_loss", "train_penalty", "val_loss", "val_accuracy", "val_auroc", "seconds",
)  # fmt: skip


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and that are read without running any code they carry."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Tensors and plain values.
            path: The final name.
            storage_options: Lightning's; there are none for a local file.
        """
        del storage_options
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                # torch closes its archive all the same, and the error of that hides what the disk or a signal has said.
                hidden = error.__context__
                raise hidden if isinstance(hidden, OSError | KeyboardInterrupt) else error from None

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:  # noqa: FBT001, FBT002 - Lightning's signature
        """Read a checkpoint.

        Args:
            path: Its name.
            map_location: As in `torch.load`.
            weights_only: Always true here, whatever Lightning passes.
        """
        del weights_only
        return torch.load(path, map_location=map_location, weights_only=True)


class EpochTable(Callback):
    """Writes one row per epoch to a CSV file; a run that is taken up again goes on with the same table.

    Args:
        path: The CSV file.
        recipe: Its stages are named in the table by their number, from 1.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.rows: list[dict[str, float]] = []
        self._path = path
        self._recipe = recipe
        self._columns = (*COLUMNS, "val_kappa") if recipe.data.ordinal else COLUMNS
        self._started = 0.0
        self._rate = math.nan

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._started = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Take note of the learning rate of this step."""
        del pl_module, batch, batch_idx
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row, with the learning rate of its last step."""
        del pl_module
        epoch = trainer.current_epoch
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        fixed = {
            "epoch": epoch + 1,
            "stage": self._recipe.stages.index(self._recipe.stage_at(epoch)) + 1,
            "lr": self._rate,
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        self.rows.append({name: (fixed | metrics).get(name, math.nan) for name in self._columns})
        if trainer.is_global_zero:
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows as plain values."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows up again."""
        self.rows = list(state_dict["rows"])

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self._path, text.getvalue())


class LastStageStopping(EarlyStopping):
    """Early stopping that lets all stages but the last run to their end.

    Args:
        recipe: Stages and the settings of early stopping.
        patience: Epochs without improvement that are accepted.
    """

    def __init__(self, recipe: Recipe, *, patience: int) -> None:
        settings = recipe.early_stopping
        super().__init__(settings.monitor, mode=settings.mode, patience=patience, check_on_train_epoch_end=True)
        self._first_epoch = recipe.epochs - recipe.stages[-1].epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epoch with the best one, in the last stage."""
        if trainer.current_epoch >= self._first_epoch:
            super().on_train_epoch_end(trainer, pl_module)


class BestAndLast(Checkpoint):
    """Keeps `best.ckpt` and `last.ckpt`.

    Args:
        folder: Where they are kept.
        settings: Which metric decides; equal values are told apart by the validation loss.
        data_digest: Of the training table; a checkpoint of other data is refused.
    """

    def __init__(self, folder: Path, settings: EarlyStoppingRecipe, *, data_digest: str) -> None:
        self.best = folder / "best.ckpt"
        self.last = folder / "last.ckpt"
        self.best_epoch: int | None = None
        self.is_done = False
        self._score = math.nan
        self._loss = math.inf
        self._settings = settings
        self._data_digest = data_digest

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoints of this epoch."""
        del pl_module
        score, loss = (float(trainer.callback_metrics[name]) for name in (self._settings.monitor, "val_loss"))
        self.is_done = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        # Every process takes part in writing, so that all have to be of one mind.
        if not trainer.strategy.broadcast(self._improves(score, loss)):
            trainer.save_checkpoint(self.last)
            return
        self._score, self._loss, self.best_epoch = score, loss, trainer.current_epoch + 1
        # The best comes first: an interruption between the two only means that the epoch is run again.
        trainer.save_checkpoint(self.best)
        if trainer.is_global_zero:
            with atomic_path(self.last) as temporary:
                shutil.copyfile(self.best, temporary)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "score": self._score,
            "loss": self._loss,
            "best_epoch": self.best_epoch,
            "is_done": self.is_done,
            "data_digest": self._data_digest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up again which epoch was the best.

        Raises:
            RunError: If the checkpoint was made from other data.
        """
        if state_dict["data_digest"] != self._data_digest:
            raise RunError(
                "Expected the data that this run began with, but its images or labels differ. Use another `out`."
            )
        self._score, self._loss = state_dict["score"], state_dict["loss"]
        self.best_epoch = state_dict["best_epoch"]
        self.is_done = state_dict["is_done"]

    def _improves(self, score: float, loss: float) -> bool:
        if math.isnan(score) or math.isnan(self._score):
            return not math.isnan(score)
        if score == self._score:  # few validation images tie often, above all at an AUROC of 1
            return loss < self._loss
        return score < self._score if self._settings.mode == "min" else score > self._score
