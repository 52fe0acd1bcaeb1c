"""What a service keeps, if it was told to: a line and an evidence file per prediction, and nothing of the image."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from softcam.files import write_whole
from softcam.predict import Prediction
from softcam.reporting.evidence_file import encode_evidence
from softcam.serving.problems import Problem
from softcam.viewer import ModelName


class Store:
    """Append to `predictions.jsonl`, and write `evidence/<day>/<request>-<position>.npz`.

    The folder is made so that nobody but its owner can read it. A line names its evidence file, which is there before
    the line is.

    Args:
        folder: Where to keep them.

    Raises:
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._lock = folder, threading.Lock()
        self._lines = folder / "predictions.jsonl"
        with self._lines.open("ab"):
            pass
        self._lines.chmod(0o600)

    def keep(self, prediction: Prediction, *, request_id: str, position: int, model: ModelName) -> None:
        """Keep one prediction; returns when it is on disk.

        Raises:
            Problem: If it cannot be kept.
        """
        now = datetime.now(UTC)
        path = self._folder / "evidence" / now.strftime("%Y-%m-%d") / f"{request_id}-{position}.npz"
        line = {
            "time": now.isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "position": position,
            "model": {"name": model.name, "fingerprint": model.fingerprint},
            "image": prediction.digest,
            "predicted": prediction.predicted,
            "classes": list(prediction.classes),
            "logits": [float(value) for value in prediction.logits],
            "sum_error": prediction.sum_error,
            "evidence": path.relative_to(self._folder).as_posix(),
        }
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, encode_evidence(prediction))
            self._append(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise Problem(
                "cannot-store", f"the prediction cannot be stored: {error.strerror or 'disk error'}"
            ) from error

    def _append(self, line: str) -> None:
        with self._lock, self._lines.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
