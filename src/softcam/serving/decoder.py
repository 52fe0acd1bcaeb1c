"""What runs in a process of its own: untrusted bytes become pixels for the network, a picture to show, or DICOM."""

from __future__ import annotations

import importlib
import io
import os
import signal
import socket
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softcam.errors import DicomError, ImageError, ImageTooLargeError, MissingExtraError, NotAnImageError
from softcam.imaging import DecodeLimits, Geometry, Preprocessing, count_frames, decode_image
from softcam.predict import Prediction
from softcam.serving.messages import pack, read
from softcam.serving.polyglots import check_sole
from softcam.viewer import make_preview

_KINDS: dict[type[Exception], str] = {ImageTooLargeError: "too-large", NotAnImageError: "not-an-image"}

LARGE = "large"
"""The problem of an image that is within the limits, but is to be decoded elsewhere."""

Job = Callable[..., tuple[dict[str, Any], tuple[bytes, ...]]]


def run_decoder(connection: socket.socket, memory: int, *, patient: bool) -> None:
    """Answer messages until the other side is gone.

    Args:
        connection: To the service.
        memory: Bytes that this process may take beside what its libraries have.
        patient: Whether it gives way to every other process.
    """
    # Ctrl-C and a supervisor's signal to the group are for the service, which ends its decoders itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if patient and hasattr(os, "nice"):
        os.nice(10)
    limit_memory(memory)
    jobs: dict[str, Job] = {"prepare": prepare, "objects": make_objects}
    stream = connection.makefile("rb")
    while True:
        try:
            head, parts = read(stream)
        except (EOFError, ConnectionError):
            return
        try:
            answer, content = jobs[head["job"]](head, *parts)
        except (ImageError, DicomError, MissingExtraError) as error:
            answer, content = {"problem": _KINDS.get(type(error), "unusable"), "detail": str(error)}, ()
        except MemoryError:
            answer, content = {"problem": "too-large", "detail": "decoding the image needs too much memory"}, ()
        try:
            connection.sendall(b"".join(pack(answer, content)))
        except ConnectionError:
            return


def limit_memory(extra: int) -> None:
    """Let this process take so many bytes beside what it has; without effect where the system cannot."""
    try:
        resource = importlib.import_module("resource")
        status = Path("/proc/self/status").read_text(encoding="ascii")
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = used + extra
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    except (ImportError, OSError, StopIteration, ValueError):
        return


def prepare(head: dict[str, Any], content: bytes) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """Decode an image and take from it what the network sees.

    Args:
        head: `limits`, `most_pixels` that are decoded here, `preprocessing`, `frame` and `preview`.
        content: The file's bytes.

    Returns:
        `shape`, `dtype`, `geometry`, `digest`, `format`, `frame`, `frames`, `spacing`, `channels`, `bits` and
        `preview`; what `Preprocessing.sample` gave and, if it was asked for, the picture as PNG.
    """
    check_sole(content)
    limits = DecodeLimits(**head["limits"])
    try:
        image = decode_image(content, limits=replace(limits, max_pixels=head["most_pixels"]), frame=head["frame"])
    except ImageTooLargeError as error:
        if error.pixels is None:
            raise
        if error.pixels > limits.max_pixels:
            raise ImageTooLargeError(f"more than {limits.max_pixels} pixels") from None
        return {"problem": LARGE, "detail": ""}, ()
    window, geometry = Preprocessing.from_dict(head["preprocessing"]).sample(image)
    answer = {
        "shape": list(window.shape),
        "dtype": window.dtype.name,
        "geometry": geometry.to_dict(),
        "digest": image.digest,
        "format": image.format,
        "frame": image.frame,
        # The header is read again only where there are several: otherwise an image has no number.
        "frames": 1 if image.frame is None else count_frames(content, limits=limits),
        "spacing": image.spacing,
        "channels": image.channels,
        "bits": image.bits,
        "preview": None,
    }
    parts = [window.tobytes()]
    if head["preview"]:
        preview = make_preview(image)
        answer["preview"] = {"width": preview.width, "height": preview.height, "depth": preview.depth}
        parts.append(preview.png)
    return answer, tuple(parts)


def make_objects(head: dict[str, Any], content: bytes, maps: bytes) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """Make a ZIP archive of the DICOM objects of one prediction.

    Args:
        head: `prediction` (fields of a `Prediction` but the arrays, with `logits` and `probabilities` as lists),
            `shape` of the maps, `frame`, `kinds` and `model`.
        content: The bytes of the DICOM file that was predicted.
        maps: float32.
    """
    # Its libraries are loaded when the first objects are asked for, and not needed by any other request.
    dicom = importlib.import_module("softcam.interop.dicom")
    check_sole(content)
    fields: dict[str, Any] = dict(head["prediction"])
    fields["geometry"] = Geometry.from_dict(fields["geometry"])
    fields["classes"] = tuple(fields["classes"])
    fields |= {name: np.array(fields[name], np.float32) for name in ("probabilities", "logits")}
    prediction = Prediction(**fields, maps=np.frombuffer(maps, np.float32).reshape(head["shape"]))
    source = dicom.read_source(content, frame=head["frame"])
    settings = dicom.ObjectSettings(tuple(head["kinds"]))
    with tempfile.TemporaryDirectory(prefix="softcam-") as folder:
        paths = dicom.write_objects(
            prediction, source, folder, model=dicom.ModelIdentity(**head["model"]), settings=settings
        )
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in paths:
                archive.write(path, path.name)
    return {}, (stream.getvalue(),)
