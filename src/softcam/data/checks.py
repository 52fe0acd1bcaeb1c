"""What can be wrong with a table of images: every problem with its row, none with a patient's name."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from softcam.data.boxes import parse_boxes
from softcam.data.labels import check_flags, check_labels
from softcam.data.paths import create_path_check, normalize_path
from softcam.data.tables import SPLITS, Draft, ImageTable
from softcam.errors import ImageError
from softcam.imaging import DecodedImage, decode_image


def list_problems(draft: Draft, classes: Sequence[str] | None) -> Iterator[str]:
    """Yield one sentence for each problem that shows without opening an image.

    Args:
        draft: The table as read.
        classes: Class names in the order of the logits, or None to take them from the labels.
    """
    yield from draft.problems
    if not len(draft):
        yield "Expected at least one image, but got none. Check that this is the right file or folder."
        return
    yield from _check_columns(list(draft.table.columns), classes)
    for column, check in _CHECKS.items():
        if column in draft.table:
            yield from check(draft)
    yield from check_labels(draft, classes) if "label" in draft.table else check_flags(draft, classes or ())


def list_image_problems(images: ImageTable) -> Iterator[str]:
    """Open every image and mask and yield one sentence for each that is unfit, and for each image in two splits.

    Args:
        images: The table; rows whose paths are empty, unsafe or lead nowhere are passed over.
    """
    find_fault = create_path_check(images.root)
    digests: dict[str, list[int]] = defaultdict(list)
    for position in range(len(images)):
        text = images.cell(position, "image")
        if not text or find_fault(text):
            continue
        try:
            image = decode_image(images.root / text)
        except ImageError as error:
            yield f"{images.place(position)}: expected `image` to be readable, but got: {error}"
            continue
        digests[image.digest].append(position)
        yield from _check_box_bounds(images, position, image)
        mask = images.cell(position, "mask")
        if mask and not find_fault(mask):
            yield from _check_mask(images, position, image)
    yield from _check_leaks(images, digests)


def _check_columns(present: Sequence[str], classes: Sequence[str] | None) -> Iterator[str]:
    flags = tuple(classes or ()) if set(classes or ()) & set(present) else ()
    labels = ("label",) if "label" in present or not flags else flags
    for name in ("image", *labels):
        if name not in present:
            close = difflib.get_close_matches(name, present, n=1)
            otherwise = "Add it." if name != "label" else "Add it, or name 0/1 columns with `classes`."
            hint = f"Rename {close[0]!r}." if close else otherwise
            yield f"Expected a column `{name}`, but got {list(present)}. {hint}"


def _check_images(draft: Draft) -> Iterator[str]:
    for position in np.flatnonzero(draft.table["image"] == ""):
        yield f"{draft.place(int(position))}: expected `image` to be a path, but got an empty cell."
    yield from _check_paths(draft, "image")
    names = [normalize_path(text) if text else "" for text in draft.table["image"]]
    for positions in _find_repeated(names):
        yield f"{draft.place(*positions)}: expected each image once, but these rows name the same one. Keep one."


def _check_masks(draft: Draft) -> Iterator[str]:
    yield from _check_paths(draft, "mask")


def _check_paths(draft: Draft, column: str) -> Iterator[str]:
    find_fault = create_path_check(draft.root)
    for position, text in enumerate(draft.table[column]):
        fault = find_fault(text) if text else None
        if fault is not None:
            yield f"{draft.place(position)}: expected `{column}` to be {fault}."


def _check_splits(draft: Draft) -> Iterator[str]:
    for position, text in enumerate(draft.table["split"]):
        if text not in SPLITS:
            got = repr(text) if text else "an empty cell"
            yield f"{draft.place(position)}: expected `split` to be one of {list(SPLITS)}, but got {got}."


def _check_patients(draft: Draft) -> Iterator[str]:
    patients = list(draft.table["patient"])
    for position in np.flatnonzero(draft.table["patient"] == ""):
        yield f"{draft.place(int(position))}: expected `patient` to be filled, but got an empty cell."
    for positions in _find_repeated(patients):
        splits = _list_splits(draft, positions)
        if len(splits) > 1:
            advice = "Move the rows into one."
            yield f"{draft.place(*positions)}: expected a patient to be in one split, but got {splits}. {advice}"


def _check_boxes(draft: Draft) -> Iterator[str]:
    for position, text in enumerate(draft.table["boxes"]):
        try:
            parse_boxes(text)
        except ValueError as error:
            yield f"{draft.place(position)}: {error}"


_CHECKS = {
    "image": _check_images,
    "mask": _check_masks,
    "split": _check_splits,
    "patient": _check_patients,
    "boxes": _check_boxes,
}


def _find_repeated(values: Sequence[str]) -> Iterator[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for position, value in enumerate(values):
        groups[value].append(position)
    return (positions for value, positions in groups.items() if value and len(positions) > 1)


def _list_splits(images: ImageTable, positions: Sequence[int]) -> list[str]:
    return sorted({images.cell(position, "split") for position in positions} - {""})


def _check_leaks(images: ImageTable, digests: dict[str, list[int]]) -> Iterator[str]:
    for positions in digests.values():
        splits = _list_splits(images, positions)
        if len(splits) > 1:
            yield f"{images.place(*positions)}: expected an image to be in one split, but got its copies in {splits}."


def _check_mask(images: ImageTable, position: int, image: DecodedImage) -> Iterator[str]:
    try:
        mask = decode_image(images.root / images.cell(position, "mask"))
    except ImageError as error:
        yield f"{images.place(position)}: expected `mask` to be readable, but got: {error}"
        return
    if (mask.height, mask.width) != (image.height, image.width):
        expected, got = f"{image.width}x{image.height}", f"{mask.width}x{mask.height}"
        yield f"{images.place(position)}: expected `mask` to have the image's {expected} pixels, but got {got}."


def _check_box_bounds(images: ImageTable, position: int, image: DecodedImage) -> Iterator[str]:
    try:
        boxes: NDArray[np.float64] = parse_boxes(images.cell(position, "boxes"))
    except ValueError:
        return  # `list_problems` has said so
    if ((boxes[:, 0] + boxes[:, 2] > image.width) | (boxes[:, 1] + boxes[:, 3] > image.height)).any():
        size = f"{image.width}x{image.height}"
        yield f"{images.place(position)}: expected `boxes` to lie in the image's {size} pixels, but got one outside."
