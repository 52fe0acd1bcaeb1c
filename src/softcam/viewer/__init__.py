"""The page that shows evidence: what it is told of an explanation, its files, and the page that holds its own data."""

from __future__ import annotations

from softcam.viewer.embed import View, view
from softcam.viewer.page import StaticFile, build_page, list_static, read_index, read_static
from softcam.viewer.payload import ImageSource, ModelName, describe, describe_model, to_json
from softcam.viewer.preview import Preview, make_preview

__all__ = [
    "ImageSource",
    "ModelName",
    "Preview",
    "StaticFile",
    "View",
    "build_page",
    "describe",
    "describe_model",
    "list_static",
    "make_preview",
    "read_index",
    "read_static",
    "to_json",
    "view",
]
