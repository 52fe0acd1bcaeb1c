"""Whether maps hold still under noise, and change with the model and the class that they are to explain.

`explain` makes maps (N, h, w) of images (N, C, H, W) and class indices (N,). It is any callable: for a SoftCAM model
`lambda images, target: model.evidence(images).map_of(target)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from softcam.metrics.inputs import check_positive
from softcam.metrics.queries import Explain, ask_maps, check_images, check_target
from softcam.metrics.similarity import Similarity, find_similarity


def max_sensitivity(
    explain: Explain, images: Tensor, target: Tensor, *, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> Tensor:
    """Largest change of a map under small noise on the input, relative to the map.

    The noise is uniform within `radius` of each value. The largest of a few samples is a lower bound of the largest
    there is. The reference's definition is the absolute change; relative to the map, as in its experiments and in
    captum, methods of different units compare.

    Args:
        explain: Images and class indices to maps (N, h, w); called once more than there are samples, with all images.
        images: (N, C, H, W) network inputs.
        target: (N,) class indices.
        radius: Largest noise in the unit of the network's input, above 0.
        samples: How many noisy copies of each image are tried, at least 1.
        seed: Seed of a generator of its own, started anew for each batch of images.

    Returns:
        (N,) float64, at least 0, lower is better: the Frobenius norm of the change over that of the map; NaN where the
        map is 0 everywhere.

    Raises:
        TypeError: If maps are not floating point.
        ValueError: If shapes do not fit, a map is not finite, or `radius` or `samples` is out of range.

    Reference: Yeh et al. 2019, arXiv 1901.09392, definition 3.1.
    """
    if not radius > 0:
        raise ValueError(f"Expected `radius` to be above 0, but got {radius}. Try 0.02.")
    check_positive(samples, "samples")
    inputs, classes = _check(images, target)
    before = ask_maps(explain, inputs, classes)
    generator = torch.Generator().manual_seed(seed)
    changes = []
    for _ in range(samples):
        noise = 2 * torch.rand(inputs.shape, generator=generator, dtype=torch.float64) - 1
        after = ask_maps(explain, inputs + (radius * noise).to(inputs), classes)
        changes.append(_subtract(after, before).square().sum((1, 2)).sqrt())
    length = before.square().sum((1, 2)).sqrt()
    return (torch.stack(changes, dim=1).amax(1) / length).masked_fill(length == 0, torch.nan)


def random_logit(
    explain: Explain,
    images: Tensor,
    target: Tensor,
    *,
    classes: int,
    similarity: str | Similarity = "spearman",
    seed: int = 0,
) -> Tensor:
    """Similarity of the map of the target to the map of another class, drawn at random for each image.

    Args:
        explain: Images and class indices to maps (N, h, w); called twice with all images.
        images: (N, C, H, W) network inputs.
        target: (N,) class indices.
        classes: Number of classes K of the model, at least 2.
        similarity: "spearman" (order of the cells), "ssim" (structure; sides of at least 7 cells), or a function of two
            (N, h, w) maps.
        seed: Seed of a generator of its own, started anew for each batch of images.

    Returns:
        (N,) float64 in [-1, 1], lower is better: a map that does not know its class scores 1; NaN where a map is
        constant. With two classes and a softmax, maps that are each other's negative are right and score -1.

    Raises:
        TypeError: If maps are not floating point.
        ValueError: If shapes do not fit, a map is not finite, a target lies outside of [0, K), K is below 2, or
            `similarity` is unknown.

    Reference: Sixt et al. 2020, arXiv 1912.09818 (random logit).
    """
    if classes < 2:
        raise ValueError(f"Expected `classes` to be at least 2, but got {classes}. Another class is needed.")
    measure = find_similarity(similarity)
    inputs, own = _check(images, target)
    if int(own.min()) < 0 or int(own.max()) >= classes:
        raise ValueError(
            f"Expected `target` to lie in [0, {classes}), but got {int(own.min())} to {int(own.max())}. "
            "Pass class indices of this model."
        )
    generator = torch.Generator().manual_seed(seed)
    away = torch.randint(1, classes, own.shape, generator=generator).to(own.device)
    return measure(ask_maps(explain, inputs, own), ask_maps(explain, inputs, (own + away) % classes))


def parameter_randomization(
    model: nn.Module,
    explain: Explain,
    images: Tensor,
    target: Tensor,
    *,
    layers: Sequence[str] | None = None,
    similarity: str | Similarity = "spearman",
    seed: int = 0,
) -> Tensor:
    """Similarity of maps to those of the same model after more and more layers, from the top down, became random.

    Each parameter gives way to normal numbers of mean 0 and of its own root mean square, so that activations keep
    their scale whatever the layer; the reference draws from the layers' initialisers. Buffers, such as the running
    statistics of batch norm, stay. Afterwards, also after an exception, every parameter has its values back. No global
    random state is read or changed.

    Args:
        model: The network that `explain` explains.
        explain: Images and class indices to maps (N, h, w) of `model` as it is when called.
        images: (N, C, H, W) network inputs.
        target: (N,) class indices.
        layers: Names of S modules in the order in which they become random, each with all that lies in it, such as
            `("head", "layer4", "layer3")`; every layer of `list_layers` if left out.
        similarity: "spearman" (order of the cells), "ssim" (structure; sides of at least 7 cells), or a function of two
            (N, h, w) maps.
        seed: Seed of a generator of its own.

    Returns:
        (N, S) float64 in [-1, 1]: similarity after each layer; it must fall, so lower is better. NaN where a map is
        constant, or no longer finite.

    Raises:
        TypeError: If maps are not floating point.
        ValueError: If shapes do not fit, the maps of the model as it came are not finite, `layers` names a module that
            does not exist or has no parameters left to make random, or `similarity` is unknown.

    Reference: Adebayo et al. 2018, arXiv 1810.03292 (cascading randomization, Spearman and SSIM).
    """
    measure = find_similarity(similarity)
    stages = _collect_stages(model, list_layers(model) if layers is None else layers)
    inputs, classes = _check(images, target)
    before = ask_maps(explain, inputs, classes)
    generator = torch.Generator().manual_seed(seed)
    columns = []
    with _kept([parameter for stage in stages for parameter in stage]):
        for stage in stages:
            for parameter in stage:
                _randomize(parameter, generator)
            after = ask_maps(explain, inputs, classes, finite=False)
            columns.append(_measure_finite(measure, before, after))
    return torch.stack(columns, dim=1)


def list_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that own parameters, the last registered first.

    In nearly all networks this is from the top (the classifier) down to the first layer; the root has no name, "".

    >>> list_layers(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Linear(4, 2)))
    ('2', '0')
    """
    names: list[str] = []
    seen: set[int] = set()
    for name, module in reversed(list(model.named_modules())):
        # Weights that two layers share are the upper one's.
        owned = {id(parameter) for parameter in _floating(module, recurse=False)} - seen
        seen |= owned
        names += [name] if owned else []
    return tuple(names)


