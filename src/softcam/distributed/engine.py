"""Explain many images on a Ray cluster: every shard of the plan becomes one file, however often its worker dies."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softcam.distributed import cluster
from softcam.distributed.finish import find_finished, finish, forget_state
from softcam.distributed.plan import PLAN, STATE, Listed, Plan, choose_shard_rows, write_plan
from softcam.distributed.settings import RaySettings
from softcam.distributed.shards import Layout, list_done, remove_leftovers
from softcam.distributed.worker import Job, Open, ShardWorker
from softcam.errors import IdentityError, RunError
from softcam.files import atomic_path, write_atomic
from softcam.predict import Predictor
from softcam.runs import check_same_run, hold

Progress = Callable[[str, int, int], None]

_IN_FLIGHT = 2  # shards that a worker is given at a time: the next one waits there while it works
_MOST_BLOCKS = 10_000
_IDLE_ROUNDS = 6


@dataclass(frozen=True)
class RaySummary:
    """What a distributed run came to.

    Args:
        done: Images explained.
        failed: Images that could not be; `failures.csv` says why.
        skipped: How many of both were taken over from an earlier, identical run.
        repeated: Shards that were begun again because their worker had died.
        seconds: Wall time of this call.
    """

    done: int
    failed: int
    skipped: int
    repeated: int
    seconds: float


@dataclass(frozen=True)
class _Run:
    model: Path
    out: Path
    open_places: Open
    settings: RaySettings
    visible: tuple[str, ...]


def explain(
    model: str | Path,
    inputs: Iterable[Listed],
    out: str | Path,
    *,
    open_places: Open,
    settings: RaySettings | None = None,
    visible: Iterable[str | Path] = (),
    progress: Progress | None = None,
) -> RaySummary:
    """Predict images on every worker of a cluster and write `predictions.parquet/`, `failures.csv` and `run.json`.

    One row per input, in input order over the files of the folder sorted by name; the same rows as `explain` of
    `softcam.reporting` gives. A file is whole or not there, so a call that was killed continues where it stopped when
    it is repeated, on a cluster of any size; a finished one returns at once.

    Args:
        model: A bundle's folder; workers load it from there.
        inputs: What to explain, taken once and lazily.
        out: Folder of the results. Nothing is written elsewhere.
        open_places: Importable function that turns places into inputs of a `Predictor`, in order.
        settings: How the run is spread over machines.
        visible: Paths that every worker must see, such as the folders of the inputs.
        progress: Called with a stage, the number of inputs done and their total.

    Raises:
        IdentityError: If the maps of an image do not average to its logits, or hold NaN.
        MissingExtraError: If Ray is not installed.
        RunError: If there is no input, `out` holds another run, a node does not see the files, or no worker can work.
        ValueError: If more workers are asked for than this machine has room for.
    """
    started = time.monotonic()
    folder = Path(out).absolute()
    seen = tuple(str(Path(path).absolute()) for path in visible if Path(path).exists())
    run = _Run(Path(model).absolute(), folder, open_places, settings or RaySettings(), seen)
    with hold(folder):
        layout, identity = _describe(run)
        counts = _complete(run, layout, identity, inputs, progress or _ignore)
    return RaySummary(*counts, seconds=time.monotonic() - started)


def _describe(run: _Run) -> tuple[Layout, dict[str, Any]]:
    """Return what all results have in common, and all but the inputs that decides them."""
    options = {**run.settings.predictor, "device": "cpu"}
    predictor = Predictor(run.model, **options)
    (sample,) = predictor([np.zeros((32, 32, 3), np.uint8)])
    height, width = sample.maps.shape[1:]
    layout = Layout(
        predictor.classes, (height, width), run.settings.evidence, predictor.fingerprint,
        temperature=predictor.uncertainty.temperature, sets=predictor.uncertainty.has_sets,
        warnings=predictor.checker.is_active, members=predictor.members > 1,
    )  # fmt: skip
    arguments = {"engine": "ray", "evidence": run.settings.evidence, **predictor.checker.identity}
    return layout, {"model": predictor.identity, "arguments": arguments}


def _complete(
    run: _Run, layout: Layout, identity: dict[str, Any], inputs: Iterable[Listed], progress: Progress
) -> tuple[int, int, int, int]:
    with atomic_path(run.out / PLAN) as temporary:
        count, digest = write_plan(temporary, inputs)
        if count == 0:
            raise RunError("Expected `inputs` to name at least one image, but got none. Hidden files are not counted.")
        identity = {**identity, "inputs": {"count": count, "digest": digest}}
        finished = find_finished(run.out, identity)
    if finished is not None:
        forget_state(run.out)
        return finished["done"], finished["failed"], count, 0
    with cluster.connect(run.settings) as ray:
        plan, token = _load_state(run, layout, identity, ray)
        visible = run.visible
        options = run.settings.predictor
        job = Job(
            *(str(run.model), str(run.out), plan, layout, options, run.settings.threads, token, visible),
            open_places=run.open_places,
        )
        remove_leftovers(run.out)
        skipped, repeated = _work(ray, job, run.settings, progress)
    counts = finish(run.out, plan, identity, repeated=repeated)
    return counts["done"], counts["failed"], skipped, repeated


def _load_state(run: _Run, layout: Layout, identity: dict[str, Any], ray: Any) -> tuple[Plan, str]:
    """Return the plan and the run's token: those of the run that is continued, or new ones."""
    count, path = identity["inputs"]["count"], run.out / STATE
    nodes = cluster.list_nodes(ray)
    if len(nodes) == 1 and run.settings.address is None:
        cluster.check_workers(nodes, run.settings)
    if path.exists():
        state = json.loads(path.read_bytes())
        check_same_run(state["identity"], identity, run.out)
    else:
        pool = cluster.choose_pool(nodes, run.settings)
        batch = int(run.settings.predictor.get("batch_size", 8))
        rows = choose_shard_rows(count, workers=pool.most, row_bytes=layout.row_bytes, batch_size=batch)
        state = {"identity": identity, "shard_rows": rows, "token": secrets.token_hex(8)}
        write_atomic(path, json.dumps(state) + "\n")
    return Plan(run.out / PLAN, count, state["shard_rows"]), state["token"]


