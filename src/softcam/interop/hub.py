"""Bundles on the Hugging Face hub: three files that are fetched, verified and read without running any code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from torch import nn

from softcam.bundle import BundleConfig, find_bundle, fingerprint, load, read_config, save
from softcam.bundle.card import CARD_NAME, write_card
from softcam.bundle.describe import describe
from softcam.bundle.folder import FILES
from softcam.bundle.weights import check_finite
from softcam.errors import BundleError, MissingExtraError
from softcam.files import write_atomic
from softcam.nn import Augmented, Ensemble, SoftCAM

try:
    from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, errors, snapshot_download
except ImportError as error:
    raise MissingExtraError("huggingface_hub", "hub") from error

TAGS = ("class-activation-maps", "explainable-ai", "interpretability", "softcam")

_LOG_IN = "log in with `hf auth login`, or pass the `token=` of one who may"
_NETWORK = "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
_NOT_CACHED = (
    "It is not in the cache: leave out `local_files_only`, check the network and HF_HUB_OFFLINE, or bring the bundle's "
    "folder here and pass its path."
)
_WAYS_OUT: tuple[tuple[type[Exception], str], ...] = (
    (errors.GatedRepoError, f"Accept the terms on its page; then {_LOG_IN} read it."),
    (errors.RepositoryNotFoundError, f"Check the name; for a private one, {_LOG_IN} see it."),
    (errors.RevisionNotFoundError, "Check the branch, tag or commit."),
    (errors.HFValidationError, "Pass an existing folder, or the name of a repository such as 'org/name'."),
    (errors.LocalTokenNotFoundError, f"First {_LOG_IN} do this."),
    (errors.LocalEntryNotFoundError, _NOT_CACHED),
    (errors.HfHubHTTPError, f"If it was refused, {_LOG_IN} do this; else try again later."),
    # A hub that cannot be reached raises the HTTP library's own error, and that library has changed over time.
    (errors.HTTPError, _NETWORK),  # type: ignore[attr-defined]
    (OSError, _NETWORK),
)


class HubSoftCAM(
    SoftCAM, ModelHubMixin, library_name="softcam", pipeline_tag="image-classification", tags=list(TAGS)
):  # fmt: skip
    """A SoftCAM model that comes from the hub or goes there, with what a bundle says beside the weights.

    It shares features, class evidence layer and weights with the model it is made of.

    Args:
        model: A SoftCAM model.
        classes: Class names in the order of the logits; default: "0", "1", ...
        preprocessing: `Preprocessing.to_dict()`; default: that of the architecture's published weights, if known.
        thresholds: Probability from which a class is reported, by class name.
        provenance: As `softcam.save` takes it; its `license`, e.g. `apache-2.0`, is shown by the hub.

    Raises:
        TypeError: If `model` is no SoftCAM model, or an ensemble.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, SoftCAM):
            kind = type(model).__name__
            raise TypeError(f"Expected `model` to be a SoftCAM model, but got {kind}. Convert it with softcam.convert.")
        if isinstance(model, Ensemble | Augmented):
            raise TypeError(
                f"Expected `model` to be a single model, but got {type(model).__name__}. Upload the folder that `save` "
                "writes with huggingface_hub.upload_folder, and read it with `download_bundle`."
            )
        super().__init__(model.features, model.head, model.conversion, multi_label=model.multi_label)
        # Not `train()`, which would reach the shared modules.
        self.training = model.training
        self.classes = None if classes is None else tuple(classes)
        self.preprocessing, self.thresholds, self.provenance = preprocessing, thresholds, provenance
        self._origin: BundleConfig | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        model: nn.Module | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Read a model from the hub or from a folder, in eval mode and on the CPU.

        Args:
            pretrained_model_name_or_path: Repository, e.g. `org/name`; or the folder of a bundle or training run.
            model: The black box that the bundle was converted from, as `softcam.load` takes it; needed where softcam
                cannot build the architecture itself.
            revision: Branch, tag or commit; default: the main branch. A commit is the only one that cannot change.
            token: Access token; default: that of `hf auth login`.
            cache_dir: Where downloads are kept; default: the hub's own cache.
            local_files_only: Whether to do without the network.
            force_download: Whether to fetch files again that are in the cache.

        Raises:
            BundleError: If there is no such repository or folder, if the hub cannot be reached, or as `softcam.load`.
        """
        # The mixin's own method reads config.json itself and passes its entries on before anything has checked them.
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            model=model,
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_options: Any,
    ) -> str | None:
        """Write the bundle as `softcam.save` does, its model card headed by what the hub reads.

        Args:
            save_directory: New, empty, or a bundle that is replaced.
            repo_id: Repository to push to; default: the name of the folder.
            push_to_hub: Whether to push as well.
            model_card_kwargs: As `generate_model_card` takes them.
            **push_options: As `push_to_hub` takes them.

        Returns:
            The address of the commit if it was pushed.

        Raises:
            BundleError: As `softcam.save`.
        """
        # The mixin's own method deletes config.json first: a save that fails would leave a broken bundle.
        folder = Path(save_directory)
        card = self.generate_model_card(**(model_card_kwargs or {}))
        self._save_pretrained(folder)
        write_atomic(folder / CARD_NAME, str(card))
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Upload the bundle in one commit; the repository is made if there is none.

        Args:
            repo_id: Repository, e.g. `org/name`.
            model_card_kwargs: As `generate_model_card` takes them.
            **options: Of `huggingface_hub.ModelHubMixin.push_to_hub`: `private`, `token`, `branch`, `create_pr`,
                `commit_message`, `delete_patterns`, ...

        Returns:
            The address of the commit.

        Raises:
            BundleError: If the model cannot be saved, or if the hub refuses it or cannot be reached.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        # Before the repository is made, not after.
        check_finite(self)
        self.generate_model_card(**card)
        options = {"commit_message": "Upload a SoftCAM model", **options}
        with _explaining(f"push to {repo_id!r}"):
            return super().push_to_hub(repo_id, model_card_kwargs=card, **options)

    def generate_model_card(self, *, repo_id: str | None = None, **data: Any) -> ModelCard:
        """Return softcam's model card, headed by what the hub reads.

        Args:
            repo_id: Repository that the card tells how to load from.
            **data: Of `huggingface_hub.ModelCardData`: `license`, `language`, `datasets`, `base_model`, ...; `tags`
                are added to softcam's own.

        Raises:
            BundleError: If what is said of the model does not fit it.
        """
        digest = fingerprint(self)
        config = describe(self, self.classes, task=None, fingerprint=digest, record=self._record(digest))
        own = self._hub_mixin_info.model_card_data.to_dict()  # type: ignore[no-untyped-call]
        license_ = {"license": config.provenance["license"]} if "license" in config.provenance else {}
        tags = sorted({*own["tags"], *data.pop("tags", ())})
        head = ModelCardData(**{**own, **license_, **data, "tags": tags})
        usage = "" if repo_id is None else _usage(repo_id, config)
        return ModelCard(f"---\n{head.to_yaml()}\n---\n\n{write_card(config)}{usage}")

    def _save_pretrained(self, save_directory: Path) -> None:
        record = self._record(fingerprint(self))
        save(
            self,
            save_directory,
            classes=self.classes,
            preprocessing=record["preprocessing"],
            thresholds=record["thresholds"],
            provenance=record["provenance"],
        )

    def _record(self, digest: str) -> dict[str, Mapping[str, Any] | None]:
        """Return what is known beside the weights; of other weights than those read, what was measured says nothing."""
        known, thresholds, measured = self._origin, self.thresholds, {}
        if known is not None and digest == known.fingerprint:
            measured = {"calibration": known.calibration, "inputs": known.inputs}
        elif known is not None and thresholds == known.thresholds:
            thresholds = known.uncalibrated().thresholds
        provenance = {**(self.provenance or {}), **measured}
        return {"preprocessing": self.preprocessing, "thresholds": thresholds, "provenance": provenance}

    @classmethod
    def _from_pretrained(cls, *, model_id: str, model: nn.Module | None = None, **options: Any) -> Self:
        folder = find_bundle(model_id) if Path(model_id).is_dir() else download_bundle(model_id, **options)
        config = read_config(folder)
        stored = {name: getattr(config, name) for name in ("penalty", "data_digest", "threshold_rule")}
        found = cls(
            load(folder, model=model),
            classes=config.classes,
            preprocessing=config.preprocessing,
            thresholds=config.thresholds,
            provenance={**config.provenance, **{name: value for name, value in stored.items() if value is not None}},
        )
        found._origin = config
        return found


def download_bundle(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder of a bundle on the hub, e.g. for `softcam.Predictor`; only its own three files are fetched.

    Args:
        repo_id: Repository, e.g. `org/name`.
        revision: Branch, tag or commit; default: the main branch.
        token: Access token; default: that of `hf auth login`.
        cache_dir: Where downloads are kept; default: the hub's own cache.
        local_files_only: Whether to do without the network.
        force_download: Whether to fetch files again that are in the cache.

    Raises:
        BundleError: If there is no such repository, if it holds no bundle, or if the hub cannot be reached.
    """
    with _explaining(f"find {repo_id!r} on the hub"):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=sorted(FILES),
            library_name="softcam",
        )
    try:
        read_config(folder)
    except BundleError as error:
        raise BundleError(f"Expected {repo_id!r} to hold a softcam bundle, but it does not. {error}") from error
    return Path(folder)


@contextmanager
def _explaining(deed: str) -> Iterator[None]:
    try:
        yield
    except tuple(kind for kind, _ in _WAYS_OUT) as error:
        way_out = next(text for kind, text in _WAYS_OUT if isinstance(error, kind))
        if way_out is _NETWORK and getattr(error, "errno", None):
            raise  # a disk that is full is nothing that the hub has to do with
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BundleError(f"Expected to {deed}, but: {reason.rstrip('.')}. {way_out}") from error


def _usage(repo_id: str, config: BundleConfig) -> str:
    own = ", model=network)  # your black box" if config.architecture is None else ")"
    return f"""
## From the hub

```python
from softcam.interop import HubSoftCAM, download_bundle

model = HubSoftCAM.from_pretrained("{repo_id}"{own}
folder = download_bundle("{repo_id}")
```
"""
