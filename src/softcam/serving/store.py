"""What a service keeps, if it was told to: a line and an evidence file per prediction, and nothing of the image."""

from __future__ import annotations

import errno
import json
import os
import threading
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path
from secrets import token_hex

from softcam.files import write_atomic
from softcam.predict import Prediction
from softcam.reporting.evidence_file import encode_evidence
from softcam.serving.problems import Problem
from softcam.viewer import ModelName


class Store:
    """Append to `predictions.jsonl`, and write `evidence/<day>/<request>-<position>-<random>.npz`.

    The folder is made so that nobody but its owner can read it. A line names its evidence file, which is there before
    the line is.

    Args:
        folder: Where to keep them.

    Raises:
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "evidence").mkdir(mode=0o700, exist_ok=True)
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
        path = self._folder / "evidence" / now.strftime("%Y-%m-%d") / f"{request_id}-{position}-{token_hex(4)}.npz"
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
            # Not its parents: a folder that is gone, such as a lost share, must not come again in another place.
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(path, encode_evidence(prediction))
            self._append(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise Problem(
                "cannot-store", f"the prediction cannot be stored: {error.strerror or 'disk error'}"
            ) from error

    def _append(self, line: str) -> None:
        content = line.encode()
        with self._lock, self._lines.open("ab", buffering=0) as stream:
            end = stream.tell()
            try:
                _write(stream, content)
            except OSError:
                # Half a line would spoil the next one.
                os.ftruncate(stream.fileno(), end)
                raise


def _write(stream: RawIOBase, content: bytes) -> None:
    if stream.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(stream.fileno())
