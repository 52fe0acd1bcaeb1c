"""One worker: it loads the model by its path, and turns shards of the plan into files of results."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from softcam._version import __version__
from softcam.distributed.attempts import FOLDER, Attempts, is_careful
from softcam.distributed.plan import STATE, Listed, Plan
from softcam.distributed.shards import Layout, mark_frame, name_shard, write_shard
from softcam.errors import RunError, SoftCAMError
from softcam.predict import Prediction, Predictor

Open = Callable[[Iterable[str]], Sequence[Any]]

_FATAL = "ended its worker twice and was left out"


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Args:
        model: The bundle's folder.
        out: Folder of the results.
        plan: The inputs.
        layout: What all results have in common.
        predictor: Further arguments of the `Predictor`.
        threads: Threads of the model.
        token: What the driver wrote into the run's record, to know a folder that only has the same name.
        visible: Further paths that a worker must see.
        open_places: Opens inputs by their places.
        version: The driver's softcam.
    """

    model: str
    out: str
    plan: Plan
    layout: Layout
    predictor: Mapping[str, Any]
    threads: int
    token: str
    visible: tuple[str, ...]
    open_places: Open
    version: str = __version__


class ShardWorker:
    """An actor: called with numbers of shards, it returns one line about each.

    Nothing is raised: what goes wrong has to reach the user of another machine as one sentence.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._predictor: Predictor | None = None
        # The model shares its machine with other workers: its threads must not.
        torch.set_num_threads(job.threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Work on shards and say what came of each.

        Args:
            batch: `shard`: their numbers.

        Returns:
            `shard`, `rows`, `earlier` (attempts that came to nothing), `pid`; `fault` and `kind`, empty if all is well.
        """
        lines = [self._try(int(shard)) for shard in batch["shard"]]
        return {name: [line[name] for line in lines] for name in lines[0]}

    def _try(self, shard: int) -> dict[str, Any]:
        line = {"shard": shard, "rows": 0, "earlier": 0, "pid": os.getpid(), "fault": "", "kind": ""}
        try:
            rows, earlier = self._work(shard)
        except OSError as error:
            return line | {"fault": self._explain(error), "kind": "RunError"}
        except Exception as error:  # noqa: BLE001 - from here the only way to the user
            text = str(error) if isinstance(error, SoftCAMError) else f"{type(error).__name__}: {error}"
            return line | {"fault": f"{text} (node {_node()})", "kind": type(error).__name__}
        return line | {"rows": rows, "earlier": earlier}

    def _work(self, shard: int) -> tuple[int, int]:
        out = Path(self._job.out)
        if self._predictor is None:
            self._check_node()
            self._predictor = self._load()
        path = name_shard(out, shard)
        if path.exists():
            return pq.read_metadata(path).num_rows, 0
        attempts = Attempts(out / FOLDER / f"{shard:06d}")
        earlier = attempts.begin()
        items = self._job.plan.read(shard)
        rows = self._predict_one_by_one(items, attempts) if is_careful(earlier) else self._predict(items)
        write_shard(path, rows, self._job.layout)
        return len(rows), earlier

    def _predict(self, items: Sequence[Listed]) -> list[Prediction]:
        assert self._predictor is not None  # noqa: S101 - `_work` loads it first
        sources = self._job.open_places([item.place for item in items if not item.refusal])
        predictions = self._predictor(sources)
        return [
            self._refuse(item, item.refusal) if item.refusal else mark_frame(next(predictions), item.frame)
            for item in items
        ]

    def _predict_one_by_one(self, items: Sequence[Listed], attempts: Attempts) -> list[Prediction]:
        fatal = attempts.list_fatal()
        rows: list[Prediction] = []
        for index, item in enumerate(items):
            if index in fatal:
                rows.append(self._refuse(item, _FATAL))
                continue
            attempts.begin_row(index)
            rows += self._predict([item])
        return rows

    def _refuse(self, item: Listed, reason: str) -> Prediction:
        return Prediction(item.id, "failed", self._job.layout.classes, reason)

    def _load(self) -> Predictor:
        predictor = Predictor(self._job.model, **self._job.predictor)
        layout, uncertainty = self._job.layout, predictor.uncertainty
        found = (predictor.fingerprint, uncertainty.temperature, uncertainty.has_sets, predictor.checker.is_active)
        if found != (layout.fingerprint, layout.temperature, layout.sets, layout.warnings):
            raise RunError("Expected every node to see the same model, but its folder holds another one here.")
        # One pass before the first image, so that a model that cannot run is told apart from an image that cannot.
        next(predictor([np.zeros((32, 32, 3), np.uint8)]))
        return predictor

    def _check_node(self) -> None:
        job = self._job
        if job.version != __version__:
            raise RunError(f"Expected softcam {job.version} on every node, but got {__version__}.")
        missing = [path for path in (job.model, job.out, *job.visible) if not Path(path).exists()]
        if missing:
            raise RunError(f"Expected every node to see {missing[0]}, but nothing is there. {_SHARE}")
        state = Path(job.out) / STATE
        if not state.exists() or json.loads(state.read_bytes()).get("token") != job.token:
            raise RunError(f"Expected every node to see the same {job.out}, but another folder is there. {_SHARE}")

    def _explain(self, error: OSError) -> str:
        reason = (error.strerror or type(error).__name__).lower()
        advice = "Make room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Mend that"
        return (
            f"Expected to write results to {self._job.out}, but got: {reason} (node {_node()}). "
            f"{advice}; the same command continues."
        )


_SHARE = "Put model, inputs and results on a file system that all nodes have under the same path."


def _node() -> str:
    return socket.gethostname()
