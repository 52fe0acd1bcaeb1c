"""How long many images take on many machines: a formula, and a simulation that it is checked against.

The formula: workers take tasks of some images from a queue, one worker per core. The slowest of three resources bounds
the rate: the cores, the network of the machines, and the store that all of them read from and write to. To the time at
that rate come the start and, since the last tasks do not end together, a part of one task. A machine that fails loses
half a task of each of its workers and the time until it is back. The simulation plays the same events one by one, with
workers of unequal speed, a store that serves one task after the other, and failures at random times.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Args:
        images: How many, at least 1.
        core_seconds: Seconds that one image takes on one core, all stages together.
        bytes_in: Size of an image's file.
        bytes_out: Size of its evidence.
        task: Images in one task, at least 1.
    """

    images: int
    core_seconds: float
    bytes_in: float
    bytes_out: float
    task: int = 1000

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return -(-self.images // self.task)


@dataclass(frozen=True)
class Cluster:
    """Where it is done.

    Args:
        machines: How many, at least 1.
        cores: Of each; a worker runs on each core.
        network: Bytes per second of each machine.
        store: Bytes per second of the store, for all machines together.
        start: Seconds until the first image: machines, model, compiled graph.
        spread: Standard deviation of the logarithm of a worker's speed; 0 for all alike.
        failures: Of one machine per hour.
        repair: Seconds until a failed machine works again.
    """

    machines: int
    cores: int
    network: float
    store: float
    start: float = 60.0
    spread: float = 0.1
    failures: float = 0.0
    repair: float = 300.0

    @property
    def workers(self) -> int:
        """Workers of all machines."""
        return self.machines * self.cores


@dataclass(frozen=True)
class Forecast:
    """What the formula says.

    Args:
        per_second: Images per second once all workers run.
        seconds: From the start to the last image.
        bound: What bounds the rate: `cores`, `network` or `store`.
    """

    per_second: float
    seconds: float
    bound: str


def forecast(job: Job, cluster: Cluster) -> Forecast:
    """Return the rate, the time and what bounds them.

    Args:
        job: What is to be done.
        cluster: Where.
    """
    moved = job.bytes_in + job.bytes_out
    used = min(cluster.workers, job.tasks)
    task = job.task * job.core_seconds
    lost = cluster.failures / 3600 * (task / 2 + cluster.repair)
    rates = {
        "cores": used / job.core_seconds / (1 + lost),
        "network": min(cluster.machines, job.tasks) * cluster.network / moved,
        "store": cluster.store / moved,
    }
    bound = min(rates, key=lambda name: rates[name])
    # All workers are within one task of each other at the end; the last of W is W / (W + 1) of it behind, not a half.
    tail = task * (used / (used + 1) - 0.5) if bound == "cores" and job.tasks > used else 0.0
    return Forecast(rates[bound], cluster.start + job.images / rates[bound] + tail, bound)


def simulate(job: Job, cluster: Cluster, *, seed: int) -> float:
    """Return the seconds from the start to the last image, event by event.

    Each worker fetches one task ahead while it works on another. The store and the network of each machine serve one
    task after the other. When a machine fails, each of its workers loses what it was at; the task goes back to the
    queue.

    Args:
        job: What is to be done.
        cluster: Where.
        seed: Of speeds and failures.
    """
    generator = random.Random(seed)  # noqa: S311 - a simulation
    speeds = [math.exp(generator.gauss(0, cluster.spread)) for _ in range(cluster.workers)]
    mean = sum(speeds) / len(speeds)
    moved = job.bytes_in + job.bytes_out
    store_free, links = cluster.start, [cluster.start] * cluster.machines
    down = [_next_failure(cluster, cluster.start, generator) for _ in range(cluster.machines)]
    # When a worker is free, when it could begin to fetch, and which it is.
    free = [(cluster.start, cluster.start, worker) for worker in range(cluster.workers)]
    heapq.heapify(free)
    left, end = job.images, cluster.start
    while left > 0:
        now, asked, worker = heapq.heappop(free)
        machine = worker // cluster.cores
        size = min(job.task, left)
        store_free = max(store_free, asked) + size * moved / cluster.store
        links[machine] = max(links[machine], asked) + size * moved / cluster.network
        begun = max(now, store_free, links[machine])
        done = begun + size * job.core_seconds * mean / speeds[worker]
        while down[machine] + cluster.repair <= begun:
            down[machine] = _next_failure(cluster, down[machine] + cluster.repair, generator)
        if down[machine] < done:
            back = down[machine] + cluster.repair
            heapq.heappush(free, (back, back, worker))
            continue
        left -= size
        end = max(end, done)
        heapq.heappush(free, (done, begun, worker))
    return end


def _next_failure(cluster: Cluster, now: float, generator: random.Random) -> float:
    return now + generator.expovariate(cluster.failures / 3600) if cluster.failures else math.inf
