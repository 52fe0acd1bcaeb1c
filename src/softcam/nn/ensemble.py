"""Several SoftCAM models as one: its logits and maps are the means of theirs, so that the maps still are the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from softcam.nn.evidence import Evidence, cell_overlap
from softcam.nn.features import as_parts
from softcam.nn.heads.base import EvidenceHead
from softcam.nn.heads.several import SeveralEvidence
from softcam.nn.model import SoftCAM
from softcam.nn.report import ConversionReport


class Ensemble(SoftCAM):
    """The mean of several SoftCAM models of the same task: one SoftCAM model, whose maps average to its logits.

    Maps of different grids are brought to the finest by area: a cell gets the mean of what it covers, so that the mean
    of a map, and what any cell of a coarser one adds to the logit, stay what they were.

    Args:
        models: At least two, on images of the same size; their weights are shared, not copied.

    Raises:
        ValueError: If there are fewer than two models, or they differ in classes or in the dimensions of their images.

    Example:
        >>> from softcam.backbones import create_black_box
        >>> from softcam.nn import convert
        >>> networks = [create_black_box("timm:test_resnet", num_classes=3).eval() for _ in range(2)]
        >>> evidence = Ensemble([convert(network) for network in networks]).evidence(torch.rand(1, 3, 160, 160))
        >>> bool(evidence.sum_error() < 1e-5)
        True
    """

    def __init__(self, models: Sequence[SoftCAM]) -> None:
        _check_members(models)
        features = MemberFeatures([model.features for model in models])
        head = MeanEvidence([model.head for model in models])
        report = _describe([model.conversion for model in models])
        super().__init__(cast("Any", features), cast("Any", head), report, multi_label=models[0].multi_label)
        self._reports = tuple(model.conversion for model in models)

    @property
    def members(self) -> tuple[SoftCAM, ...]:
        """The models, with the weights of the ensemble."""
        features, head = cast("MemberFeatures", self.features), cast("MeanEvidence", self.head)
        parts: Any = zip(features.members, head.members, self._reports, strict=True)
        found = tuple(SoftCAM(*part, multi_label=self.multi_label) for part in parts)
        for member in found:
            member.training = self.training
        return found

    def scales(self, images: Tensor) -> tuple[Evidence, ...]:
        """Return the evidence of each member on its own grid; their logits average to the ensemble's.

        Args:
            images: (N, C, *size).
        """
        return tuple(member.evidence(images) for member in self.members)


class MemberFeatures(nn.Module):
    """The features of several models, one after the other.

    Args:
        members: Their extractors.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def network(self) -> nn.Module:
        """The network of the first of them, which tells what images they take."""
        return cast("nn.Module", self.members[0].network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all features (N, D, *grid) of images (N, C, *size)."""
        return tuple(part for member in self.members for part in as_parts(member(images)))


class MeanEvidence(nn.Module):
    """The mean of several class evidence layers, each on features of its own.

    Args:
        members: The layers.
    """

    kind = "mean"

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._widths = [count_parts(member) for member in members]

    @property
    def classifier(self) -> nn.ModuleList:
        """The 1x1 convolutions."""
        return nn.ModuleList([cast("nn.Module", member.classifier) for member in self.members])

    @property
    def channels(self) -> int:
        """Channels of all features together."""
        return sum(int(cast("Any", member).channels) for member in self.members)

    @property
    def num_classes(self) -> int:
        """K, number of classes."""
        return int(cast("Any", self.members[0]).num_classes)

    @property
    def dropout(self) -> float:
        """Probability of dropping a feature channel in training: the largest of the members'."""
        return max(float(cast("Any", member).dropout) for member in self.members)

    def reset(self, num_classes: int) -> None:
        """Put new, untrained classifiers for `num_classes` classes in place."""
        for member in self.members:
            cast("Any", member).reset(num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (N, K) of the features."""
        return torch.stack([member(part) for member, part in self._pairs(features)]).mean(0)

    def evidence(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, *grid) on the finest grid."""
        found = average([Evidence(*member.evidence(part)) for member, part in self._pairs(features)])
        return found.logits, found.maps

    def _pairs(self, features: Sequence[Tensor]) -> list[tuple[Any, Any]]:
        pairs, start = list[tuple[Any, Any]](), 0
        for member, width in zip(self.members, self._widths, strict=True):
            pairs.append((member, for_head(member, features[start : start + width])))
            start += width
        return pairs


def for_head(head: nn.Module, parts: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Return features as a class evidence layer takes them: one, or a tuple."""
    return parts[0] if isinstance(head, EvidenceHead) else tuple(parts)


def count_parts(head: nn.Module) -> int:
    """Return how many features a class evidence layer takes."""
    return len(head.heads) if isinstance(head, SeveralEvidence) else 1


def align(parts: Sequence[Evidence]) -> list[Evidence]:
    """Return the evidence of several models on one grid, the finest along each dimension; the means stay the logits.

    Args:
        parts: Of the same images and classes.
    """
    grid = tuple(max(sizes) for sizes in zip(*(part.grid for part in parts), strict=True))
    return [replace(part, maps=resample(part.maps, grid)) for part in parts]


def average(parts: Sequence[Evidence]) -> Evidence:
    """Return the mean of the evidence of several models.

    Args:
        parts: Of the same images and classes.
    """
    logits = torch.stack([part.logits for part in parts]).mean(0)
    return Evidence(logits, torch.stack([part.maps for part in align(parts)]).mean(0), parts[0].multi_label)


def resample(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Return maps on another grid, each cell the mean of what it covers; the mean of a map stays what it was.

    Args:
        maps: (N, K, *old grid).
        grid: The new number of cells along each dimension.

    Example:
        >>> resample(torch.tensor([[[3.0, 6.0]]]), (3,))
        tensor([[[3.0000, 4.5000, 6.0000]]])
    """
    for dim, cells in enumerate(grid, start=2):
        if maps.shape[dim] != cells:
            shares = cell_overlap(cells, maps.shape[dim]).to(maps)
            maps = (maps.movedim(dim, -1) @ shares.T).movedim(-1, dim)
    return maps


def _check_members(models: Sequence[SoftCAM]) -> None:
    if len(models) < 2 or not all(isinstance(model, SoftCAM) for model in models):
        raise ValueError(f"Expected at least two SoftCAM models, but got {len(models)}. Convert black boxes first.")
    if not all(isinstance(model.head, EvidenceHead | SeveralEvidence) for model in models):
        raise ValueError("Expected models as they were converted, but got an ensemble or an augmented one among them.")
    for name, read in _ALIKE.items():
        found = [read(model) for model in models]
        if any(value != found[0] for value in found):
            raise ValueError(f"Expected models of the same {name}, but got {found}.")


_ALIKE: dict[str, Any] = {
    "number of classes": lambda model: model.num_classes,
    "kind of classes (`multi_label`)": lambda model: model.multi_label,
    "dimensions of images": lambda model: len(model.conversion.input_size),
}


def _describe(reports: Sequence[ConversionReport]) -> ConversionReport:
    """Return what is true of all members, or of the one of which it says most."""
    grid = tuple(max(sizes) for sizes in zip(*(report.grid for report in reports), strict=True))
    errors = [report.error for report in reports]
    bounds = [report.theoretical_receptive_field for report in reports]
    return replace(
        reports[0],
        head=MeanEvidence.kind,
        exact=all(report.exact for report in reports),
        error=None if None in errors else max(error for error in errors if error is not None),
        channels=sum(report.channels for report in reports),
        grid=grid,
        map_stride=tuple(min(sizes) for sizes in zip(*(report.map_stride for report in reports), strict=True)),
        receptive_field=tuple(
            max(sizes) for sizes in zip(*(report.receptive_field for report in reports), strict=True)
        ),
        theoretical_receptive_field=_widest(bounds) if all(bounds) else (),
        dropout=max(report.dropout for report in reports),
        notes=(f"the mean of {len(reports)} models",),
        drift=None,
        places=tuple(dict.fromkeys(place for report in reports for place in report.places)),
        arguments={},
    )


def _widest(bounds: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
    return tuple(
        None if None in sizes else max(size for size in sizes if size is not None)
        for sizes in zip(*bounds, strict=True)
    )
