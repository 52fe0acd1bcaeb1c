"""Learning rate over a run: in each stage a linear warm-up, then a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from softcam.training.recipe import Recipe


@dataclass(frozen=True)
class Segment:
    """The learning rate of one stage.

    Args:
        steps: Optimisation steps, >= 1.
        peak: Learning rate after the warm-up.
        floor: Learning rate that the cosine ends at; a peak below it is kept throughout.
        warmup: Steps of the warm-up, >= 0, fewer than `steps`.
        span: Step at which the cosine is at its end, above `warmup`; None for `steps`.
        stride: Steps for which the cosine stays where it is, >= 1.
        least: Learning rate below which the cosine is cut off.
    """

    steps: int
    peak: float
    floor: float
    warmup: int
    span: int | None = None
    stride: int = 1
    least: float = 0.0

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0; after the end, that of the last step.

        Example:
            >>> [round(Segment(4, 1.0, 0.0, 2).rate(step), 2) for step in range(4)]
            [0.5, 1.0, 1.0, 0.5]
        """
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        length = (self.steps if self.span is None else self.span) - self.warmup
        done = min(step, self.steps) // self.stride * self.stride - self.warmup
        share = min(max(done, 0), length) / length
        floor = min(self.floor, self.peak)
        rate = floor + (self.peak - floor) * (1 + math.cos(math.pi * share)) / 2
        return max(rate, min(self.least, self.peak))


def plan_segments(recipe: Recipe, steps_per_epoch: int) -> tuple[Segment, ...]:
    """Return the learning rate of each stage of a recipe.

    Args:
        recipe: Stages, optimizer and schedule.
        steps_per_epoch: Optimisation steps of an epoch, >= 1.
    """
    schedule = recipe.schedule
    return tuple(
        Segment(
            steps=stage.epochs * steps_per_epoch,
            peak=recipe.optimizer.lr if stage.lr is None else stage.lr,
            floor=schedule.min_lr,
            warmup=min(round(schedule.warmup_epochs * steps_per_epoch), stage.epochs * steps_per_epoch - 1),
            span=None if schedule.span is None else schedule.span * steps_per_epoch,
            stride=steps_per_epoch if schedule.per_epoch else 1,
            least=schedule.floor,
        )
        for stage in recipe.stages
    )


def learning_rate(step: int, segments: Iterable[Segment]) -> float:
    """Return the learning rate of `step`, counted from 0 over all stages.

    Args:
        step: Optimisation step; from the end of the last segment on, its last value holds.
        segments: One per stage, at least one.
    """
    rate = 0.0
    for segment in segments:
        rate = segment.rate(step)
        if step < segment.steps:
            break
        step -= segment.steps
    return rate
