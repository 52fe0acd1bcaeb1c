"""Read every file that comes with pydicom and compare with its own reading: `python benchmarks/dicom_files.py`."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from environment import describe_environment
from options import choose_out, create_parser

from softcam.errors import ImageError
from softcam.files import write_atomic
from softcam.imaging import count_frames, decode_image

RESULT = Path(__file__).parent / "results" / "dicom_files.json"
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is read in another way")
    options = parser.parse_args()
    # pydicom's own reading, which is compared with, says much about these files.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    paths = [path for path in sorted(FOLDER.rglob("*")) if path.is_file()]
    rows = [describe(path) for path in paths[:: 20 if options.quick and not options.check else 1]]
    if options.check:
        stored = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
        different = [row["file"] for row, old in zip(rows, stored, strict=True) if row != old]
        sys.stderr.write("".join(f"{name} is read in another way\n" for name in different))
        return int(bool(different))
    record = {"environment": describe_environment(("pydicom", "pylibjpeg", "numpy", "pillow")), "rows": rows}
    write_atomic(choose_out(options, RESULT), json.dumps(record, indent=1) + "\n")
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Return what becomes of a file: its picture, or the reason why there is none."""
    name = path.relative_to(FOLDER).as_posix()
    try:
        frames = count_frames(path)
        image = decode_image(path, frame=1)
    except ImageError as error:
        return {"file": name, "outcome": "refused", "reason": str(error)}
    shown = image.pixels / np.iinfo(image.pixels.dtype).max
    return {
        "file": name,
        "outcome": "image",
        "frames": frames,
        "height": image.height,
        "width": image.width,
        "colour": image.pixels.ndim == 3,
        "bits": 8 * image.pixels.dtype.itemsize,
        "equal": bool(np.abs(shown - read_reference(path)).max() <= 1e-5),
    }


def read_reference(path: Path) -> npt.NDArray[np.float64]:
    """Return the first frame as pydicom's own functions give it, from 0 to 1."""
    dataset = pydicom.dcmread(path, force=True)
    decoder = pydicom.pixels.get_decoder(dataset.file_meta.TransferSyntaxUID)
    stored, _ = decoder.as_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        coloured = pydicom.pixels.apply_color_lut(stored, dataset)
        return coloured / np.iinfo(coloured.dtype).max
    if stored.ndim == 3:
        return stored / np.iinfo(stored.dtype).max
    values = pydicom.pixels.apply_modality_lut(stored, dataset).astype(float)
    low, high = find_ends(dataset, stored, values)
    if "WindowWidth" in dataset:
        values = pydicom.pixels.apply_windowing(values, dataset)
    shown = np.clip((values - low) / (high - low), 0, 1)
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def find_ends(dataset: Any, stored: npt.NDArray[Any], values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return black and white: of the stored bits, over which pydicom spreads a window, or of the frame."""
    if "WindowWidth" not in dataset and dataset.BitsStored > 8:
        shown = values[stored != dataset.get("PixelPaddingValue", 1 << 20)]
        return float(shown.min()), float(shown.max())
    signed = dataset.PixelRepresentation
    ends = (-(2 ** (dataset.BitsStored - 1)) if signed else 0, 2 ** (dataset.BitsStored - signed) - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return ends[0] * slope + intercept, ends[1] * slope + intercept


if __name__ == "__main__":
    sys.exit(main())
