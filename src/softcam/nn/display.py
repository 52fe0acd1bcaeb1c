"""Evidence as a notebook shows it: for each image the map that decided, drawn without further libraries."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import NamedTuple

import torch
from torch import Tensor

MOST_IMAGES = 8
"""Images of a batch that are shown."""

_SIDE = 168  # pixels of the longer side of a map
_AGAINST, _NEUTRAL, _FOR = (26, 131, 219), (245, 245, 245), (203, 90, 26)  # the ends of imaging's colours


def draw_evidence(logits: Tensor, maps: Tensor, *, independent: bool) -> str:
    """Return HTML with the prediction and the deciding map of each image; all maps share one colour scale.

    Args:
        logits: (N, K); beyond `MOST_IMAGES` images the number of the others is given.
        maps: (N, K, *grid).
        independent: Whether classes are read by their sigmoids, so that none is set against another.
    """
    if len(logits) == 0:
        return "<p>Evidence of no image</p>"
    shown, cells = (part[:MOST_IMAGES].detach().to("cpu", torch.float64) for part in (logits, maps))
    images = [_read_image(one, grid, independent=independent) for one, grid in zip(shown, cells, strict=True)]
    limit = max(float(image.values.abs().max()) for image in images) or 1.0
    figures = "".join(_draw_image(image, limit) for image in images)
    more = f"<p>and {len(logits) - len(shown)} more images</p>" if len(logits) > len(shown) else ""
    kind = "highest logit" if independent else "predicted class rather than the runner-up"
    size = " x ".join(str(length) for length in maps.shape[2:])
    scale = f"from &minus;{limit:.3g} (blue) to {limit:.3g} (orange) logits; the mean of the cells is the number below"
    head = f"<p>{len(logits)} images, {logits.shape[1]} classes, {size} cells. Evidence for the {kind}, {scale}.</p>"
    return f'<div>{head}<div style="display:flex;flex-wrap:wrap;gap:16px">{figures}</div>{more}</div>'


class _Image(NamedTuple):
    target: int
    chance: float
    rival: int | None
    values: Tensor  # (*grid), the map of the target, less that of the rival


def _read_image(logits: Tensor, maps: Tensor, *, independent: bool) -> _Image:
    target = int(logits.argmax())
    if independent:
        return _Image(target, float(logits[target].sigmoid()), None, maps[target])
    others = logits.clone()
    others[target] = -torch.inf
    rival = int(others.argmax())
    return _Image(target, float(logits.softmax(0)[target]), rival, maps[target] - maps[rival])


def _draw_image(image: _Image, limit: float) -> str:
    against = "" if image.rival is None else f" over class {image.rival}"
    picture = _draw_map(image.values, limit, f"Evidence for class {image.target}{against}")
    numbers = f"class {image.target}, {100 * image.chance:.1f} %<br>{float(image.values.mean()):+.3f} logits{against}"
    return f'<figure style="margin:0">{picture}<figcaption>{numbers}</figcaption></figure>'


def _draw_map(values: Tensor, limit: float, title: str) -> str:
    """Return one map as an image; a signal is one row, of a volume the mean over its depth is shown."""
    flat = values[None] if values.ndim == 1 else values.mean(0) if values.ndim == 3 else values
    rows, columns = flat.shape
    scale = _SIDE / max(rows, columns)
    width, height = max(8, round(columns * scale)), max(8, round(rows * scale))
    address = base64.b64encode(_encode_png(_color(flat, limit))).decode("ascii")
    style = f"width:{width}px;height:{height}px;image-rendering:pixelated"
    return f'<img alt="{title}" style="{style}" src="data:image/png;base64,{address}">'


def _color(values: Tensor, limit: float) -> Tensor:
    """Return the colours (h, w, 3) of signed values: straight lines from near-white to blue and to orange."""
    share = (values / limit).nan_to_num().clamp(-1, 1)[..., None]
    against, neutral, support = (torch.tensor(c, dtype=torch.float64) for c in (_AGAINST, _NEUTRAL, _FOR))
    end = torch.where(share < 0, against, support)
    return (neutral + share.abs() * (end - neutral)).round().to(torch.uint8)


def _encode_png(colors: Tensor) -> bytes:
    """Write an RGB image (h, w, 3) as PNG (ISO/IEC 15948): no filter, one chunk of data."""
    rows, columns, _ = colors.shape
    lines = torch.cat([torch.zeros(rows, 1, dtype=torch.uint8), colors.reshape(rows, -1)], 1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(lines.flatten().tolist()))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
