"""What a service says of itself: one JSON line per event, and numbers for Prometheus. Never of images or headers."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LOG = logging.getLogger("softcam.serving")

_FIELDS = "softcam_fields"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, event, and the fields that were given with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of an exception, its kind and where it was raised, since its text may quote anything."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            values["error"] = record.exc_info[0].__name__
            values["at"] = _find_place(record.exc_info[2])
        return json.dumps(values, ensure_ascii=False, default=str)


def tell(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write one line to the log."""
    LOG.log(level, event, extra={_FIELDS: fields}, exc_info=error)


def configure_logs(*, verbose: bool) -> dict[str, Any]:
    """Return the configuration of `logging` for a service: JSON lines on stderr, without an access log of uvicorn's.

    Args:
        verbose: Whether each request is a line; otherwise warnings and errors alone.
    """
    level = "INFO" if verbose else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {
            "softcam": {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
        },
    }


class Telemetry:
    """The numbers of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"softcam_{name}", text, labels, registry=self._registry)

        def histogram(name: str, text: str, labels: tuple[str, ...] = (), **kwargs: Any) -> Histogram:
            return Histogram(f"softcam_{name}", text, labels, registry=self._registry, **kwargs)

        self.requests = counter("requests", "Requests that were answered.", ("route", "status"))
        self.seconds = histogram("request_seconds", "From header to answer.", ("route",), buckets=_SECONDS)
        self.images = counter("images", "Images that were explained or refused.", ("model", "outcome"))
        self.model_seconds = histogram("model_seconds", "Of one batch in the model.", ("model",), buckets=_SECONDS)
        self.queue_seconds = histogram("queue_seconds", "From the input to its batch.", ("model",), buckets=_SECONDS)
        self.batch = histogram("batch_images", "Images in a batch.", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64))
        self.waiting = Gauge("softcam_requests_in_progress", "Requests being worked on.", registry=self._registry)

    def expose(self) -> tuple[bytes, str]:
        """Return the numbers in Prometheus' text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _find_place(trace: Any) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
