"""Class weights against scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from softcam.data.manifest import Manifest
from softcam.data.module import ImageDataModule
from softcam.imaging import Preprocessing


def test_weights_are_the_balanced_ones() -> None:
    labels = ["a"] * 7 + ["b"] * 2 + ["c"] * 5
    table = pd.DataFrame({"image": [f"{number}.png" for number in range(14)], "label": labels, "split": "train"})
    manifest = Manifest(table, Path(), ("a", "b", "c"), "multiclass")
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    assert ImageDataModule(manifest, Preprocessing()).class_weights().tolist() == pytest.approx(expected.tolist())
