"""Exported graphs that are kept beside their bundle, so that a model is exported once for each size of images."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softcam.bundle import read_config
from softcam.bundle.folder import EXPORTS
from softcam.errors import ExportError, SoftCAMWarning
from softcam.export.graph import full_precision, write_onnx
from softcam.export.source import WRITERS, open_source
from softcam.files import atomic_files, write_atomic
from softcam.libraries import load_library
from softcam.nn import SoftCAM
from softcam.versions import installed_versions


@dataclass(frozen=True)
class KeptGraph:
    """Where the graph of a model for one size of images is, or will be.

    One ONNX file serves ONNX Runtime and OpenVINO. Its name holds the model's fingerprint and a digest of all that
    decides its content: the bundle's description, the size and the versions of the libraries. A file appears whole or
    not at all, and anyone may remove the folder at any time.

    Args:
        name: Name of the file.
        folders: Where it may be, best first: beside the bundle, then the user's own cache.
    """

    name: str
    folders: tuple[Path, ...]

    def find(self) -> Path | None:
        """Return the graph if there is one."""
        return next((path for folder in self.folders if (path := folder / self.name).is_file()), None)

    def make(self, model: SoftCAM, size: Sequence[int]) -> Path:
        """Export the model into the first folder that can be written; 10 seconds to a minute.

        What comes out is not compared with the model here: whoever runs it has to.

        Args:
            model: The model, on the CPU; it stays as it is.
            size: Height and width of the images in pixels.

        Returns:
            The graph.

        Raises:
            ExportError: If the model cannot be exported, or no folder can be written.
            MissingExtraError: If onnx or onnxscript is not installed.
        """
        for package in ("onnx", "onnxscript"):
            load_library(package, extra="onnx")
        ready = open_source(model, input_size=size)
        refusals = []
        for folder in self.folders:
            path = folder / self.name
            try:
                with full_precision(), atomic_files(path) as staged, _quiet():
                    write_onnx(ready.model, staged / path.name, ready.shape, metadata=ready.record.to_metadata())
            except OSError as error:
                refusals.append(f"{folder}: {error.strerror or type(error).__name__}")
                continue
            if refusals:
                _tell(folder, refusals)
            return path
        raise ExportError(
            f"Expected a folder for the exported graph, but none can be written: {'; '.join(refusals)}. "
            "Set XDG_CACHE_HOME to one that can."
        )

    def discard(self) -> None:
        """Remove the graph and what is known about it, where that is possible."""
        for folder in self.folders:
            for path in (folder / self.name, folder / f"{self.name}.data", self._notes(folder)):
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue

    def read_notes(self) -> dict[str, Any]:
        """Return what was noted about the graph, empty if nothing was or it cannot be read."""
        for folder in self.folders:
            try:
                found = json.loads(self._notes(folder).read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
        return {}

    def write_notes(self, notes: dict[str, Any]) -> None:
        """Note JSON values about the graph beside it; without effect where nothing can be written."""
        path = self.find()
        if path is None:
            return
        try:
            write_atomic(self._notes(path.parent), json.dumps(notes, indent=2) + "\n")
        except OSError:
            return

    def _notes(self, folder: Path) -> Path:
        return folder / f"{self.name.removesuffix('.onnx')}.json"


def keep_graph(bundle: str | Path | None, size: Sequence[int], *, variant: str = "") -> KeptGraph:
    """Return the place of a model's graph for one size of images.

    Args:
        bundle: The folder of the model's bundle; None for a model without one, whose graph is kept in a temporary
            folder until the returned object is gone, since weights alone do not say what a model calculates.
        size: Height and width of the images in pixels.
        variant: What is calculated, where it is not the bundle's model as it is.
    """
    shown = "x".join(map(str, size))
    if bundle is None:
        # Made only when something is written; a name that nobody can guess.
        folder = Path(tempfile.gettempdir()) / f"softcam-exports-{secrets.token_hex(8)}"
        kept = KeptGraph(f"model-{shown}.onnx", (folder,))
        weakref.finalize(kept, shutil.rmtree, folder, ignore_errors=True)
        return kept
    config = read_config(bundle)
    # All of it, since the same tensors under another description calculate something else; but a calibration begins
    # where the graph ends, and statistics of images calculate nothing.
    facts = [
        replace(config.uncalibrated(), inputs=None, threshold_rule=None).to_json(),
        list(size),
        installed_versions(("softcam", "torch", *WRITERS)),
        *([variant] if variant else []),
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    name = f"{config.fingerprint[:12]}-{shown}-{digest[:12]}.onnx"
    return KeptGraph(name, (Path(bundle).resolve() / EXPORTS, _user_cache()))


def _user_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or ""
    # As the XDG specification has it, a path that is not absolute counts as none.
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "softcam" / EXPORTS


def _tell(folder: Path, refusals: Sequence[str]) -> None:
    warnings.warn(
        f"Expected to keep the exported graph beside the model, but that folder cannot be written "
        f"({'; '.join(refusals)}). It is in {folder} instead.",
        SoftCAMWarning,
        stacklevel=2,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    # What the exporter has to say about its own future.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
