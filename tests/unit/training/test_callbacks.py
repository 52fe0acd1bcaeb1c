from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch

from softcam.errors import RunError
from softcam.training import Recipe
from softcam.training.callbacks import BestAndLast, EpochTable, LastStageStopping, WholeCheckpoints
from softcam.training.parts import EarlyStoppingRecipe

RECIPE = Recipe.from_dict(
    {
        "name": "r",
        "early_stopping": {"patience": 1},
        "stages": [{"epochs": 2, "trunk": "a"}, {"epochs": 3}],
    }
)


class Trainer(SimpleNamespace):
    """As much of a trainer as a callback asks for."""

    def __init__(self, epoch: int = 0, **metrics: float) -> None:
        tensors = {name: torch.tensor(value) for name, value in metrics.items()}
        optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
        super().__init__(current_epoch=epoch, callback_metrics=tensors, optimizers=[optimizer], saved=[])
        self.should_stop, self.max_epochs, self.is_global_zero = False, 5, True
        self.strategy = SimpleNamespace(broadcast=lambda value: value)

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(path.name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"epoch {self.current_epoch}", encoding="utf-8")


def run_epoch(table: EpochTable, trainer: Trainer) -> None:
    table.on_train_epoch_start(trainer, None)
    table.on_train_batch_start(trainer, None, None, 0)
    table.on_train_epoch_end(trainer, None)


def test_a_row_per_epoch(tmp_path: Path) -> None:
    table = EpochTable(tmp_path / "metrics.csv", RECIPE)
    run_epoch(table, Trainer(1, val_auroc=0.75, train_loss=0.5))
    run_epoch(table, Trainer(2, val_auroc=1.0))
    header, first, second = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert header == "epoch,stage,lr,train_loss,train_penalty,val_loss,val_accuracy,val_auroc,seconds"
    assert first.startswith("2,1,0.5,0.5,nan,nan,nan,0.75,")
    assert second.startswith("3,2,0.5,nan,nan,nan,nan,1.0,")


def test_the_table_goes_on_after_an_interruption(tmp_path: Path) -> None:
    first = EpochTable(tmp_path / "a.csv", RECIPE)
    run_epoch(first, Trainer(0, val_auroc=0.5))
    second = EpochTable(tmp_path / "b.csv", RECIPE)
    second.load_state_dict(first.state_dict())
    run_epoch(second, Trainer(1, val_auroc=0.75))
    assert [row["val_auroc"] for row in second.rows] == [0.5, 0.75]
    assert len((tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()) == 3


def keeper(folder: Path, monitor: Any = "val_auroc", digest: str = "d") -> BestAndLast:
    return BestAndLast(folder / "checkpoints", EarlyStoppingRecipe(monitor), data_digest=digest)


@pytest.mark.parametrize(
    ("monitor", "scores", "best"),
    [
        ("val_auroc", [0.5, 0.9, 0.7], 2),
        ("val_auroc", [math.nan, 0.5, math.nan], 2),
        ("val_accuracy", [0.9, 0.5, 0.6], 1),
        ("val_loss", [0.9, 0.5, 0.6], 2),
    ],
)
def test_the_best_epoch_is_kept_beside_the_last(tmp_path: Path, monitor: str, scores: list[float], best: int) -> None:
    checkpoints = keeper(tmp_path, monitor)
    for epoch, score in enumerate(scores):
        checkpoints.on_train_epoch_end(Trainer(epoch, **{"val_loss": 1.0, monitor: score}), None)
    assert checkpoints.best_epoch == best
    assert checkpoints.best.read_text(encoding="utf-8") == f"epoch {best - 1}"
    assert checkpoints.last.read_text(encoding="utf-8") == "epoch 2"


def test_equal_scores_are_told_apart_by_the_loss(tmp_path: Path) -> None:
    checkpoints = keeper(tmp_path)
    for epoch, loss in enumerate([0.5, 0.3, 0.4]):
        checkpoints.on_train_epoch_end(Trainer(epoch, val_auroc=1.0, val_loss=loss), None)
    assert checkpoints.best_epoch == 2


def test_no_epoch_is_best_without_a_finite_score(tmp_path: Path) -> None:
    checkpoints = keeper(tmp_path)
    checkpoints.on_train_epoch_end(Trainer(val_auroc=math.nan, val_loss=1.0), None)
    assert checkpoints.best_epoch is None
    assert not checkpoints.best.exists()


def test_what_was_best_survives_an_interruption(tmp_path: Path) -> None:
    first = keeper(tmp_path)
    first.on_train_epoch_end(Trainer(0, val_auroc=0.9, val_loss=1.0), None)
    second = keeper(tmp_path)
    second.load_state_dict(first.state_dict())
    second.on_train_epoch_end(Trainer(1, val_auroc=0.8, val_loss=1.0), None)
    assert second.best_epoch == 1
    second.on_train_epoch_end(Trainer(2, val_auroc=0.9, val_loss=0.9), None)
    assert second.best_epoch == 3


@pytest.mark.parametrize(("epoch", "stops", "done"), [(0, False, False), (0, True, True), (4, False, True)])
def test_the_end_is_remembered(tmp_path: Path, epoch: int, stops: bool, done: bool) -> None:
    checkpoints, again = keeper(tmp_path), keeper(tmp_path)
    trainer = Trainer(epoch, val_auroc=0.9, val_loss=1.0)
    trainer.should_stop = stops
    checkpoints.on_train_epoch_end(trainer, None)
    again.load_state_dict(checkpoints.state_dict())
    assert again.is_done is done


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="images or labels differ"):
        keeper(tmp_path, digest="other").load_state_dict(keeper(tmp_path).state_dict())


def test_only_the_last_stage_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    monkeypatch.setattr(LastStageStopping, "_run_early_stopping_check", lambda _, t: checked.append(t.current_epoch))
    stopping = LastStageStopping(RECIPE, patience=1)
    for epoch in range(4):
        trainer = Trainer(epoch, val_auroc=0.5)
        trainer.state, trainer.sanity_checking = SimpleNamespace(fn="fit"), False
        stopping.on_train_epoch_end(trainer, None)
    assert checked == [2, 3]


def test_checkpoints_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    store = WholeCheckpoints()
    store.save_checkpoint({"weights": torch.ones(2), "epoch": 3}, path)
    assert store.load_checkpoint(path)["weights"].tolist() == [1.0, 1.0]
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        store.save_checkpoint({"bad": lambda: None}, path)
    assert store.load_checkpoint(path)["epoch"] == 3
    assert [item.name for item in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("event", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("at", [1, 3])
def test_what_interrupts_a_checkpoint_is_what_is_raised(
    event: BaseException, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = Path.open

    class Interrupted:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def write(self, data: bytes) -> int:
            nonlocal written
            written += 1
            if written == at:
                raise event
            return self.stream.write(data)

    monkeypatch.setattr(Path, "open", lambda path, mode: Interrupted(real(path, mode)))
    with pytest.raises(type(event)):
        WholeCheckpoints().save_checkpoint({"weights": torch.zeros(50_000)}, tmp_path / "a.ckpt")
    assert written >= at
    assert list(tmp_path.iterdir()) == []


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"path": Path("x")}, tmp_path / "bad.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        WholeCheckpoints().load_checkpoint(tmp_path / "bad.ckpt", weights_only=False)
