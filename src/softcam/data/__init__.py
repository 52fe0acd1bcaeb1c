"""Tables of images, labels, patients and splits; augmentation; the Lightning data module; public data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

if TYPE_CHECKING:
    from softcam.data.dataset import ImageDataset
    from softcam.data.manifest import Manifest, check_manifest, read_manifest, write_manifest
    from softcam.data.module import ImageDataModule
    from softcam.data.splits import assign_splits
    from softcam.data.transforms import Augmentation

__all__ = [
    "Augmentation",
    "ImageDataModule",
    "ImageDataset",
    "Manifest",
    "assign_splits",
    "check_manifest",
    "read_manifest",
    "write_manifest",
]

# Reading a table must not wait for Lightning and torchvision.
_HOMES = {
    "Augmentation": "transforms",
    "ImageDataModule": "module",
    "ImageDataset": "dataset",
    "Manifest": "manifest",
    "assign_splits": "splits",
    "check_manifest": "manifest",
    "read_manifest": "manifest",
    "write_manifest": "manifest",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
