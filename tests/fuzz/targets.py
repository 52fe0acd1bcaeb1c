"""Coverage-guided fuzzing: `python tests/fuzz/targets.py TARGET... [--seconds 60] [--corpus FOLDER]` (`make fuzz`).

Whatever the bytes, a target must end with the errors that it promises, quickly, and leave nothing behind. Anything else
is a finding, and its input is written to the corpus as `crash-...`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import yaml

with atheris.instrument_imports(
    include=["softcam.imaging", "softcam.data.manifest", "softcam.bundle", "softcam.serving"]
):
    from softcam.bundle.config import BundleConfig
    from softcam.data.boxes import parse_boxes
    from softcam.errors import SoftCAMError
    from softcam.imaging import DecodeLimits, Geometry, Preprocessing, decode_image
    from softcam.serving.polyglots import check_sole
    from softcam.training import Recipe

from corpus import KINDS, PIXELS, encode, make_dicom

LIMITS = DecodeLimits(max_pixels=1_000_000, max_bytes=1_000_000)


def fuzz_image(data: bytes) -> None:
    """Decode an image and make the network's input of it."""
    try:
        image = decode_image(data, limits=LIMITS)
    except SoftCAMError:
        return
    tensor, geometry = Preprocessing(size=16)(image)
    if tuple(tensor.shape) != (3, 16, 16) or geometry.original_height != image.height:
        raise AssertionError("an input of another size")


def fuzz_dicom(data: bytes) -> None:
    """Decode what begins like a DICOM file."""
    fuzz_image(bytes(128) + b"DICM" + data)


def fuzz_polyglot(data: bytes) -> None:
    """Look for the end of an image."""
    try:
        check_sole(data)
    except SoftCAMError:
        return


def fuzz_config(data: bytes) -> None:
    """Read a bundle's description and the records in it."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    for read in (BundleConfig.from_dict, Preprocessing.from_dict, Geometry.from_dict):
        try:
            read(values if isinstance(values, dict) else {"a": values})
        except (SoftCAMError, ValueError, TypeError):
            continue


def fuzz_recipe(data: bytes) -> None:
    """Read a recipe."""
    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError, UnicodeDecodeError):
        return
    try:
        Recipe.from_dict(values)
    except (SoftCAMError, ValueError, TypeError):
        return


def fuzz_boxes(data: bytes) -> None:
    """Read a manifest's cell of boxes."""
    try:
        parse_boxes(data.decode("utf-8", "replace"))
    except (SoftCAMError, ValueError):
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "image": lambda: [encode(kind, PIXELS[:8, :8]) for kind in KINDS],
    "dicom": lambda: [make_dicom(PIXELS[:8, :8, 0])[132:]],
    "polyglot": lambda: [encode(kind, PIXELS[:8, :8]) for kind in KINDS],
    "config": lambda: [json.dumps(Preprocessing().to_dict()).encode()],
    "recipe": lambda: [b"stages:\n  - {epochs: 2}\n"],
    "boxes": lambda: [b"[[1, 2, 3, 4]]"],
}


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Look for trouble in this process, which ends with it."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}/", str(corpus)], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", choices=sorted(TARGETS), nargs="+")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, default=None, help="folder that keeps what was found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for target in options.targets:
            # The libraries are loaded once; the fuzzer ends its process.
            if not (child := os.fork()):
                fuzz(target, options.seconds, (options.corpus or Path(name)) / target)
                os._exit(0)
            if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                print(f"{target}: ended with {code}")  # noqa: T201 - a script
                return 1
            print(f"{target}: nothing found")  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
