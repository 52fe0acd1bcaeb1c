"""What a service keeps, if told to: a signed record and an evidence file per prediction, and nothing of the image."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from softcam.files import write_atomic
from softcam.predict import Prediction
from softcam.records import ChainWriter, Signer, describe_prediction
from softcam.reporting.evidence_file import encode_evidence
from softcam.serving.problems import Problem

RECORDS = "records.jsonl"


class Store:
    """Append to `records.jsonl`, and write `evidence/<day>/<request>-<position>-<random>.npz`.

    The folder is made so that nobody but its owner can read it. A record names its evidence file, which is there before
    the record is, and its circumstances, which were recorded when the service began.

    Args:
        folder: Where to keep them.
        signer: Signs the records.
        contexts: What all predictions of a model have in common, by the model's name.

    Raises:
        OSError: If the folder cannot be written.
        RecordError: If there is a file of records that cannot be continued.
        RunError: If another process writes there.
    """

    def __init__(self, folder: Path, signer: Signer, contexts: Mapping[str, dict[str, Any]]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "evidence").mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._records = ChainWriter(folder / RECORDS, signer)
        records = self._records.add(*contexts.values())
        self._contexts = {name: record.digest for name, record in zip(contexts, records, strict=True)}

    def keep(self, prediction: Prediction, *, name: str, frame: int | None, model: str) -> None:
        """Keep one prediction; returns when it is on disk.

        Args:
            prediction: With status `ok`.
            name: What to call it: of the request, and its place in it.
            frame: Which one of a file with several, from 1.
            model: Name of the model.

        Raises:
            Problem: If it cannot be kept.
        """
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        path = self._folder / "evidence" / day / f"{name}-{token_hex(4)}.npz"
        file = path.relative_to(self._folder).as_posix()
        body = describe_prediction(prediction, name=name, frame=frame, file=file)
        try:
            # Not its parents: a folder that is gone, such as a lost share, must not come again in another place.
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(path, encode_evidence(prediction))
            self._records.add({**body, "context": self._contexts[model]})
        except OSError as error:
            reason = (error.strerror or "disk error").lower()
            raise Problem("cannot-store", f"the prediction cannot be stored: {reason}") from error

    def close(self) -> None:
        """Let others write the folder."""
        self._records.close()
