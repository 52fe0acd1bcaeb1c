"""One batch of images, which every method explains in turn; its values go to the method's scores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softcam.attribution import attribute
from softcam.attribution.passes import Passes, digest_tensors, sharing_passes
from softcam.errors import MissingExtraError, RunError, UnsupportedModelError
from softcam.evaluation.entries import Entry
from softcam.evaluation.images import ImageBatch
from softcam.evaluation.kept import Kept, Values
from softcam.evaluation.labels import Indices, Threshold
from softcam.evaluation.measures import MEASURES, Case
from softcam.evaluation.models import Contestants
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subjects import Forward, Subject, choose_subject, forward_of
from softcam.evaluation.truth import Findings
from softcam.export import compile_forward


class Scores:
    """Values of one entry of the comparison, filled batch by batch; NaN for images that it did not explain.

    Args:
        entry: The method, the model and the layer.
        wanted: (N,) which images it explains.
        metrics: Names of the metrics.
        settings: Points and fills.
    """

    def __init__(
        self, entry: Entry, wanted: NDArray[np.bool_], metrics: Iterable[str], settings: EvaluationSettings
    ) -> None:
        self.entry = entry
        self.wanted = wanted
        self.values = {name: np.full(len(wanted), np.nan) for name in metrics}
        size = len(wanted), len(settings.points)
        fills = {"deletion": settings.fills, "insertion": settings.insertion_fills}
        kinds = [(curve, fill) for curve, names in fills.items() for fill in names]
        self.curves = {kind: np.full(size, np.nan) for kind in kinds if "curves" in settings.measures}
        self.seconds = 0.0
        self.explained = 0
        self.reason = ""

    def add(self, measured: Values, places: Indices) -> None:
        """Take the values of a measure for images at some places."""
        for name, values in measured.items():
            kind, _, fill = name.partition("/")
            (self.curves[kind, fill] if fill else self.values[name])[places] = values.cpu().numpy()


class Engines:
    """What runs the forward passes on changed images.

    Args:
        networks: The models by name.
        engine: As in the settings.
    """

    def __init__(self, networks: Mapping[str, nn.Module], engine: str) -> None:
        self.networks = networks
        self.engine = engine
        self.compiled: dict[str, Forward] = {}

    def forward(self, name: str, images: Tensor) -> Forward:
        """Return a model's forward pass, compiled at the first call.

        Args:
            name: Of the model.
            images: (N, C, H, W) to compile it for.

        Raises:
            ExportError: If it cannot be compiled.
        """
        if name not in self.compiled:
            model = self.networks[name]
            self.compiled[name] = compile_forward(model, images) if self.engine == "openvino" else forward_of(model)
        return self.compiled[name]


class Round:
    """One batch of images, which every method explains in turn.

    Args:
        models: The models.
        engines: Their forward passes.
        batch: The images.
        settings: Measures and their numbers.
        findings: Where the findings are.
        labels: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.
    """

    def __init__(
        self,
        models: Contestants,
        engines: Engines,
        batch: ImageBatch,
        settings: EvaluationSettings,
        findings: Findings,
        labels: Tensor,
    ) -> None:
        self.models = models
        self.engines = engines
        self.batch = batch
        self.settings = settings
        self.findings = findings
        self.labels = labels
        self.subjects: dict[str, Subject] = {}
        self.passes: Passes = {}

    def explain(self, scores: Scores, places: Indices, kept: Kept) -> None:
        """Measure one entry on the batch; a method that is not defined for the model says so in its scores.

        Args:
            scores: Of the entry.
            places: (N,) where the batch's images are among all that are explained.
            kept: What was measured before.
        """
        wanted = torch.from_numpy(scores.wanted[places])
        if scores.reason or not wanted.any():
            return
        try:
            self._explain(scores, places, wanted, kept)
        except (UnsupportedModelError, MissingExtraError) as error:
            scores.reason = str(error)

    def _explain(self, scores: Scores, places: Indices, wanted: Tensor, kept: Kept) -> None:
        maps = _Maps(self, scores.entry, wanted)
        inputs = partial(self.digest, wanted, scores.entry)
        made = kept.get(f"{scores.entry.name} maps", inputs, maps.describe)
        usable = wanted.clone()
        usable[wanted] = made["finite"].bool()
        scores.seconds += float(made["seconds"])
        scores.explained += int(wanted.sum())
        if not usable.any():
            return
        for name in MEASURES:
            if name in self.settings.measures:
                measured = kept.get(f"{scores.entry.name} {name}", inputs, partial(self.measure, name, maps, usable))
                scores.add(measured, places[usable.numpy()])

    def measure(self, name: str, maps: _Maps, usable: Tensor) -> Values:
        """Return the values of one measure for the usable images; NaN where a changed image's map is not finite."""
        patch = self.settings.patch_side(self.models.preprocessing.size)
        subject = self.subject_of(maps.entry).take(usable)
        try:
            return MEASURES[name].run(Case(subject, maps.of(usable), maps.explain, patch, self.settings))
        except RunError:
            return self._measure_apart(name, maps, usable)

    def _measure_apart(self, name: str, maps: _Maps, usable: Tensor) -> Values:
        places = usable.nonzero()[:, 0].tolist()
        if len(places) == 1:
            return {
                metric: torch.full((1,), torch.nan, dtype=torch.float64)
                for metric in MEASURES[name].metrics(self.settings)
            }
        one = torch.eye(len(usable), dtype=torch.bool)
        parts = [self.measure(name, maps, one[place]) for place in places]
        return {metric: torch.cat([part[metric].cpu() for part in parts]) for metric in parts[0]}

    def digest(self, wanted: Tensor, entry: Entry) -> str:
        """Return a digest of the batch, of which of its images are wanted and of the model that an entry explains."""
        model = f"{self.models.fingerprints[entry.model]} {self.threshold(entry.model)}"
        return f"{model} {self.content} {wanted.tolist()}"

    def threshold(self, model: str) -> Threshold:
        """Return the probability from which a model's classes are reported and explained; None: the most probable."""
        return self.models.threshold(model, raw=True) if self.settings.explained_class == "reported" else None

    @cached_property
    def content(self) -> str:
        """Digest of images, labels and findings: the same for every method."""
        likeliest = self.labels.argmax(dim=1) if self.labels.ndim == 2 else self.labels
        truth = self.findings.of(self.batch.rows, self.labels, likeliest)
        return digest_tensors((self.batch.images, self.labels, *(() if truth is None else (truth,))))

    def subject_of(self, entry: Entry) -> Subject:
        """Return the model that an entry explains, with the classes that it decides for."""
        if entry.model not in self.subjects:
            images = self.models.to_device(self.batch.images)
            forward = self.engines.forward(entry.model, images)
            # What is left of an image of which nothing is left is where insertion begins.
            fills = self.settings.insertion_fills if "curves" in self.settings.measures else ()
            network, multi_label = self.models.networks[entry.model], self.models.multi_label
            at = self.threshold(entry.model)
            subject = choose_subject(network, images, fills, forward=forward, multi_label=multi_label, threshold=at)
            truth = self.findings.of(self.batch.rows, self.labels, subject.target)
            self.subjects[entry.model] = replace(subject, truth=truth)
        return self.subjects[entry.model]


