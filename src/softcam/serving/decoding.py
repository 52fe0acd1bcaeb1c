"""A pool of processes that decode images, each of which can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.imaging import Geometry, Preprocessing
from softcam.predict import PreparedImage
from softcam.serving.decoder import LARGE, run_decoder
from softcam.serving.messages import pack, receive
from softcam.serving.problems import Problem
from softcam.serving.settings import Limits
from softcam.viewer import ImageSource, Preview

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PRELOADED = ["softcam.serving.decoder"]
_START_SECONDS = 120.0
_BUFFER = 1024 * 1024
_UNIX = getattr(socket, "AF_UNIX", None)
_TYPES = {"uint8": np.uint8, "float32": np.float32}
_ENDED = "the image ended its decoder; nothing else is affected"


@dataclass(frozen=True, eq=False)
class Decoded:
    """What is known of an upload.

    Args:
        window: What `Preprocessing.sample` gave: a quarter of the bytes of the network's input.
        image: All else that a predictor wants to know.
        source: What kind of file it came from.
        preview: The picture to show, if it was asked for.
    """

    window: npt.NDArray[Any]
    image: PreparedImage
    source: ImageSource
    preview: Preview | None

    def prepare(self, preprocessing: Preprocessing) -> PreparedImage:
        """Return the image with the network's input.

        Args:
            preprocessing: With which it was decoded.
        """
        return replace(self.image, tensor=preprocessing.to_input(self.window))


class Decoder:
    """One process, begun again whenever it has died; asked for one thing at a time.

    Args:
        memory: Bytes that it may take beside its libraries.
        patient: Whether it gives way to every other process.
    """

    _process: Any
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, memory: int, *, patient: bool = False) -> None:
        self._memory, self._patient = memory, patient
        self._context: Any = multiprocessing.get_context(_METHOD)
        self.overdue = False

    async def start(self) -> None:
        """Begin the process."""
        self.overdue = False
        ours, theirs = socket.socketpair()
        # An image then comes in one or two pieces.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._process = self._context.Process(
            target=run_decoder,
            args=(theirs, self._memory),
            kwargs={"patient": self._patient},
            name="softcam-decoder",
            daemon=True,
        )
        await asyncio.to_thread(self._process.start)
        theirs.close()
        open_stream = asyncio.open_unix_connection if ours.family == _UNIX else asyncio.open_connection
        self._reader, self._writer = await open_stream(sock=ours, limit=_BUFFER)

    async def ask(self, head: dict[str, Any], parts: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Send a message and return the answer.

        Raises:
            Problem: If the image cannot be used, took too long, or ended the process.
        """
        if self.overdue or not self._process.is_alive():
            # It has ended after its last answer, which is not the fault of this image.
            await self._replace()
        try:
            self._writer.writelines(pack(head, parts))
            await self._writer.drain()
            answer, content = await receive(self._reader)
        except (OSError, EOFError, ValueError):
            late = self.overdue
            await self._replace()
            detail = "decoding the image took too long and was ended" if late else _ENDED
            raise Problem("unusable", detail) from None
        if "problem" in answer:
            raise Problem(str(answer["problem"]), str(answer["detail"]))
        return answer, content

    def kill(self) -> None:
        """End the process now, because it takes too long."""
        self.overdue = True
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._writer.close()
        self._process.kill()
        self._process.join()

    async def _replace(self) -> None:
        self.close()
        await self.start()


