"""Explanation methods, SoftCAM's and the post-hoc peers, behind one signature."""

from __future__ import annotations

from softcam.attribution.layers import find_target_layer
from softcam.attribution.methods import METHODS, Method, attribute, get_method, list_methods

__all__ = ["METHODS", "Method", "attribute", "find_target_layer", "get_method", "list_methods"]
