"""Malformed images and DICOM files, each with the reason for which it has to be refused.

    python tests/fuzz/corpus.py FOLDER      # writes them, with expected.json

Everything is derived from small valid files by fixed steps, so that the corpus is the same each time and none of it has
to be kept.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

DAMAGED = "truncated or damaged"
NO_IMAGE = "not a readable"
TOO_LARGE = "more than"
DICOM = "DICOM"
KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
PHOTOMETRICS = ("RGB", "PALETTE COLOR", "YBR_FULL", "CIELAB", "X")
NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation", "PixelData")
CUTS = tuple(step / 20 for step in range(1, 20))
PIXELS = np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8)


class Malformed(NamedTuple):
    """A file that is no usable image.

    Args:
        name: Unique.
        content: Bytes.
        reason: A regular expression that the refusal matches.
    """

    name: str
    content: bytes
    reason: str


def list_malformed() -> Iterator[Malformed]:
    """Yield every file of the corpus."""
    yield from _cut_images()
    yield from _spoil_png()
    yield from _spoil_sizes()
    yield from _name_others()
    yield from _cut_dicom()
    yield from _spoil_dicom()


def encode(kind: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _cut_images() -> Iterator[Malformed]:
    grey = PIXELS[..., 0]
    variants = {
        **{kind.lower(): encode(kind) for kind in KINDS},
        "png-grey": encode("PNG", grey),
        "png-16": encode("PNG", grey.astype(np.uint16) * 257),
        "jpeg-progressive": encode("JPEG", progressive=True),
        "jpeg-grey": encode("JPEG", grey),
        "tiff-lzw": encode("TIFF", compression="tiff_lzw"),
        "tiff-deflate": encode("TIFF", compression="tiff_deflate"),
        "webp-lossless": encode("WEBP", lossless=True),
    }
    for name, content in variants.items():
        for cut in CUTS:
            reason = f"{DAMAGED}|{NO_IMAGE}"
            yield Malformed(f"{name}-cut-{round(100 * cut):02d}", content[: int(len(content) * cut)], reason)


def _chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def make_png(width: int, height: int, *, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """Return a PNG of any header, however little it fits its content."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(bytes((min(width, 64) + 1) * min(height, 64)) if rows is None else rows)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _spoil_png() -> Iterator[Malformed]:
    broken = f"{DAMAGED}|{NO_IMAGE}|pixels"
    for width, height in ((0, 8), (8, 0), (0, 0)):
        yield Malformed(f"png-{width}x{height}", make_png(width, height), broken)
    for depth, colour in ((3, 0), (0, 0), (32, 2), (8, 1), (8, 5), (16, 3), (4, 2)):
        yield Malformed(f"png-depth-{depth}-colour-{colour}", make_png(8, 8, depth=depth, colour=colour), broken)
    for name, rows in (("empty", b""), ("short", bytes(30)), ("filter", b"\x09" + bytes(71))):
        yield Malformed(f"png-rows-{name}", make_png(32, 32, rows=rows), broken)
    good = encode("PNG")
    at = good.index(b"IDAT")
    for offset in range(8, 40, 4):
        spoilt = bytearray(good)
        spoilt[at + offset] ^= 0xFF
        yield Malformed(f"png-data-{offset}", bytes(spoilt), broken)
    yield Malformed("png-no-header", good[:8] + good[33:], broken)
    yield Malformed("png-no-data", good[:33] + _chunk(b"IEND", b""), broken)
    yield Malformed("png-long-chunk", good[:8] + struct.pack(">I", 2**31 - 1) + good[12:], broken)


