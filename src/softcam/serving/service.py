"""What a service does with an upload: decode, predict, describe, keep."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softcam.predict import Prediction
from softcam.records import describe_context
from softcam.serving.batching import Timed
from softcam.serving.decoding import Decoded, DecodePool
from softcam.serving.models import ServedModel
from softcam.serving.problems import Problem
from softcam.serving.settings import ServiceSettings
from softcam.serving.store import Store
from softcam.serving.telemetry import Telemetry
from softcam.viewer import ModelName, describe


@dataclass(frozen=True)
class Explained:
    """One image's answer.

    Args:
        document: What the client gets.
        timed: The prediction.
        decode_seconds: From the upload to the network's input.
    """

    document: dict[str, Any]
    timed: Timed
    decode_seconds: float


class Service:
    """The models, the decoders and the store of one service.

    Args:
        models: What answers; the first one where a client names none.
        settings: How.
        telemetry: Where to count.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServiceSettings, telemetry: Telemetry) -> None:
        self.models = {model.name: model for model in models}
        self.default = models[0].name
        self.settings = settings
        self.telemetry = telemetry
        self.ready = False
        self._pool = DecodePool(settings.decoders, settings.limits)
        self._store = self._open_store()

    def _open_store(self) -> Store | None:
        store, signer = self.settings.store, self.settings.signer
        if store is None or signer is None:
            return None
        contexts = {name: describe_context(model.predictor, name=name) for name, model in self.models.items()}
        return Store(store, signer, contexts)

    async def start(self) -> None:
        """Begin to work."""
        for model in self.models.values():
            model.batcher.start()
        await self._pool.start()
        # What has been loaded stays for good: looking through it for garbage again and again would hold up everybody.
        gc.collect()
        gc.freeze()
        self.ready = True

    async def close(self) -> None:
        """Stop working."""
        self.ready = False
        await asyncio.gather(*(model.batcher.close() for model in self.models.values()))
        self._pool.close()
        if self._store is not None:
            self._store.close()

    def find(self, name: str | None) -> ServedModel:
        """Return a model by its name, the default without one.

        Raises:
            Problem: If there is none of that name.
        """
        found = self.models.get(self.default if name is None else name)
        if found is None:
            raise Problem("not-found", f"there is no model of that name; there are {', '.join(self.models)}")
        return found

    async def explain(
        self,
        content: bytes,
        model: ServedModel,
        *,
        frame: int | None,
        preview: bool,
        request_id: str,
        position: int = 0,
    ) -> Explained:
        """Return what a model says of an image.

        Args:
            content: The file's bytes.
            model: Which model.
            frame: Which one of a file with several, from 1.
            preview: Whether to send a picture along.
            request_id: Of the request.
            position: Of the file in the request.

        Raises:
            Problem: If the image cannot be used.
        """
        begun = asyncio.get_running_loop().time()
        decoded = await self._prepare(content, model, frame=frame, preview=preview)
        seconds = asyncio.get_running_loop().time() - begun
        timed = await model.batcher.submit(decoded)
        if timed.prediction.status == "failed":
            self.telemetry.images.labels(model.name, "refused").inc()
            raise Problem("unusable", timed.prediction.reason)
        self._count(model, timed)
        if self._store is not None:
            await asyncio.to_thread(
                self._store.keep,
                timed.prediction,
                name=f"{request_id}-{position}",
                frame=decoded.source.frame,
                model=model.name,
            )
        document = describe(
            timed.prediction,
            model=ModelName.of(model.predictor, model.name),
            source=decoded.source,
            preview=decoded.preview,
        )
        return Explained(document, timed, seconds)

    async def explain_several(
        self, contents: Sequence[bytes], model: ServedModel, *, preview: bool, request_id: str
    ) -> list[dict[str, Any]]:
        """Return an answer for each image, in order; one that cannot be used does not stop the others."""

        async def answer(position: int, content: bytes) -> dict[str, Any]:
            try:
                found = await self.explain(
                    content, model, frame=None, preview=preview, request_id=request_id, position=position
                )
            except Problem as problem:
                if problem.status >= 500:  # which says nothing of the image
                    raise
                return {"status": "failed", "reason": problem.detail}
            return found.document

        return await asyncio.gather(*(answer(index, content) for index, content in enumerate(contents)))

    async def attribute(
        self, content: bytes, model: ServedModel, *, method: str, target: int, frame: int | None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the map (h, w) of a post-hoc method.

        Raises:
            Problem: If image, method or class cannot be used.
        """
        if method not in model.methods:
            raise Problem("unusable", f"`method` is none of {', '.join(model.methods)}")
        if not 0 <= target < len(model.predictor.classes):
            raise Problem("unusable", f"`target` is not from 0 to {len(model.predictor.classes) - 1}")
        decoded = await self._prepare(content, model, frame=frame, preview=False)
        found = await model.batcher.run(lambda: model.attribute(method, decoded, target))
        return np.asarray(found, np.float32)

    async def make_objects(
        self, content: bytes, model: ServedModel, *, frame: int | None, kinds: Sequence[str], request_id: str
    ) -> bytes:
        """Return a ZIP archive of the DICOM objects of a prediction.

        Raises:
            Problem: If the file is not DICOM, or the objects cannot be made.
        """
        if content[128:132] != b"DICM":
            raise Problem("unusable", "DICOM objects are made of DICOM files alone")
        found = await self.explain(content, model, frame=frame, preview=False, request_id=request_id)
        prediction = found.timed.prediction
        name = model.architecture or "own architecture"
        head = {
            "prediction": _to_fields(prediction),
            "shape": list(prediction.maps.shape),
            "frame": frame,
            "kinds": list(kinds),
            "model": {"name": name, "fingerprint": model.predictor.fingerprint},
        }
        return await self._pool.make_objects(head, content, prediction.maps.tobytes())

    async def _prepare(self, content: bytes, model: ServedModel, *, frame: int | None, preview: bool) -> Decoded:
        try:
            return await self._pool.prepare(content, preprocessing=model.preprocessing, frame=frame, preview=preview)
        except Problem:
            self.telemetry.images.labels(model.name, "refused").inc()
            raise

    def _count(self, model: ServedModel, timed: Timed) -> None:
        self.telemetry.images.labels(model.name, "explained").inc()
        self.telemetry.queue_seconds.labels(model.name).observe(timed.queue_seconds)
        self.telemetry.model_seconds.labels(model.name).observe(timed.model_seconds)
        self.telemetry.batch.labels(model.name).observe(timed.batch)


def _to_fields(prediction: Prediction) -> dict[str, Any]:
    geometry = None if prediction.geometry is None else prediction.geometry.to_dict()
    return {
        "id": prediction.id,
        "status": prediction.status,
        "classes": list(prediction.classes),
        "predicted": prediction.predicted,
        "probabilities": prediction.probabilities.tolist(),
        "logits": prediction.logits.tolist(),
        "geometry": geometry,
        "sum_error": prediction.sum_error,
        "digest": prediction.digest,
        "spacing": prediction.spacing,
        "multi_label": prediction.multi_label,
    }