def _work(ray: Any, job: Job, settings: RaySettings, progress: Progress) -> tuple[int, int]:
    """Do what is left of a plan, in rounds; return how many inputs were there before, and shards begun again."""
    plan, out = job.plan, Path(job.out)
    repeated = idle = 0
    skipped = done = sum(map(plan.count_rows, list_done(out)))
    progress("explain", done, plan.count)
    while pending := sorted(set(range(plan.shards)) - list_done(out)):
        if idle == _IDLE_ROUNDS:
            raise RunError(
                f"Expected {len(pending)} more shards, but workers died {idle} times in a row without finishing one. "
                "Look for lack of memory; the same command continues."
            )
        finished = 0
        with closing(_run_round(ray, job, settings, pending)) as lines:
            for line in lines:
                finished += 1
                repeated += line["earlier"] > 0
                done += line["rows"]
                progress("explain", min(done, plan.count), plan.count)
        idle = 0 if finished else idle + 1
    return skipped, repeated


def _run_round(ray: Any, job: Job, settings: RaySettings, pending: list[int]) -> Generator[dict[str, Any], None, None]:
    """Yield a line for each shard that is done; those of workers that died are not among them."""
    pool = cluster.choose_pool(cluster.list_nodes(ray), settings)
    with cluster.quiet_data(ray), cluster.Watch(ray, pool) as watch:
        items = [{"shard": shard} for shard in pending]
        # Blocks in memory: no task of Ray has to read them, so none can be starved by workers that hold every CPU.
        shards = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS))
        lines = shards.map_batches(
            ShardWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.least, max_size=pool.most, max_tasks_in_flight_per_actor=_IN_FLIGHT
            ),
            **_drop_lost_tasks(shards),
        )
        try:
            for line in lines.iter_rows():
                watch.touch()
                _check(line)
                yield line
        except ray.exceptions.RayError as error:
            raise RunError(_describe_loss(error)) from error


def _drop_lost_tasks(shards: Any) -> dict[str, Any]:
    """Return what makes Ray give up the tasks of a dead worker, where it can be told.

    A task that is tried again waits for its own worker to come back, for ever if there is no room left for it; a task
    that is given up is part of the next round.
    """
    code = type(shards).map_batches.__code__
    return {"max_task_retries": 0, "max_restarts": -1} if "ray_remote_args" in code.co_varnames else {}


def _check(line: dict[str, Any]) -> None:
    if line["fault"]:
        raise (IdentityError if line["kind"] == IdentityError.__name__ else RunError)(line["fault"])


def _describe_loss(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "No module named" in text:
        return (
            "Expected softcam with the extra `ray` on every node, but a worker could not import it. Install it there."
        )
    return f"Expected the workers to go on, but Ray gave up: {text[-300:]} The same command continues."


def _ignore(_stage: str, _done: int, _total: int) -> None:
    """Report nothing."""
