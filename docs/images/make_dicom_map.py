"""Draw a Parametric Map over its source, as they are read back from the files: `python docs/images/make_dicom_map.py`.

The source is a slice that pydicom ships (a CT of 128 x 128 pixels). The model is untrained: the picture shows where
values land, not what a model finds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pydicom
import torch

import softcam
from softcam.files import atomic_path
from softcam.imaging import Preprocessing, decode_image, scale_limit, signed_colors
from softcam.interop.dicom import ModelIdentity, ObjectSettings, read_source, write_objects
from softcam.nn import convert

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CLASSES = ("normal", "abnormal")


def write_map(source: Path, folder: Path, size: int) -> Path:
    """Predict the source on a centre crop and write its Parametric Map."""
    torch.manual_seed(3)
    model = convert(softcam.create_black_box("timm:test_resnet", num_classes=2).eval(), map_stride=16)
    predictor = softcam.Predictor(model, classes=CLASSES, preprocessing=Preprocessing(size=size, crop_fraction=0.75))
    (prediction,) = predictor([source])
    identity = ModelIdentity("test_resnet", predictor.fingerprint)
    settings = ObjectSettings(kinds=("map",))
    return write_objects(prediction, read_source(source), folder, model=identity, settings=settings)[0]


def read_map(path: Path) -> tuple[npt.NDArray[np.float32], str, npt.NDArray[np.bool_]]:
    """Return the first frame, its class, and where the network looked."""
    dataset = pydicom.dcmread(path)
    frame = dataset.pixel_array[0]
    label = dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].FrameLabel
    return frame, str(label), frame != np.float32(dataset.get("FloatPixelPaddingValue", np.nan))


def draw(source: Path, path: Path, out: Path) -> None:
    """Write the picture: the source, and the map over it."""
    grey = decode_image(source).to_rgb8()
    frame, label, seen = read_map(path)
    limit = scale_limit(frame[seen])
    colors = signed_colors(np.where(seen, frame, 0), limit)
    mixed = np.where(seen[..., None], 0.55 * grey + 0.45 * colors, grey).astype(np.uint8)
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.7), layout="constrained")
    titles = ("source", f"Parametric Map, evidence for {label}\n(full colour at {limit:.2g} logits per cell)")
    for axis, pixels, title in zip(axes, (grey, mixed), titles, strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=PACKAGED, help="DICOM image")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("dicom-map.png"))
    parser.add_argument("--size", type=int, default=192, help="side of the network's input")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(options.source, write_map(options.source, Path(folder), options.size), options.out)


if __name__ == "__main__":
    main()
