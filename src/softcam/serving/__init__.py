"""HTTP service: predictions with their evidence for other programs, and the viewer for people."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softcam.errors import MissingExtraError

if TYPE_CHECKING:
    from softcam.serving.app import create_app
    from softcam.serving.models import BACKENDS, ServedModel, choose_backend, open_models
    from softcam.serving.run import Listening, run_service
    from softcam.serving.settings import Access, Limits, ServiceSettings

_HOMES = {
    "BACKENDS": "models",
    "Access": "settings",
    "Limits": "settings",
    "Listening": "run",
    "ServedModel": "models",
    "ServiceSettings": "settings",
    "choose_backend": "models",
    "create_app": "app",
    "open_models": "models",
    "run_service": "run",
}
_LIBRARIES = (
    "fastapi",
    "httptools",
    "limits",
    "multipart",
    "orjson",
    "prometheus_client",
    "python_multipart",
    "uvicorn",
)

__all__ = [
    "BACKENDS",
    "Access",
    "Limits",
    "Listening",
    "ServedModel",
    "ServiceSettings",
    "choose_backend",
    "create_app",
    "open_models",
    "run_service",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, and name the extra that brings what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"softcam.serving.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _LIBRARIES:
            raise MissingExtraError((error.name or "").partition(".")[0], "serve") from error
        raise