class DecodePool:
    """As many images at a time as there are decoders; large ones one after the other in a decoder of their own.

    Args:
        decoders: Number of processes for images of usual size.
        limits: What an image may cost.
    """

    def __init__(self, decoders: int, limits: Limits) -> None:
        self._limits = limits
        self._all: list[Decoder] = []
        self._light: asyncio.Queue[Decoder] = asyncio.Queue()
        self._heavy: asyncio.Queue[Decoder] = asyncio.Queue()
        self._count = decoders

    async def start(self) -> None:
        """Begin the processes, and wait until each of them answers."""
        if _METHOD == "forkserver":
            multiprocessing.get_context(_METHOD).set_forkserver_preload(_PRELOADED)
        for lane, count in ((self._light, self._count), (self._heavy, 1)):
            for _ in range(count):
                decoder = Decoder(self._limits.decoder_bytes, patient=lane is self._heavy)
                await decoder.start()
                self._all.append(decoder)
                lane.put_nowait(decoder)
        await self._warm_up()

    async def _warm_up(self) -> None:
        empty: dict[str, Any] = {
            "job": "prepare",
            "limits": {},
            "most_pixels": 1,
            "preprocessing": {},
            "frame": None,
            "preview": False,
        }
        asked = [self._ask(lane, empty, (b"",), _START_SECONDS) for lane in [self._light] * self._count + [self._heavy]]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Problem):
                raise outcome

    def close(self) -> None:
        """End every process."""
        for decoder in self._all:
            decoder.close()

    async def prepare(
        self, content: bytes, *, preprocessing: dict[str, Any], frame: int | None, preview: bool
    ) -> Decoded:
        """Return what the network sees, and what else is known of the image, with its picture if it was asked for.

        Args:
            content: The file's bytes.
            preprocessing: `Preprocessing.to_dict()` of the model.
            frame: Which one of a file with several, from 1.
            preview: Whether to make a picture to show.

        Raises:
            Problem: If the image cannot be used.
        """
        head = {"job": "prepare", "preprocessing": preprocessing, "frame": frame, "preview": preview}
        answer, parts = await self._ask_by_size(head, (content,))
        window = np.frombuffer(parts[0], _TYPES[answer["dtype"]]).reshape(answer["shape"])
        spacing = None if answer["spacing"] is None else (answer["spacing"][0], answer["spacing"][1])
        image = PreparedImage(
            "upload",
            geometry=Geometry.from_dict(answer["geometry"]),
            digest=answer["digest"],
            spacing=spacing,
            channels=answer["channels"],
            bits=answer["bits"],
        )
        shown = answer["preview"]
        picture = None if shown is None else Preview(shown["width"], shown["height"], shown["depth"], parts[1])
        return Decoded(window, image, ImageSource(answer["format"], answer["frames"], answer["frame"]), picture)

    async def make_objects(self, head: dict[str, Any], content: bytes, maps: bytes) -> bytes:
        """Return a ZIP archive of DICOM objects; see `decoder.make_objects`.

        Raises:
            Problem: If the objects cannot be made.
        """
        _, parts = await self._ask(
            self._heavy, {"job": "objects", **head}, (content, maps), self._limits.decode_seconds + _START_SECONDS
        )
        return parts[0]

    async def _ask_by_size(self, head: dict[str, Any], parts: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        try:
            return await self._ask(self._light, self._limited(head, light=True), parts, self._limits.decode_seconds)
        except Problem as problem:
            # What is refused is refused at once: it must not wait among the large ones.
            if problem.kind != LARGE:
                raise
        return await self._ask(self._heavy, self._limited(head, light=False), parts, self._limits.decode_seconds)

    def _limited(self, head: dict[str, Any], *, light: bool) -> dict[str, Any]:
        names = ("max_pixels", "max_bytes", "max_frames")
        limits = {name: getattr(self._limits.of_decoding(light=False), name) for name in names}
        return {**head, "limits": limits, "most_pixels": self._limits.of_decoding(light=light).max_pixels}

    async def _ask(
        self, lane: asyncio.Queue[Decoder], head: dict[str, Any], parts: tuple[bytes, ...], seconds: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        decoder = await lane.get()
        watchdog = asyncio.get_running_loop().call_later(seconds, decoder.kill)
        asked = asyncio.create_task(decoder.ask(head, parts))
        asked.add_done_callback(partial(_give_back, lane, decoder, watchdog))
        # Shielded: a client that goes away must not free a decoder that still works for it.
        return await asyncio.shield(asked)


def _give_back(
    lane: asyncio.Queue[Decoder], decoder: Decoder, watchdog: asyncio.TimerHandle, asked: asyncio.Task[Any]
) -> None:
    watchdog.cancel()
    lane.put_nowait(decoder)
    if not asked.cancelled():
        asked.exception()  # of which nobody may have been left to hear