def _check(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    inputs = check_images(images)
    return inputs, check_target(target, len(inputs))


def _subtract(after: Tensor, before: Tensor) -> Tensor:
    if after.shape != before.shape:
        raise ValueError(
            f"Expected `explain` to return maps of one shape, but got {tuple(before.shape)} and {tuple(after.shape)}. "
            "Return maps of the same grid for images of the same size."
        )
    return after - before


def _floating(module: nn.Module, *, recurse: bool) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters(recurse=recurse) if parameter.is_floating_point())


def _collect_stages(model: nn.Module, layers: Sequence[str]) -> list[list[nn.Parameter]]:
    """Parameters of each layer that no layer before it had."""
    modules = dict(model.named_modules())
    if not layers:
        raise ValueError("Expected `layers` to name modules with parameters, but got none. Pass a trained model.")
    stages: list[list[nn.Parameter]] = []
    seen: set[int] = set()
    for name in layers:
        if name not in modules:
            hint = get_close_matches(name, modules, n=1)
            advice = f"Did you mean {hint[0]!r}?" if hint else "See `list_layers(model)`."
            raise ValueError(f"Expected `layers` to be modules of `model`, but got {name!r}. {advice}")
        stage = [parameter for parameter in _floating(modules[name], recurse=True) if id(parameter) not in seen]
        if not stage:
            raise ValueError(
                f"Expected each of `layers` to have parameters of its own, but got {name!r} without any left. Drop it."
            )
        seen.update(map(id, stage))
        stages.append(stage)
    return stages


@contextmanager
def _kept(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Give the parameters their values back on the way out."""
    values = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)


@torch.no_grad()
def _randomize(parameter: nn.Parameter, generator: torch.Generator) -> None:
    scale = parameter.double().square().mean().sqrt()
    normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    parameter.copy_(scale * normal.to(parameter.device))


def _measure_finite(measure: Similarity, before: Tensor, after: Tensor) -> Tensor:
    finite = torch.isfinite(after).all(2).all(1)
    known = measure(before, after.where(finite[:, None, None], 0))
    return known.masked_fill(~finite, torch.nan)
