"""A pool of processes that decode images, each of which can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from softcam.imaging import Geometry
from softcam.predict import PreparedImage
from softcam.serving.decoder import LARGE, receive, run_decoder, send
from softcam.serving.problems import Problem
from softcam.serving.settings import Limits
from softcam.viewer import ImageSource, Preview

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PRELOADED = ["softcam.serving.decoder"]
_START_SECONDS = 120.0
_ENDED = "the image ended its decoder; nothing else is affected"


@dataclass(frozen=True, eq=False)
class Decoded:
    """What is known of an upload.

    Args:
        image: The network's input.
        source: What kind of file it came from.
        preview: The picture to show, if it was asked for.
    """

    image: PreparedImage
    source: ImageSource
    preview: Preview | None


class Decoder:
    """One process, begun again whenever it has died; used by one thread at a time.

    Args:
        memory: Bytes that it may take beside its libraries.
        patient: Whether it gives way to every other process.
    """

    def __init__(self, memory: int, *, patient: bool = False) -> None:
        self._memory, self._patient = memory, patient
        self._context: Any = multiprocessing.get_context(_METHOD)
        self.overdue = False
        self._start()

    def ask(self, head: dict[str, Any], parts: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        """Send a message and return the answer.

        Raises:
            Problem: If the image cannot be used, took too long, or ended the process.
        """
        if self.overdue or not self._process.is_alive():
            # It has ended after its last answer, which is not the fault of this image.
            self._replace()
        try:
            send(self._connection, head, parts)
            answer, content = receive(self._connection)
        except (OSError, EOFError, ValueError):
            late = self.overdue
            self._replace()
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
        self._connection.close()
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self.overdue = False
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=run_decoder,
            args=(theirs, self._memory),
            kwargs={"patient": self._patient},
            name="softcam-decoder",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def _replace(self) -> None:
        self.close()
        self._start()


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
        self._threads = ThreadPoolExecutor(decoders + 1, thread_name_prefix="softcam-decoder")
        self._count = decoders

    def start(self) -> None:
        """Begin the processes."""
        context = multiprocessing.get_context(_METHOD)
        if _METHOD == "forkserver":
            context.set_forkserver_preload(_PRELOADED)
        for lane, count in ((self._light, self._count), (self._heavy, 1)):
            for _ in range(count):
                decoder = Decoder(self._limits.decoder_bytes, patient=lane is self._heavy)
                self._all.append(decoder)
                lane.put_nowait(decoder)

    async def warm_up(self) -> None:
        """Wait until every process answers."""
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
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, content: bytes, *, preprocessing: dict[str, Any], frame: int | None, preview: bool
    ) -> Decoded:
        """Return the network's input, and what else is known of the image, with its picture if it was asked for.

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
        tensor = torch.frombuffer(bytearray(parts[0]), dtype=torch.float32).reshape(answer["shape"])
        spacing = None if answer["spacing"] is None else (answer["spacing"][0], answer["spacing"][1])
        image = PreparedImage(
            "upload",
            tensor=tensor,
            geometry=Geometry.from_dict(answer["geometry"]),
            digest=answer["digest"],
            spacing=spacing,
            channels=answer["channels"],
            bits=answer["bits"],
        )
        shown = answer["preview"]
        picture = None if shown is None else Preview(shown["width"], shown["height"], shown["depth"], parts[1])
        return Decoded(image, ImageSource(answer["format"], answer["frames"], answer["frame"]), picture)

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
        loop = asyncio.get_running_loop()
        watchdog = loop.call_later(seconds, decoder.kill)
        asked = self._threads.submit(decoder.ask, head, parts)
        give_back = partial(loop.call_soon_threadsafe, _give_back, lane, decoder, watchdog)
        asked.add_done_callback(lambda _: _unless_closed(give_back))
        # Shielded: a client that goes away must not free a decoder that still works for it.
        return await asyncio.shield(asyncio.wrap_future(asked))


def _give_back(lane: asyncio.Queue[Decoder], decoder: Decoder, watchdog: asyncio.TimerHandle) -> None:
    watchdog.cancel()
    lane.put_nowait(decoder)


def _unless_closed(call: Any) -> None:
    try:
        call()
    except RuntimeError:  # the service has ended
        return
