"""Bytes to network input and back to the eye: decoding, preprocessing, geometry, colour."""

from __future__ import annotations

from softcam.imaging.colormap import encode_png, overlay, overlay_view, scale_limit, signed_colors
from softcam.imaging.decode import count_frames, decode_image, image_from_array
from softcam.imaging.geometry import Geometry, Rectangle
from softcam.imaging.image import DecodedImage, DecodeLimits
from softcam.imaging.preprocessing import Preprocessing

__all__ = [
    "DecodeLimits",
    "DecodedImage",
    "Geometry",
    "Preprocessing",
    "Rectangle",
    "count_frames",
    "decode_image",
    "encode_png",
    "image_from_array",
    "overlay",
    "overlay_view",
    "scale_limit",
    "signed_colors",
]
