"""SoftCAM: features, then evidence, then logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softcam.nn.evidence import Evidence
from softcam.nn.features import Features, SeveralFeatures, StageFeatures, as_parts
from softcam.nn.heads import EvidenceHead, SeveralEvidence
from softcam.nn.report import ConversionReport


class SoftCAM(nn.Module):
    """A classifier whose logits are the spatial mean of its class evidence maps.

    `forward` returns logits only, so the model takes the place of the black box it came from; `evidence` returns
    logits and maps from one pass. Make one with `softcam.convert`.

    Args:
        features: Extractor, images (N, C, *size) to features (N, D, *grid).
        head: Class evidence layer on these features.
        conversion: What was found, copied and measured.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax). One class alone excludes
            no other, and counts as independent.

    Reference:
        Djoumessi & Berens, "SoftCAM: Making black box models self-explainable", MIDL 2026.
    """

    def __init__(
        self,
        features: Features | SeveralFeatures | StageFeatures,
        head: EvidenceHead | SeveralEvidence,
        conversion: ConversionReport,
        *,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.conversion = conversion
        self._multi_label = multi_label

    @property
    def multi_label(self) -> bool:
        """Whether probabilities are sigmoids; always so with a single class, whose softmax would be 1."""
        return self._multi_label or self.num_classes == 1

    @multi_label.setter
    def multi_label(self, value: bool) -> None:
        """Say how several classes are read."""
        self._multi_label = value

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return self.head.num_classes

    @property
    def num_features(self) -> int:
        """D, the channels of the features under the class evidence layer."""
        return self.head.channels

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, *size), by the cheap path that makes no maps."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def evidence(self, images: Tensor) -> Evidence:
        """Return logits (N, K) and evidence maps (N, K, *grid) of images (N, C, *size) from one forward pass."""
        logits, maps = self.head.evidence(self.features(images))
        return Evidence(logits, maps, self.multi_label)

    def scales(self, images: Tensor) -> tuple[Evidence, ...]:
        """Return the evidence of each class evidence layer on its own grid; their logits add up to the model's.

        Args:
            images: (N, C, *size).
        """
        features = self.features(images)
        if not isinstance(self.head, SeveralEvidence):
            return (Evidence(*self.head.evidence(features), self.multi_label),)
        return tuple(Evidence(logits, maps, self.multi_label) for logits, maps in self.head.parts(features))

    def forward_features(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the features (N, D, *grid) under the class evidence layer, or several of them."""
        features: Tensor | tuple[Tensor, ...] = self.features(images)
        return features

    def pool(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the spatial mean (N, D) of what `forward_features` returns."""
        return pool_features(features)

    def get_classifier(self) -> nn.Module:
        """Return the class evidence layer's 1x1 convolution, or a list of them."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new, untrained class evidence layer in place.

        Args:
            num_classes: K, number of classes, >= 1.
        """
        self.head.reset(num_classes)

    def with_evidence(self) -> EvidenceModule:
        """Return a module with the same weights whose forward returns `Evidence`."""
        return EvidenceModule(self)


def pool_features(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the spatial mean of features, (N, D); of several features one after the other.

    Args:
        features: What `SoftCAM.forward_features` returns.

    Example:
        >>> import torch
        >>> pool_features((torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 6, 6))).tolist()
        [[1.0, 1.0, 0.0]]
    """
    return torch.cat([part.flatten(2).float().mean(-1) for part in as_parts(features)], dim=1)


class EvidenceModule(nn.Module):
    """A SoftCAM model whose forward returns `Evidence`: what DDP, torch.export and exporters wrap.

    Args:
        model: The model whose weights are shared.
    """

    def __init__(self, model: SoftCAM) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Evidence:
        """Return logits (N, K) and evidence maps (N, K, *grid) of images (N, C, *size)."""
        return self.model.evidence(images)
