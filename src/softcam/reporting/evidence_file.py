"""The evidence of one prediction as a file that numpy reads."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.predict import Prediction


def encode_evidence(prediction: Prediction) -> bytes:
    """Return an `.npz` with `maps`, `logits`, `classes`, `geometry` and, where it is known, `spacing`.

    Of an ensemble also `maps_std` and `logits_std`, the standard deviations between its members.

    Numbers are stored as they are: evidence hardly gets smaller, and packing it takes longer than all the rest. The
    same prediction gives the same bytes.

    Args:
        prediction: With status `ok`.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in _list_arrays(prediction).items():
            packing = zipfile.ZIP_DEFLATED if array.dtype.kind == "U" else zipfile.ZIP_STORED
            # Without a time of its own, the member is of 1980.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _encode(array), packing, compresslevel=1)
    return stream.getvalue()


def _list_arrays(prediction: Prediction) -> dict[str, npt.NDArray[Any]]:
    geometry = prediction.geometry.to_json() if prediction.geometry else ""
    arrays = {
        "maps": prediction.maps,
        "logits": prediction.logits,
        "classes": np.array(prediction.classes),
        "geometry": np.array(geometry),
    }
    if prediction.members is not None:
        members = prediction.members
        arrays |= {"maps_std": members.deviate_maps(), "logits_std": members.deviate_logits()}
    return arrays if prediction.spacing is None else {**arrays, "spacing": np.array(prediction.spacing)}


def _encode(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()