def _spoil_sizes() -> Iterator[Malformed]:
    """Say, in the headers of every format, that the image is far larger than anyone may ask for."""
    for side in (20_000, 50_000, 2**20, 2**31 - 1):
        yield Malformed(f"png-bomb-{side}", make_png(side, side), f"{TOO_LARGE}|{NO_IMAGE}|{DAMAGED}")
    for name, side in (("thin", 1), ("flat", 1)):
        sides = (side, 100) if name == "thin" else (100, side)
        yield Malformed(f"png-{name}", make_png(*sides), "at least 2")
    bmp = bytearray(encode("BMP"))
    for width, height in ((30_000, 30_000), (2**31 - 1, 4), (4, 2**31 - 1)):
        struct.pack_into("<ii", bmp, 18, width, height)
        yield Malformed(f"bmp-bomb-{width}x{height}", bytes(bmp), f"{TOO_LARGE}|{DAMAGED}|{NO_IMAGE}")
    jpeg = bytearray(encode("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, frame + 5, 65_500, 65_500)
    yield Malformed("jpeg-bomb", bytes(jpeg), f"{TOO_LARGE}|{DAMAGED}")
    gif = bytearray(encode("GIF"))
    struct.pack_into("<HH", gif, 6, 65_535, 65_535)
    yield Malformed("gif-bomb", bytes(gif), f"{TOO_LARGE}|{DAMAGED}")


def _name_others() -> Iterator[Malformed]:
    others = {
        "empty": (b"", "empty"), "text": (b"an image\n" * 9, NO_IMAGE), "zeros": (bytes(5000), NO_IMAGE),
        "html": (b"<html><script>alert(1)</script></html>", NO_IMAGE), "svg": (b"<svg xmlns='x'/>", NO_IMAGE),
        "pdf": (b"%PDF-1.7\n%x\n", NO_IMAGE), "zip": (b"PK\x03\x04" + bytes(60), NO_IMAGE),
        "elf": (b"\x7fELF" + bytes(60), NO_IMAGE), "pickle": (b"\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x01x.", NO_IMAGE),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_IMAGE),
        "ppm": (b"P6 4 4 255\n" + bytes(48), NO_IMAGE), "tga": (bytes([0, 0, 2]) + bytes(60), NO_IMAGE),
        "ico": (b"\0\0\1\0\1\0" + bytes(60), NO_IMAGE), "psd": (b"8BPS\0\1" + bytes(60), NO_IMAGE),
        "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), NO_IMAGE), "fits": (b"SIMPLE  =" + bytes(80), NO_IMAGE),
        "animation": (_animate("GIF"), "more than one image"), "pages": (_animate("TIFF"), "more than one image"),
        "webp-animation": (_animate("WEBP"), "more than one image"), "apng": (_animate("PNG"), "more than one image"),
    }  # fmt: skip
    for name, (content, reason) in others.items():
        yield Malformed(f"other-{name}", content, reason)
    for kind in KINDS:
        content = encode(kind)
        yield Malformed(f"{kind.lower()}-no-magic", bytes(16) + content[16:], f"{NO_IMAGE}|{DAMAGED}")


def _animate(kind: str) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(np.roll(PIXELS, step, 1)) for step in range(3)]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def make_dicom(pixels: np.ndarray, **elements: object) -> bytes:
    """Return a DICOM file around pixels, with any elements changed; those that are None are left out."""
    import pydicom  # noqa: PLC0415 - the corpus of other images does without
    from pydicom.uid import ExplicitVRLittleEndian  # noqa: PLC0415 - as above

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.PatientName = "MARKED^PATIENT"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _cut_dicom() -> Iterator[Malformed]:
    for name, pixels in (("8", PIXELS[..., 0]), ("16", PIXELS[..., 0].astype(np.uint16) * 16)):
        content = make_dicom(pixels)
        for cut in CUTS:
            part = content[: int(len(content) * cut)]
            yield Malformed(
                f"dicom-{name}-cut-{round(100 * cut):02d}", part, f"{DICOM}|{NO_IMAGE}|damaged|no picture|no image"
            )


def _spoil_dicom() -> Iterator[Malformed]:
    grey = PIXELS[..., 0]
    any_reason = f"{DICOM}|pixels|bits|samples|damaged|element|picture|image"
    changes: dict[str, dict[str, object]] = {
        **{f"rows-{n}": {"Rows": n} for n in (0, 1, 47, 49, 65_535)},
        **{f"columns-{n}": {"Columns": n} for n in (0, 1, 63, 65, 65_535)},
        **{f"bits-{n}": {"BitsAllocated": n, "BitsStored": n, "HighBit": n - 1} for n in (2, 4, 12, 32, 64)},
        **{f"stored-{n}": {"BitsStored": n} for n in (0, 9, 16, 255)},
        **{f"samples-{n}": {"SamplesPerPixel": n} for n in (0, 2, 3, 4, 255)},
        **{f"frames-{n}": {"NumberOfFrames": n} for n in (2, 10_001, 2**31 - 1)},
        **{f"photometric-{n}": {"PhotometricInterpretation": n} for n in PHOTOMETRICS},
        **{f"no-{n}": {n: None} for n in NEEDED},
        "representation": {"PixelRepresentation": 2},
        "class-text": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None},
        "class-waveform": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1", "PixelData": None},
        "float-pixels": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.30", "PixelData": None},
        "window-text": {"WindowCenter": [1e308], "WindowWidth": [1e-308], "VOILUTFunction": "NONSENSE"},
    }  # fmt: skip
    for name, elements in changes.items():
        yield Malformed(f"dicom-{name}", make_dicom(grey, **elements), any_reason)
    good = make_dicom(grey)
    for syntax in (
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
        "1.2.3",
    ):
        other = syntax.encode().ljust(20, b"\0")[:20]
        replaced = good.replace(b"1.2.840.10008.1.2.1\0", other)
        yield Malformed(f"dicom-syntax-{syntax}", replaced, any_reason)
    for offset in (132, 156, 180, 228, 252, 276):
        yield Malformed(f"dicom-hole-{offset}", good[:offset] + b"\xff" * 24 + good[offset + 24 :], any_reason)


def write(folder: Path) -> int:
    """Write the corpus and its expected refusals; return how many files there are."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for found in list_malformed():
        (folder / found.name).write_bytes(found.content)
        expected[found.name] = found.reason
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    return len(expected)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])), "files")  # noqa: T201 - a script
