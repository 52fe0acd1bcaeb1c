"""ELPV: 2,624 electroluminescence images of solar cells, 300x300 pixels, 8-bit grey, graded for defects.

The package `elpv-dataset` brings the images. Each has the probability of a defect by expert grading (0, 1/3, 2/3 or 1)
and the type of its module, mono- or polycrystalline. Which of the 44 modules a cell was cut from is not published, so
the splits keep types and labels in proportion but cannot keep modules apart.
"""

from __future__ import annotations

import filecmp
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from softcam.data.manifest import Manifest, read_manifest, write_manifest
from softcam.data.splits import assign_splits
from softcam.errors import MissingExtraError
from softcam.files import atomic_path, write_atomic

CLASSES = ("intact", "defect")
PACKAGE = "elpv_dataset"
NOTICE = """\
The images in this folder are the ELPV data set, published at https://github.com/zae-bayern/elpv-dataset
under the Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License (CC BY-NC-SA 4.0),
https://creativecommons.org/licenses/by-nc-sa/4.0/. They are unchanged copies. The labels in manifest.csv are derived:
"defect" where the published probability is above 0.5. This license does not extend to softcam, nor softcam's to them.

Please cite:

Buerhop-Lutz, C.; Deitsch, S.; Maier, A.; Gallwitz, F.; Berger, S.; Doll, B.; Hauch, J.; Camus, C.; Brabec, C. J.
A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery.
European PV Solar Energy Conference and Exhibition (EU PVSEC), 2018. doi:10.4229/35thEUPVSEC20182018-5CV.3.15

Deitsch, S.; Buerhop-Lutz, C.; Sovetkin, E.; Steland, A.; Maier, A.; Gallwitz, F.; Riess, C.
Segmentation of photovoltaic module cells in uncalibrated electroluminescence images.
Machine Vision and Applications 32(4), 2021. doi:10.1007/s00138-021-01191-9

Deitsch, S.; Christlein, V.; Berger, S.; Buerhop-Lutz, C.; Maier, A.; Gallwitz, F.; Riess, C.
Automatic classification of defective photovoltaic module cells in electroluminescence images.
Solar Energy 185, 455-468, 2019. doi:10.1016/j.solener.2019.02.067
"""


def prepare(out: str | Path, *, seed: int = 0) -> Manifest:
    """Copy the images to `out/images` and write `out/manifest.csv` and `out/NOTICE.txt`.

    The splits (65 % train, 10 % validation, 25 % test, stratified by cell type and label) are drawn from the seed and
    stored in the manifest, which is written last. The same call repeats or continues the work and copies only what is
    missing or differs.

    Args:
        out: The folder, created if needed.
        seed: Draws another split for another number.

    Returns:
        The manifest, with the columns `image`, `label`, `split`, `probability` and `cell_type`.

    Raises:
        MissingExtraError: If the package `elpv-dataset` is not installed.
    """
    out = Path(out)
    source = _find_source()
    table = _read_labels(source / "labels.csv")
    split = assign_splits(table, seed=seed, stratify=["cell_type", "label"])
    table.insert(2, "split", split)
    write_atomic(out / "NOTICE.txt", NOTICE)
    for image in table["image"]:
        _copy(source / image, out / image)
    write_manifest(table, out / "manifest.csv")
    return read_manifest(out / "manifest.csv", classes=CLASSES)


def _find_source() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(PACKAGE, "demo")
    return Path(spec.origin).parent / "data"


def _read_labels(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep=r"\s+", header=None, names=["image", "probability", "cell_type"])
    table.insert(1, "label", np.where(table["probability"] > 0.5, CLASSES[1], CLASSES[0]))
    return table


def _copy(source: Path, target: Path) -> None:
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
