"""SoftCAM's own maps under the signature of the post-hoc methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softcam.attribution.state import check_logits
from softcam.errors import UnsupportedModelError
from softcam.nn import Evidence, SoftCAM


def evidence_map(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return the class evidence map (N, h, w) of each image's target, whose mean is the target's logit.

    Args:
        model: A SoftCAM model.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, h, w), signed, in logit units, float32.

    Raises:
        UnsupportedModelError: If the model is not a SoftCAM.
        IdentityError: If the maps do not average to the logits.

    Reference:
        Djoumessi & Berens, "SoftCAM: Making black box models self-explainable", MIDL 2026, figure 1.
    """
    return _evidence(model, images, target).map_of(target).float()


def evidence_margin(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return the evidence (N, h, w) for each image's target rather than its strongest rival.

    With softmax the class map alone is not additive in the log-odds; this difference is: its mean is the log-odds of
    target and rival. An independent label (sigmoid) or an only class has no rival and the map is that of
    `evidence_map`.

    Args:
        model: A SoftCAM model.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, h, w), signed, in logit units, float32.

    Raises:
        UnsupportedModelError: If the model is not a SoftCAM.
        IdentityError: If the maps do not average to the logits.
    """
    evidence = _evidence(model, images, target)
    if evidence.multi_label:
        return evidence.map_of(target).float()
    return evidence.margin(target, against=evidence.runner_up(target)).float()


def _evidence(model: nn.Module, images: Tensor, target: Tensor) -> Evidence:
    if not isinstance(model, SoftCAM):
        raise UnsupportedModelError(
            f"Expected `model` to be a SoftCAM, but got {type(model).__name__}. Run softcam.convert on it first."
        )
    with torch.no_grad():
        evidence = model.evidence(images).check(tolerance=1e-4)
    check_logits(evidence.logits, target)
    return evidence
