"""IDRiD and folders like it: fundus photographs with one mask per kind of lesion, as truth for maps.

Images lie anywhere; a mask is named after its image with the kind of lesion at the end, such as `IDRiD_01_MA.tif`
(microaneurysms), `_HE` (haemorrhages), `_EX` (hard exudates) or `_SE` (soft exudates). Masks of the optic disc (`_OD`)
are no lesions. Every image goes to the split `test`: this is what a model is asked about, not what it learns from.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softcam.data import pictures
from softcam.data.archives import Member
from softcam.data.downloads import (
    Download,
    Order,
    Plan,
    PreparationSettings,
    Product,
    Row,
    describe_absence,
    index_images,
    match_images,
)
from softcam.data.fundus import find_square
from softcam.data.paths import IMAGE_SUFFIXES
from softcam.errors import ImageError
from softcam.imaging import decode_image

LABELS: Mapping[str, tuple[str, ...]] = {"onset1": ("healthy", "referable")}
"""An image with any lesion is referable, as for `kaggle-dr`."""

LESIONS = ("MA", "HE", "EX", "SE")
_MASK = re.compile(r"(.+)_(MA|HE|EX|SE|OD)", re.IGNORECASE)


def plan(members: Sequence[Member], settings: PreparationSettings) -> Plan:  # noqa: ARG001 - there is nothing to set
    """Match photographs and masks by name; see `Download.plan`.

    Raises:
        ManifestError: If no image is there.
    """
    images = index_images(members, _name_image)
    masks = index_images(members, _name_mask)
    lesions: dict[str, list[Member]] = defaultdict(list)
    for name, member in masks.items():
        lesions[name.rsplit("_", 1)[0]].append(member)
    rows = [(name, {"split": "test", "patient": name}) for name in images if name in lesions]
    if not rows:
        raise describe_absence("images with masks such as <name>_MA.tif", members)
    orders, _ = match_images(rows, images, members)
    complete_orders = tuple(Order(order.stem, (*order.members, *lesions[order.stem]), order.row) for order in orders)
    bare = [(member.name, "no mask of a lesion") for name, member in images.items() if name not in lesions]
    lone = [(member.name, "no image of this name") for name in lesions.keys() - images for member in lesions[name]]
    return Plan(complete_orders, (*bare, *sorted(lone)))


def convert(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
    """Return the square around the fundus and the union of its masks in the same square; see `Download.convert`.

    A pixel of the written mask is marked if a lesion covers any part of it: small ones would be lost otherwise.
    """
    pixels = decode_image(contents[0]).to_rgb8()
    union = np.zeros((pixels.shape[0], pixels.shape[1]), dtype=np.uint8)
    for content in contents[1:]:
        marked = _read_mask(content)
        if marked.shape != union.shape:
            expected, got = f"{union.shape[1]}x{union.shape[0]}", f"{marked.shape[1]}x{marked.shape[0]}"
            raise ImageError(f"a mask has {got} pixels, its image {expected}")
        union |= marked
    square = find_square(pixels)
    side = size or square.side
    image = pictures.resample(pictures.cut(pixels, square.corners), side, side)
    mask = _cover(pictures.cut(union, square.corners), side)
    files = {f"images/{stem}.png": pictures.encode(image), f"masks/{stem}.png": pictures.encode(mask)}
    return Product(files, square.columns | {"marked": bool(mask.any()), "mask": f"masks/{stem}.png"})


def complete(row: Row, facts: Row) -> Row:
    """Return the manifest's columns; see `Download.complete`."""
    marked, mask = facts["marked"], facts["mask"]
    crop = {name: value for name, value in facts.items() if name not in ("marked", "mask")}
    return row | {"label": LABELS["onset1"][marked], "mask": mask if marked else ""} | crop


def _name_image(member: Member) -> str | None:
    is_image = member.suffix in IMAGE_SUFFIXES and not _MASK.fullmatch(member.stem)
    return member.stem if is_image else None


def _name_mask(member: Member) -> str | None:
    found = _MASK.fullmatch(member.stem)
    is_lesion = found is not None and found[2].upper() in LESIONS and member.suffix in IMAGE_SUFFIXES
    return f"{found[1]}_{found[2].upper()}" if found is not None and is_lesion else None


def _read_mask(content: bytes) -> NDArray[np.uint8]:
    pixels = np.atleast_3d(decode_image(content).pixels)
    return np.asarray(pixels.any(axis=2), dtype=np.uint8)


def _cover(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    plane = Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    result: NDArray[np.uint8] = (np.asarray(plane) > 0).astype(np.uint8) * 255
    return result


IDRID = Download("idrid", "fundus photographs with masks of lesions, as truth", LABELS, 512, plan, convert, complete)
