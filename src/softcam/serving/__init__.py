"""HTTP service: predictions with their evidence for other programs, and the viewer for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

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
_LIBRARIES = frozenset(
    {
        "fastapi",
        "httptools",
        "limits",
        "multipart",
        "orjson",
        "prometheus_client",
        "python_multipart",
        "uvicorn",
    }
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES, extra="serve", libraries=_LIBRARIES)
