"""What is compared: a method, the model that it explains, and the layer that it looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from softcam.attribution import Method, get_method

SOFTCAM, BLACK_BOX = "softcam", "black_box"
"""Names of the model under evaluation and of its twin, which no other model may have."""


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Args:
        name: As in tables: `grad_cam`, `grad_cam@blocks.2` at a layer, `evidence:sparse` of another SoftCAM model.
        method: The method.
        model: Name of the model that it explains.
        layer: Dotted name of the module that it looks at; None for the method's own choice.
    """

    name: str
    method: Method
    model: str
    layer: str | None


def parse_method(text: str) -> tuple[Method, str | None]:
    """Return the method and the layer of `method` or `method@layer`.

    Raises:
        ValueError: If there is no such method, or if it looks at no layer.

    Example:
        >>> method, layer = parse_method("grad_cam@features.5")
        >>> method.name, layer
        ('grad_cam', 'features.5')
    """
    name, at, layer = text.partition("@")
    method = get_method(name)
    if at and not layer:
        raise ValueError(f"Expected a module's name after @, but got {text!r}.")
    if layer and not method.at_layer:
        raise ValueError(f"Expected no layer for {name!r}, which looks at none, but got {layer!r}.")
    return method, layer or None


def name_model(method: Method, *, has_black_box: bool) -> str:
    """Return which model a method explains: the SoftCAM for its own maps, else the black box if there is one."""
    return BLACK_BOX if has_black_box and not method.needs_softcam else SOFTCAM


def list_entries(methods: Iterable[str], *, has_black_box: bool, others: Iterable[str] = ()) -> tuple[Entry, ...]:
    """Return what is compared, in the order of the methods.

    SoftCAM's own maps explain the SoftCAM under evaluation and every other one, all other methods what `name_model`
    says.

    Args:
        methods: As `parse_method` reads them; what is said twice is compared once.
        has_black_box: Whether there is a twin.
        others: Names of further SoftCAM models.

    Example:
        >>> [entry.name for entry in list_entries(("evidence", "random"), has_black_box=True, others=("sparse",))]
        ['evidence', 'evidence:sparse', 'random']
    """
    names = tuple(others)
    entries = []
    for text in dict.fromkeys(methods):
        method, layer = parse_method(text)
        entries.append(Entry(text, method, name_model(method, has_black_box=has_black_box), layer))
        if method.needs_softcam:
            entries += [Entry(f"{text}:{name}", method, name, layer) for name in names]
    return tuple(entries)


def check_layers(entries: Iterable[Entry], networks: Mapping[str, nn.Module]) -> None:
    """Raise ValueError if an entry looks at a layer that its model does not have; the message names the closest.

    Args:
        entries: What is compared.
        networks: The models by name.
    """
    for entry in entries:
        modules = {} if entry.layer is None else dict(networks[entry.model].named_modules())
        if entry.layer is not None and entry.layer not in modules:
            close = get_close_matches(entry.layer, modules, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "model.named_modules() lists them."
            raise ValueError(
                f"Expected `methods` to name a module of the {entry.model} model after @, but got {entry.name!r}. "
                + hint
            )