class _Maps:
    """The maps of one entry for the wanted images of a round, made when they are first asked for."""

    def __init__(self, current: Round, entry: Entry, wanted: Tensor) -> None:
        self.round = current
        self.entry = entry
        self.wanted = wanted

    def describe(self) -> Values:
        """Return which maps are finite, (N,), and the seconds that they took."""
        # What is asked of the model besides is not the method's.
        self.round.subject_of(self.entry)
        started = time.perf_counter()
        maps = self.made
        seconds = time.perf_counter() - started
        finite = maps.flatten(1).isfinite().all(dim=1).cpu()
        return {"finite": finite.to(torch.uint8), "seconds": torch.tensor(seconds, dtype=torch.float64)}

    @cached_property
    def made(self) -> Tensor:
        """(N, h, w) of the wanted images."""
        subject = self.round.subject_of(self.entry).take(self.wanted)
        with sharing_passes(self.round.passes):
            return self._attribute(subject.images, subject.target, finite=False)

    def of(self, usable: Tensor) -> Tensor:
        """Return the maps of some of the wanted images."""
        return self.made[usable[self.wanted].to(self.made.device)]

    def explain(self, images: Tensor, target: Tensor) -> Tensor:
        """Return maps of other images or classes."""
        return self._attribute(images, target, finite=True)

    def _attribute(self, images: Tensor, target: Tensor, *, finite: bool) -> Tensor:
        entry = self.entry
        model = self.round.models.networks[entry.model]
        return attribute(entry.method.name, model, images, target, layer=entry.layer, finite=finite)
