"""The service under load, and under attack: `python benchmarks/service_load.py [--quick]`.

EfficientNet-Lite0 with published weights and two classes is served by `softcam serve` on this machine, as a user starts
it. 10,000 JPEG images of 224 px are sent by 32 clients at a time, with `wrk` where it is installed and by a client of
asyncio otherwise; both share the cores with the service. Before and after, the bare session of ONNX Runtime is timed in
a process of its own, on ready tensors in batches of the service's size. Memory is that of all processes of the service,
shared pages counted once, after a tenth of the requests and after all. Then four clients at a time are timed alone and
beside others that mean harm: images of billions of pixels, images at the limit, bodies over the limit and without an
end, and silent connections; those have less right to the cores, as if they ran elsewhere. Writes
`benchmarks/results/service_load.json`; about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.export import keep_graph, open_graph
from softcam.files import write_atomic
from softcam.nn import convert

RESULT = Path(__file__).parent / "results" / "service_load.json"
MODEL, CLASSES, SIDE, BATCH = "timm:tf_efficientnet_lite0", 2, 224, 8
CLIENTS, FEW_CLIENTS, IMAGES = 32, 4, 32
COUNT, WARM_UP, FEW_COUNT = 10_000, 1_000, 1_500
QUICK_COUNT, QUICK_WARM_UP, QUICK_FEW_COUNT = 300, 50, 100
BARE_SECONDS, QUICK_BARE_SECONDS = 15.0, 2.0
SILENT, SLOW = 300, 16
LEAST_SHARE, MOST_GROWTH, MOST_SLOWER = 0.8, 1.05, 2.0
BOUNDARY = "softcam-load"

SCRIPT = """
local bodies, count, left, threads = {}, 0, %(count)d, {}
for name in io.popen("ls %(folder)s/*.form"):lines() do
  local file = io.open(name, "rb"); bodies[#bodies + 1] = file:read("*a"); file:close()
end
local headers = {["Content-Type"] = "multipart/form-data; boundary=%(boundary)s"}
function setup(thread)
  threads[#threads + 1] = thread
end
function request()
  count = count + 1
  return wrk.format("POST", "/v1/explain", headers, bodies[count %% #bodies + 1])
end
function response(status)
  local name = "s" .. status
  _G[name] = (_G[name] or 0) + 1
  left = left - 1
  if left == 0 then io.open("%(folder)s/done", "w"):close() end
end
function done(summary, latency)
  local parts = {}
  for status = 200, 599 do
    local found = threads[1]:get("s" .. status)
    if found then parts[#parts + 1] = string.format('"%%d": %%d', status, found) end
  end
  io.write(string.format(
    'RESULT {"seconds": %%.6f, "p50_ms": %%.3f, "p95_ms": %%.3f, "p99_ms": %%.3f, "lost": %%d, "statuses": {%%s}}\\n',
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    table.concat(parts, ", ")))
end
"""


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = save(
            convert(create_black_box(MODEL, num_classes=CLASSES, weights="pretrained").eval()), folder / "lite0"
        )
        bodies = write_forms(folder)
        load = measure_load(bundle, folder, bodies, options)
        print(json.dumps(load), flush=True)
        attack = measure_attack(bundle, folder, bodies, options)
    setting = {
        "model": MODEL,
        "classes": CLASSES,
        "size": SIDE,
        "batch_size": BATCH,
        "upload_bytes": round(statistics.mean(map(len, bodies))),
        "client": "wrk" if options.client == "wrk" else "asyncio",
        "silent": SILENT,
        "slow": SLOW,
        "limits": {"share": LEAST_SHARE, "growth": MOST_GROWTH, "slower": MOST_SLOWER},
    }
    environment = describe_environment(("torch", "timm", "onnxruntime", "fastapi", "uvicorn", "httptools"), seeds=[0])
    result = {"environment": environment, "setting": setting, "load": load, "attack": attack}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(json.dumps(attack))


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--requests", type=int, default=None, help="of the load")
    parser.add_argument("--client", choices=["wrk", "asyncio"], default="wrk" if shutil.which("wrk") else "asyncio")
    parser.add_argument(
        "--flags", nargs="*", default=[], help="further ones of softcam serve, without dashes: decoders=1"
    )
    options = parser.parse_args()
    options.warm_up = QUICK_WARM_UP if options.quick else WARM_UP
    options.few = QUICK_FEW_COUNT if options.quick else FEW_COUNT
    options.bare = QUICK_BARE_SECONDS if options.quick else BARE_SECONDS
    options.requests = options.requests or (QUICK_COUNT if options.quick else COUNT)
    return options


# --- the requests


def write_forms(folder: Path) -> list[bytes]:
    """Write bodies of requests, each with an image of its own, and return them."""
    bodies = [make_form(draw(seed)) for seed in range(IMAGES)]
    for number, body in enumerate(bodies):
        (folder / f"{number:02d}.form").write_bytes(body)
    return bodies


def draw(seed: int) -> bytes:
    """Return a JPEG with fields of several sizes and grain, as large as that of a photograph."""
    generator = np.random.default_rng(seed)
    mixed = np.full((SIDE, SIDE, 3), 128.0)
    for cells, strength in ((6, 90), (40, 40), (SIDE, 12)):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        mixed += (np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64) - 128) * strength / 128
    stream = io.BytesIO()
    Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def make_form(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def send(port: int, folder: Path, bodies: Sequence[bytes], *, count: int, clients: int, client: str) -> dict[str, Any]:
    """Send requests and return throughput, latencies in ms, and statuses."""
    if client == "wrk":
        found = send_by_wrk(port, folder, count=count, clients=clients)
    else:
        found = asyncio.run(send_by_asyncio(port, bodies, count=count, clients=clients))
    found["per_second"] = round(found["statuses"].get("200", 0) / found.pop("seconds"), 2)
    return found


def send_by_wrk(port: int, folder: Path, *, count: int, clients: int) -> dict[str, Any]:
    script = folder / "load.lua"
    script.write_text(SCRIPT % {"count": count, "folder": folder, "boundary": BOUNDARY})
    command = ["wrk", "-t1", f"-c{clients}", "-d1800s", "--timeout", "60s", "-s", script, f"http://127.0.0.1:{port}"]
    mark = folder / "done"
    mark.unlink(missing_ok=True)
    # It ends after a time or by a signal, never after a number of requests; a signal may miss the thread that waits.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(0.05)
            if mark.exists():
                process.send_signal(signal.SIGINT)
        said = process.stdout.read() if process.stdout else ""
    found: dict[str, Any] = json.loads(re.findall(r"^RESULT (.*)$", said, re.M)[0])
    return found


async def send_by_asyncio(port: int, bodies: Sequence[bytes], *, count: int, clients: int) -> dict[str, Any]:
    numbers, seconds, statuses = iter(range(count)), list[float](), Counter[str]()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body, begun = bodies[number % len(bodies)], time.perf_counter()
            writer.write(write_head(port, len(body)) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
            seconds.append(time.perf_counter() - begun)
            statuses[head[9:12].decode()] += 1
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    whole = time.perf_counter() - begun
    marks = {f"p{mark}_ms": round(float(np.percentile(seconds, mark)) * 1000, 3) for mark in (50, 95, 99)}
    return {"seconds": whole, **marks, "lost": count - len(seconds), "statuses": dict(statuses)}


def write_head(port: int, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["POST /v1/explain HTTP/1.1", f"Host: 127.0.0.1:{port}", size]
    return "\r\n".join([*lines, f"Content-Type: multipart/form-data; boundary={BOUNDARY}", "", ""]).encode()


# --- the service


@contextmanager
def serve(bundle: Path, flags: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run the command and yield its process and its port."""
    more = [f"--{flag}" for flag in flags]
    command = [sys.executable, "-m", "softcam", "serve", str(bundle), "--port", "0", "--quiet", *more]
    process = subprocess.Popen([*command, "--batch-size", str(BATCH)], stderr=subprocess.PIPE, text=True)
    try:
        yield process.pid, wait_for(process)
    finally:
        process.terminate()
        process.wait()


def wait_for(process: subprocess.Popen[str]) -> int:
    said = process.stderr or io.StringIO()
    for line in said:
        if found := re.search(r"open http://127\.0\.0\.1:(\d+)", line):
            # Whatever it says further on must not fill the pipe.
            threading.Thread(target=said.read, daemon=True).start()
            while b" 200 " not in ask(int(found[1]), b"GET /readyz HTTP/1.0\r\n\r\n"):
                time.sleep(0.1)
            return int(found[1])
    raise RuntimeError("Expected the service to start, but it did not.")


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def measure_memory(pid: int) -> float:
    """Return what a process and its children hold, in MiB; pages that several share count once."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    own = int(re.findall(r"^Pss:\s+(\d+) kB", lines, re.M)[0]) / 1024
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return own + sum(measure_memory(int(child)) for path in children for child in path.read_text().split())


# --- under load


def measure_load(bundle: Path, folder: Path, bodies: Sequence[bytes], options: argparse.Namespace) -> dict[str, Any]:
    with serve(bundle, options.flags) as (pid, port):
        go = partial(send, port, folder, bodies, clients=CLIENTS, client=options.client)
        go(count=options.warm_up)
        loaded = measure_memory(pid)
        before = run_alone(time_bare, bundle, options.bare)
        found = go(count=options.requests)
        grown = measure_memory(pid)
        after = run_alone(time_bare, bundle, options.bare)
    bare = statistics.mean([before, after])
    return {
        "clients": CLIENTS,
        "requests": options.requests,
        **found,
        "bare_per_second": [before, after],
        "share": round(found["per_second"] / bare, 4),
        "loaded_mib": round(loaded, 1),
        "end_mib": round(grown, 1),
        "growth": round(grown / loaded, 4),
    }


def run_alone(call: Callable[..., float], *arguments: Any) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def time_bare(bundle: Path, seconds: float) -> float:
    """Return images per second of the session alone, on ready tensors."""
    path = keep_graph(bundle, (SIDE, SIDE)).find()
    session = open_graph(path or Path(), runtime="onnxruntime", threads=torch.get_num_threads())
    images = np.random.default_rng(0).standard_normal((BATCH, 3, SIDE, SIDE), np.float32)
    session(images)
    begun, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds:
        session(images)
        done += BATCH
    return round(done / taken, 2)


# --- under attack


def measure_attack(bundle: Path, folder: Path, bodies: Sequence[bytes], options: argparse.Namespace) -> dict[str, Any]:
    with serve(bundle, options.flags) as (_, port):
        go = partial(send, port, folder, bodies, count=options.few, clients=FEW_CLIENTS, client=options.client)
        go()
        alone = [go()]
        with attacking(port) as counts:
            beside = go()
            tried = dict(counts)
        alone.append(go())
    quiet = statistics.mean(one["p95_ms"] for one in alone)
    return {
        "clients": FEW_CLIENTS,
        "requests": options.few,
        "alone_p95_ms": [one["p95_ms"] for one in alone],
        "alone_per_second": [one["per_second"] for one in alone],
        "beside_p50_ms": beside["p50_ms"],
        "beside_p95_ms": beside["p95_ms"],
        "beside_p99_ms": beside["p99_ms"],
        "beside_per_second": beside["per_second"],
        "statuses": beside["statuses"],
        "lost": beside["lost"],
        "slower_ratio": round(beside["p95_ms"] / quiet, 3),
        "tried": tried,
    }


@contextmanager
def attacking(port: int) -> Iterator[dict[str, int]]:
    """Run the clients that mean harm in a process of its own, and yield how often each was answered."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        counts = manager.dict()
        process = context.Process(target=attack, args=(port, counts), daemon=True)
        process.start()
        while process.is_alive() and "3,600 megapixels: 413" not in counts:
            time.sleep(0.1)
        try:
            yield counts  # type: ignore[misc]
        finally:
            process.kill()
            process.join()


def attack(port: int, counts: Any) -> None:
    os.nice(10)
    for name, (call, clients) in ATTACKS.items():
        for _ in range(clients):
            threading.Thread(target=keep_on, args=(name, call, port, counts), daemon=True).start()
    threading.Event().wait()


def keep_on(name: str, call: Callable[[int], str], port: int, counts: Any) -> None:
    while True:
        outcome = "ended"
        with contextlib.suppress(OSError):
            outcome = call(port)
        key = f"{name}: {outcome}"
        counts[key] = counts.get(key, 0) + 1


def read_status(connection: socket.socket) -> str:
    return connection.recv(4096)[9:12].decode() or "ended"


def bomb(port: int) -> str:
    return post(port, make_png(60_000, 60_000, rows=1000))


def largest(port: int) -> str:
    return post(port, make_png(7000, 7000, rows=7000))


def oversized(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(write_head(port, None))
        for _ in range(700):
            connection.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n")
            time.sleep(0.01)  # 10 MB per second
        return read_status(connection)


def slow(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(write_head(port, 100_000))
        for _ in range(400):
            connection.sendall(b"-")
            time.sleep(0.1)
        return read_status(connection)


def silent(port: int) -> str:
    connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(SILENT)]
    for connection in connections[::2]:
        connection.sendall(b"GET / HT")
    time.sleep(1)
    for connection in connections:
        connection.close()
    return "left"


def post(port: int, content: bytes) -> str:
    body = make_form(content)
    return ask(port, write_head(port, len(body)) + body)[9:12].decode() or "ended"


def make_png(width: int, height: int, *, rows: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed(width, rows)) + chunk(b"IEND", b"")


def packed(width: int, rows: int, _kept: dict[tuple[int, int], bytes] = {}) -> bytes:  # noqa: B006 - made once
    if (width, rows) not in _kept:
        _kept[width, rows] = zlib.compress(bytes((1 + width) * rows), 6)
    return _kept[width, rows]


ATTACKS: dict[str, tuple[Callable[[int], str], int]] = {
    "3,600 megapixels": (bomb, 2),
    "49 megapixels": (largest, 2),
    "70 MB in chunks": (oversized, 1),
    "slow body": (slow, SLOW),
    "silent connections": (silent, 1),
}


if __name__ == "__main__":
    main()
