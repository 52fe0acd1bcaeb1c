"""From a split network to a class evidence layer: the exact one where there is one, else the closest copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import TOKENS, Features, Layout, SeveralFeatures, channel_dim, count_prefix, position_dims
from softcam.nn.heads import AttentionEvidence, EvidenceHead, LinearEvidence, SeveralEvidence
from softcam.nn.modes import is_batch_norm
from softcam.nn.probe import TOLERANCE, Verdict, build_head, double_head, judge_head
from softcam.nn.split import SeveralSplit, Split
from softcam.nn.stack import read_stack
from softcam.nn.stages import Stage, create_head

Fidelity = Literal["exact", "copy", "new"]
HeadChoice = Literal["auto", "linear", "pointwise", "fully_convolutional"]

RETRAIN = "the maps do not average to the black box's own logits: fine-tune before use"
NEW_LAYER = "the class evidence layer is new: train it before use"
FROZEN_NORM = "batch norm in the head is folded in its eval form and no longer adapts"


@dataclass(frozen=True)
class Built:
    """A class evidence layer for a network.

    Args:
        head: The layer.
        layout: Order of dimensions of the features inside the network.
        prefix: Leading tokens without a place in the image.
        prefixes: The same for each of several maps; None for tokens that have no place at all.
        fidelity: Whether its maps average to the black box's own logits (`exact`), it is the closest there is
            (`copy`), or its classifier is `new`.
        notes: What a user should know of it.
        places: Modules under whose outputs the layers sit, if these were chosen.
    """

    head: EvidenceHead | SeveralEvidence
    layout: Layout
    prefix: int = 0
    fidelity: Fidelity = "exact"
    notes: tuple[str, ...] = ()
    prefixes: tuple[int | None, ...] = ()
    places: tuple[str, ...] = ()


def create_features(split: Split, built: Built) -> Features | SeveralFeatures:
    """Return the extractor of the features under the layer."""
    if isinstance(split, SeveralSplit):
        return SeveralFeatures(split.network, built.layout, built.prefixes)
    return split.features(built.layout, built.prefix)


def build(split: Split, *, head: HeadChoice, exact: bool, filled: bool = True) -> Built:
    """Return the class evidence layer that computes what the head computes, or comes closest to it.

    Args:
        split: The network.
        head: `auto`, or the form that is wanted.
        exact: Whether to refuse a layer whose maps do not average to the head's own logits.
        filled: Whether the values of its classifier matter; where the head is affine, they take the longest to find.

    Raises:
        UnsupportedModelError: If there is no such layer.
    """
    if isinstance(split, SeveralSplit):
        return build_several(split, exact=exact)
    try:
        verdict = judge_head(split)
    except ValueError as error:
        raise _cannot(str(error), "Name the two modules with `features=` and `classifier=`.") from error
    if head == "fully_convolutional":
        return _build_windows(split, verdict)
    if verdict.exact and head in ("auto", "linear"):
        found = build_head(split, verdict, filled=filled)
        return Built(found, verdict.layout, verdict.prefix, notes=_norm_notes(split))
    if verdict.pooling is None and head == "auto" and (attention := _build_attention(split, verdict)) is not None:
        return attention
    if exact and verdict.exact:
        raise UnsupportedModelError(
            f"Expected `head` to be 'auto' or 'linear' for maps that average to the black box's own logits, but got "
            f"{head!r}. Leave `head` out, or use `exact=False` and fine-tune the model."
        )
    if exact:
        raise _cannot(verdict.found, "Use `exact=False` for the closest copy of the head, to be fine-tuned")
    return _build_copy(split, verdict, head)


def build_at(stages: Sequence[Stage], *, num_classes: int, layers: int | None = None) -> Built:
    """Return new class evidence layers at stages of a network.

    Args:
        stages: In the order in which the network reaches them.
        num_classes: K.
        layers: Number of 1x1 layers of each; default: 2, with batch norm and ReLU between them.
    """
    heads = [
        create_head(stage.channels, num_classes, layers=2 if layers is None else layers, dims=len(stage.grid))
        for stage in stages
    ]
    last = stages[-1]
    return Built(
        heads[0] if len(heads) == 1 else SeveralEvidence(heads),
        last.layout,
        last.prefix,
        "new",
        (NEW_LAYER,),
        places=tuple(stage.name for stage in stages),
    )


def build_new(split: Split, *, head: HeadChoice, num_classes: int, layers: int | None = None) -> Built:
    """Return a layer with a new, untrained classifier; of the old head stays what comes before its classifier.

    Raises:
        UnsupportedModelError: If the head was asked for in a form that it does not have.
    """
    if head == "linear" or layers is not None:
        return _build_plain(split, num_classes, 1 if layers is None else layers)
    try:
        built = build(split, head=head, exact=False, filled=False)
    except UnsupportedModelError:
        if head != "auto":
            raise
        return _build_plain(split, num_classes, 1)
    built.head.reset(num_classes)
    notes = tuple(text for text in built.notes if text not in (RETRAIN, FROZEN_NORM))
    return replace(built, fidelity="new", notes=(NEW_LAYER, *notes))


def _build_plain(split: Split, num_classes: int, layers: int) -> Built:
    try:
        verdict = judge_head(split)
        layout, prefix = verdict.layout, verdict.prefix
    except ValueError:
        layout = split.likely_layout()
        tokens = split.shape[position_dims(layout)[0]]
        grid = len(split.shape) == split.dims + 2
        prefix = 0 if grid else count_prefix(split.network, tokens, split.example.shape[2:])
    plain = create_head(split.channels(layout), num_classes, layers=layers, dropout=split.dropout, dims=split.dims)
    return Built(plain, layout, prefix, "new", (NEW_LAYER,))


def _build_copy(split: Split, verdict: Verdict, head: HeadChoice) -> Built:
    if verdict.form == "other" and head == "linear":
        raise _cannot(verdict.found, "No single 1x1 convolution comes close: leave `head` out for a copy of its layers")
    if verdict.form != "other" and head != "pointwise":
        copied: EvidenceHead = build_head(split, verdict)
        notes = (*_norm_notes(split), f"copied where all cells are alike; {RETRAIN}")
    else:
        copied = read_stack(split, verdict.layout)
        notes = (f"the head's layers are applied at every cell; {RETRAIN}",)
    return Built(copied, verdict.layout, verdict.prefix, "copy", notes)


def _build_windows(split: Split, verdict: Verdict) -> Built:
    stack = read_stack(split, verdict.layout, windows=True)
    if stack.kind != "fully_convolutional":
        raise UnsupportedModelError(
            "Expected a head that flattens a grid of several cells for head='fully_convolutional', but this one reads "
            "single cells or a mean. Leave `head` out."
        )
    return Built(stack, verdict.layout, notes=("exact at the size of the probe images, where the map has one cell",))


def _norm_notes(split: Split) -> tuple[str, ...]:
    return (FROZEN_NORM,) if any(is_batch_norm(module) for _, module in split.tail) else ()


def _cannot(found: str, advice: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Expected the head to be mean -> affine, but {found.rstrip('.')}. Its maps cannot average to the same "
        f"logits. {advice.rstrip('.')}, or `num_classes=` for a new class evidence layer on the same trunk."
    )


def _build_attention(split: Split, verdict: Verdict) -> Built | None:
    if verdict.layout != "NCHW":
        return None
    in_head = {name.rpartition(".")[0] for name, _ in split.tail} - {""}
    pools = [split.network.get_submodule(name) for name in sorted(in_head)]
    for pool in pools:
        if _is_attention_pool(pool) and (head := _copy_attention(pool, split)) is not None:
            return Built(head, verdict.layout, notes=("attention weights of the image place the evidence",))
    return None


def _is_attention_pool(module: nn.Module) -> bool:
    """Return whether a module has the parts of CLIP's attention pooling, as timm's `AttentionPool2d` names them."""
    named = all(hasattr(module, name) for name in ("pos_embed", "num_heads", "proj", "qkv"))
    if not named or getattr(module, "cls_token", None) is not None:
        return False
    positions = module.pos_embed
    return isinstance(positions, Tensor) and positions.ndim == 2 and isinstance(module.proj, nn.Linear)


def _copy_attention(pool: Any, split: Split) -> AttentionEvidence | None:
    grid = tuple(pool.feat_size) if hasattr(pool, "feat_size") else tuple(split.shape[2:])
    channels, width = pool.pos_embed.shape[1], pool.proj.in_features
    weight = pool.proj.weight.detach().clone()
    options = {"num_heads": pool.num_heads, "embed_dim": width, "grid": grid, "dropout": split.dropout}
    with torch.device("meta"):
        head = AttentionEvidence(channels, len(weight), **options)
    head = head.to_empty(device=weight.device).to(weight.dtype)
    bias = weight.new_zeros(len(weight)) if pool.proj.bias is None else pool.proj.bias.detach().clone()
    with torch.no_grad():
        head.positions.copy_(pool.pos_embed)
        for index, part in enumerate((head.query, head.key, head.value)):
            _fill_part(part, pool, index, width)
    head.set_classifier(weight, bias)
    return head if _computes(head, split) else None


def _fill_part(part: nn.Linear, pool: Any, index: int, width: int) -> None:
    if pool.qkv is not None:
        rows = slice(index * width, (index + 1) * width)
        weight, bias = pool.qkv.weight[rows], None if pool.qkv.bias is None else pool.qkv.bias[rows]
    else:
        source = (pool.q, pool.k, pool.v)[index]
        weight, bias = source.weight, source.bias
    part.weight.copy_(weight)
    part.bias.zero_() if bias is None else part.bias.copy_(bias)


def _computes(head: EvidenceHead, split: Split) -> bool:
    """Return whether a layer gives the head's logits on noise, in float64."""
    noise = torch.randn(2, *split.shape[1:], generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    noise = noise.to(split.example.device)
    dtype = next(head.parameters()).dtype
    with torch.no_grad(), double_head(split):
        try:
            expected = split.head(noise)
            found, maps = head.double().eval().evidence(noise)
        except RuntimeError:
            return False
        finally:
            head.to(dtype).train()
    means = maps.mean((-2, -1))
    error = max((found - expected).abs().max(), (means - expected).abs().max())
    return bool(error <= TOLERANCE * expected.abs().max())


def build_several(split: SeveralSplit, *, exact: bool) -> Built:
    """Return one class evidence layer per map of a head that is affine in the means of its maps, or in class tokens.

    Raises:
        UnsupportedModelError: If the head is neither, or if it is not exact but has to be.
    """
    layout, means_only = _judge_several(split)
    with torch.no_grad(), double_head(split):
        weights, bias = _fold_several(split, layout)
    if exact and not means_only:
        raise _cannot("the head sees more of several maps than their means", "Use `exact=False`")
    prefixes = _find_prefixes(split, layout)
    # The bias belongs to the last map, the deepest.
    biases = [torch.zeros_like(bias)] * (len(weights) - 1) + [bias]
    options = {"dropout": split.dropout, "dims": split.dims}
    heads = [LinearEvidence.from_affine(weight, b, **options) for weight, b in zip(weights, biases, strict=True)]
    placed = [prefix is not None for prefix in prefixes]
    notes: tuple[str, ...] = (
        () if all(placed) else ("the share of states without a place in the image is spread over all cells",)
    )
    notes += () if means_only else (f"copied where all cells are alike; {RETRAIN}",)
    return Built(
        SeveralEvidence(heads, placed=placed),
        layout,
        fidelity="exact" if means_only else "copy",
        notes=(*_norm_notes(split), *notes),
        prefixes=prefixes,
    )


def _judge_several(split: SeveralSplit) -> tuple[Layout, bool]:
    """Return the layout in which the head reads its maps, and whether it sees only their means.

    Raises:
        UnsupportedModelError: If it is affine in neither.
    """
    # Weights of zero would make a head affine in any layout.
    with torch.no_grad(), double_head(split, randomise=True):
        layouts = [layout for layout in TOKENS if _is_affine(split, layout)]
        means_only = [layout for layout in layouts if _sees_only_means(split, layout)]
    if not layouts:
        raise _cannot("it is not affine in several maps", "Name one map with `features=`")
    # Class tokens are affine either way round; they come with tokens first.
    return (means_only or layouts)[0], bool(means_only)


def _is_affine(split: SeveralSplit, layout: Layout) -> bool:
    """Return whether a head is affine in vectors that fill its maps."""
    generator = torch.Generator().manual_seed(9)
    try:
        weights, bias = _fold_several(split, layout)
        vectors = [torch.randn(2, w.shape[1], generator=generator, dtype=bias.dtype).to(bias.device) for w in weights]
        logits = split.head_of([_fill(v, shape, layout) for v, shape in zip(vectors, split.shapes, strict=True)])
    except RuntimeError:
        return False
    return _agree(bias + sum(v @ weight.T for v, weight in zip(vectors, weights, strict=True)), logits)


def _fold_several(split: SeveralSplit, layout: Layout) -> tuple[list[Tensor], Tensor]:
    """Return weights (K, D) and bias (K,) of a head that is affine in vectors that fill its maps."""
    example = split.example.double()
    zeros = [_fill(example.new_zeros(1, s[channel_dim(layout)]), s, layout) for s in split.shapes]
    bias = split.head_of(zeros)[0]
    return [_fold_part(split, zeros, index, layout, bias) for index in range(len(zeros))], bias


def _fold_part(split: SeveralSplit, zeros: list[Tensor], index: int, layout: Layout, bias: Tensor) -> Tensor:
    """Return the weight (K, D) of one of several maps, the others being zero."""
    channels = split.shapes[index][channel_dim(layout)]
    identity = torch.eye(channels, dtype=torch.float64, device=bias.device)
    parts = [zero.expand(channels, *zero.shape[1:]) for zero in zeros]
    parts[index] = _fill(identity, split.shapes[index], layout)
    return (split.head_of(parts) - bias).T.contiguous()


def _fill(vectors: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
    """Return tokens in the layout that are all the same vector (B, D)."""
    dim = 3 - channel_dim(layout)
    return vectors.unsqueeze(dim).expand([-1, *shape[1:]])


def _find_prefixes(split: SeveralSplit, layout: Layout) -> tuple[int | None, ...]:
    if layout == "NCL":
        # Tokens before the last map are states of a state-space model, as many as it has states.
        return (*[None] * (len(split.shapes) - 1), 0)
    return tuple(count_prefix(split.network, shape[1], split.example.shape[2:]) for shape in split.shapes)


def _sees_only_means(split: SeveralSplit, layout: Layout) -> bool:
    weights, bias = _fold_several(split, layout)
    prefixes = _find_prefixes(split, layout)
    generator = torch.Generator().manual_seed(9)
    maps = [torch.randn(2, *s[1:], generator=generator, dtype=torch.float64).to(bias.device) for s in split.shapes]
    dim = 3 - channel_dim(layout)
    means = [
        part.narrow(dim, prefix or 0, part.shape[dim] - (prefix or 0)).mean(dim)
        for part, prefix in zip(maps, prefixes, strict=True)
    ]
    found = bias + sum(m @ weight.T for m, weight in zip(means, weights, strict=True))
    return _agree(found, split.head_of(maps))


def _agree(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
