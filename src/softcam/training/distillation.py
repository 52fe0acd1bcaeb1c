"""Learning from a black box: its probabilities beside the labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.bundle import find_bundle, load_black_box, read_config
from softcam.data import Manifest
from softcam.errors import RecipeError, RunError
from softcam.nn import evaluating, run_until
from softcam.training.recipe import Recipe

TOLERANCE = 1e-3
"""Largest difference, relative to the largest activation, of trunks that count as the same one."""


def load_teacher(recipe: Recipe, manifest: Manifest) -> nn.Module | None:
    """Return the black box that a recipe learns from, frozen and in eval mode, if it has one.

    Raises:
        BundleError: If the folder holds no black box.
        RecipeError: If it tells other classes apart.
    """
    if recipe.loss.teacher is None:
        return None
    path = find_bundle(recipe.loss.teacher)
    classes = tuple(read_config(path).classes)
    if classes != tuple(manifest.classes):
        raise RecipeError(f"Expected `loss.teacher` to know the classes of the data, but it knows {classes}.")
    return load_black_box(path).requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


def check_trunk(teacher: nn.Module, model: nn.Module, name: str, images: Tensor) -> None:
    """Refuse a teacher to whom cached features of the model's trunk mean nothing.

    Args:
        teacher: The black box.
        model: The model whose features are cached.
        name: The submodule whose output they are.
        images: A few images (N, C, H, W).

    Raises:
        RunError: If the two trunks differ.
    """
    with evaluating(teacher), evaluating(model), torch.no_grad():
        theirs, ours = run_until(teacher, name, images), run_until(model, name, images)
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > TOLERANCE * ours.abs().max():
        raise RunError(
            f"Expected the teacher to have the model's own trunk up to {name!r}, since its features are cached for "
            "both, but it was trained. Use stages without `trunk`, or a teacher from such stages."
        )


def distillation_loss(logits: Tensor, teacher: Tensor, *, temperature: float, multi_label: bool) -> Tensor:
    """Return how far probabilities are from the teacher's, a scalar that is zero where they agree.

    Args:
        logits: (N, K).
        teacher: The teacher's logits (N, K).
        temperature: What both are divided by, > 0; its square keeps the size of the gradients.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).

    Reference:
        Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015.

    Example:
        >>> distillation_loss(torch.eye(2), torch.eye(2), temperature=2.0, multi_label=False).item()
        0.0
    """
    ours, theirs = logits.float() / temperature, teacher.float() / temperature
    if multi_label:
        target = theirs.sigmoid()
        floor = F.binary_cross_entropy_with_logits(theirs, target)
        loss = F.binary_cross_entropy_with_logits(ours, target) - floor
    else:
        loss = F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True)
    return loss * temperature**2
