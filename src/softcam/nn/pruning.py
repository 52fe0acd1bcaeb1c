"""Leave behind what the features of a network do not need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import Features, SeveralFeatures, StageFeatures, as_parts

Extractor = Features | SeveralFeatures | StageFeatures


def drop_unused(
    features: Extractor, tail: Sequence[str], example: Tensor, *, measured: bool = True
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Replace by `nn.Identity` what the features do not depend on, found by the gradient of the central cell.

    A classifier left inside would never get a gradient, which DDP refuses, and would be stored with every model.
    Weights that cannot be taken out are frozen.

    Args:
        features: The extractor, changed in place.
        tail: Names of the modules of the head.
        example: One probe image (1, C, *size).
        measured: Whether the extent matters, which takes a pass backwards.

    Returns:
        The extent in pixels, e.g. (height, width), that the central cell depends on, empty if it is not measured; the
        grid; and notes.

    Raises:
        UnsupportedModelError: If no gradient of the features reaches the image.
    """
    parts, used = _trace(features, example)
    in_tail = set(tail)
    idle = {name for name, module in list_weighted(features.network) if _is_idle(module, used)}
    replaced = _replace_unused(features, in_tail, idle, example, parts)
    for parameter in features.network.parameters():
        parameter.requires_grad_(parameter in used)
    left = sorted(_lift(features.network, replaced - in_tail))
    notes = (f"left behind, as the features do not use it: {', '.join(left)}",) if left else ()
    extent = _measure_extent(features, example) if measured else ()
    return extent, _read_grid(_placed(features, parts)), notes


def _trace(features: Extractor, example: Tensor) -> tuple[list[Tensor], set[Tensor]]:
    """Return the feature maps of an example and the parameters that they depend on."""
    # The graph alone tells; what a backward pass would need, several times the network's size, is thrown away.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _: None, _never):
        parts = as_parts(features(example.detach()))
    used: set[Tensor] = set()
    waiting = [part.grad_fn for part in parts]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if isinstance(variable := getattr(node, "variable", None), Tensor):
            used.add(variable)
        following = {next_node for next_node, _ in node.next_functions} - seen
        seen |= following
        waiting.extend(following)
    return [part.detach() for part in parts], used


def _never(_: object) -> Tensor:
    raise RuntimeError("Expected the graph not to be run backwards.")


def _measure_extent(features: Extractor, example: Tensor) -> tuple[int, ...]:
    """Return the extent in pixels that the central cell depends on, by its gradient."""
    images = example.detach().clone().requires_grad_()
    flags = [(parameter, parameter.requires_grad) for parameter in features.network.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad = False
        with torch.enable_grad():
            parts = _placed(features, as_parts(features(images)))
            # A cell of the map is a sum over all that lie there, in coarser ones too.
            cells = [_random_sum(part.flatten(2)[..., _centre(tuple(part.shape[2:]))]) for part in parts]
            gradient = _backward(torch.stack(cells).sum(), images)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return _extent(gradient)


def _read_grid(parts: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the grid of the finest map."""
    return tuple(max(parts, key=lambda part: part[0, 0].numel()).shape[2:])


def _placed(features: Extractor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the maps whose positions lie on a grid over the image."""
    if isinstance(features, Features):
        return list(parts)
    return [part for part, prefix in zip(parts, features.prefixes, strict=True) if prefix is not None]


def _centre(grid: tuple[int, ...]) -> int:
    index = 0
    for extent in grid:
        index = index * extent + extent // 2
    return index


def _random_sum(values: Tensor) -> Tensor:
    # Random weights, since a layer norm makes the plain sum over channels constant.
    weights = torch.randn(values.shape[1:], generator=torch.Generator().manual_seed(0)).to(values)
    return (values * weights).sum()


def _backward(value: Tensor, images: Tensor) -> Tensor:
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    if images.grad is None:
        raise UnsupportedModelError(
            "Expected features that depend on the image by differentiable steps, but no gradient reaches it. "
            "Take `torch.no_grad()` and `detach()` out of the network's forward."
        )
    return images.grad


def _replace_unused(
    features: Extractor, tail: set[str], idle: set[str], example: Tensor, expected: list[Tensor]
) -> set[str]:
    """Put `nn.Identity` in the place of modules, as many as the features can do without, and return their names."""
    network = features.network
    for names in (_lift(network, tail | idle) if features.ends_early else tail | idle, tail):
        before = {name: network.get_submodule(name) for name in names}
        _put(network, {name: nn.Identity() for name in names})
        if _same_features(features, example, expected):
            return names
        # Without a gradient but in use, or run through to the end by the forward of a watched network.
        _put(network, before)
    return set()


def _lift(network: nn.Module, names: set[str]) -> set[str]:
    """Return, for modules that are never called, the largest modules that hold nothing but such modules."""
    used = {name for name, _ in list_weighted(network)} - names
    kept = {""} | {name.rpartition(".")[0] for name in used}
    kept |= {parent for name in kept for parent in _parents(name)}
    return {next((p for p in _parents(name) if p not in kept), name) for name in names}


def _parents(name: str) -> list[str]:
    """Return the names of the modules around a module, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _put(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    # Outer modules last, since those inside can no longer be reached then.
    for name, module in sorted(modules.items(), reverse=True):
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module)


def _same_features(features: Extractor, example: Tensor, expected: list[Tensor]) -> bool:
    try:
        with torch.no_grad():
            found = as_parts(features(example))
    except (RuntimeError, AttributeError, TypeError, ValueError, UnsupportedModelError):
        return False
    return len(found) == len(expected) and all(
        new.shape == old.shape and torch.allclose(new, old, rtol=0, atol=1e-4 * float(old.abs().max()))
        for new, old in zip(found, expected, strict=True)
    )


def _is_idle(module: nn.Module, used: set[Tensor]) -> bool:
    own = list(module.parameters())
    return bool(own) and not any(parameter in used for parameter in own)


def _extent(gradient: Tensor) -> tuple[int, ...]:
    touched = gradient.ne(0).any(dim=1)[0]
    extents = []
    for dim in range(touched.ndim):
        others = tuple(other for other in range(touched.ndim) if other != dim)
        hit = (touched.any(others) if others else touched).nonzero()
        extents.append(int(hit[-1] - hit[0]) + 1 if len(hit) else 0)
    return tuple(extents)


def list_weighted(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and modules inside a network that hold parameters or buffers of their own."""
    for name, module in network.named_modules():
        if name and (module._parameters or module._buffers):  # noqa: SLF001 - the lists without those of children
            yield name, module
