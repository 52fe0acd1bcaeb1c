"""What an installed softcam has to do: `python smoke.py [EXTRA...]`, in the environment that is to be tried.

Converts a network without pretrained weights, predicts an image that is drawn here, and then uses what each named extra
is for; of every other extra it asks for something, which has to be refused by the name of the extra. Nothing is
downloaded. Needs nothing but softcam: it runs in environments that have no test tools.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path


def run(*words: object, expect: int = 0) -> str:
    """Run the command and return what it says."""
    command = [sys.executable, "-m", "softcam", *map(str, words)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if found.returncode != expect:
        raise SystemExit(f"{' '.join(command)}: {found.returncode}, expected {expect}\n{found.stdout}{found.stderr}")
    return found.stdout + found.stderr


def refuse(extra: str, *words: object) -> None:
    """Run the command, which has to name the extra that it lacks, and what installs it."""
    said = run(*words, expect=2)
    if f"softcam[{extra}]" not in said:
        raise SystemExit(f"{' '.join(map(str, words))}: does not name the extra {extra!r}:\n{said}")


def prepare(folder: Path) -> None:
    """Make a model's folder and an image, as every user can."""
    import numpy as np
    import torch
    from PIL import Image

    import softcam
    from softcam.imaging import Preprocessing

    torch.manual_seed(0)
    black_box = softcam.create_black_box("torchvision:resnet18", weights="none", num_classes=2).eval()
    images = torch.rand(2, 3, 96, 96)
    model = softcam.convert(black_box, images=images)
    with torch.no_grad():
        error = float((model(images) - black_box(images)).abs().max())
    if error > 1e-4:
        raise SystemExit(f"the converted model's logits differ by {error}")
    record = Preprocessing(size=96).to_dict()
    softcam.save(model, folder / "model", classes=["no", "yes"], preprocessing=record)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 100, 3), dtype=np.uint8)).save(folder / "a.png")


def try_plain(folder: Path) -> None:
    """Use what needs no extra."""
    version = run("--version").split()[-1]
    if not re.fullmatch(r"\d+\.\d+\.\d+\S*", version):
        raise SystemExit(f"--version says {version!r}")
    run("explain", folder / "model", folder / "a.png", "--out", folder / "plain", "--backend", "torch")
    table = (folder / "plain" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    if len(table) != 2 or not (folder / "plain" / "run.json").exists():
        raise SystemExit("explain wrote no whole run")
    run("models")
    run("completion", "bash")
    if not Path(sys.executable).with_name("softcam").exists():
        raise SystemExit("the command `softcam` is not installed")


def try_onnx(folder: Path) -> None:
    run("explain", folder / "model", folder / "a.png", "--out", folder / "onnx", "--backend", "onnxruntime")
    run("export", folder / "model", "--out", folder / "model.onnx")


def try_openvino(folder: Path) -> None:
    run("explain", folder / "model", folder / "a.png", "--out", folder / "openvino", "--backend", "openvino")


def try_dicom(folder: Path) -> None:
    import pydicom.data

    source = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    run("explain", folder / "model", source, "--out", folder / "dicom", "--dicom-out", "map", "--backend", "torch")


def try_records(folder: Path) -> None:
    run("keys", "--out", folder / "keys")
    key = folder / "keys" / "key.pem"
    run("explain", folder / "model", folder / "a.png", "--out", folder / "kept", "--record", key, "--backend", "torch")
    run("verify", folder / "kept" / "records.jsonl", "--key", folder / "keys" / "key.pub.pem")


def try_ray(folder: Path) -> None:
    words = ["--engine", "ray", "--workers", "1", "--backend", "torch"]
    run("explain", folder / "model", folder / "a.png", "--out", folder / "ray", *words)


def try_serve(folder: Path) -> None:
    command = [sys.executable, "-m", "softcam", "serve", str(folder / "model"), "--port", "0", "--backend", "torch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            told = (re.search(r"open (http://\S+)", line) for line in process.stderr or ())
            address = next(found[1] for found in told if found)
            _wait_for(f"{address}/readyz")
            page = urllib.request.urlopen(f"{address}/", timeout=30).read()
        finally:
            process.terminate()
    if b"<html" not in page:
        raise SystemExit("the service has no page")


def _wait_for(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=10)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"{address} does not answer")


def try_hub(folder: Path) -> None:
    from softcam.errors import SoftCAMError
    from softcam.interop import download_bundle

    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        download_bundle("nobody/nothing")
    except SoftCAMError as error:
        if "softcam[hub]" in str(error):
            raise SystemExit(f"the extra is not seen: {error}") from error


def try_peers(folder: Path) -> None:
    import torch

    import softcam
    from softcam.attribution import attribute

    model = softcam.load(folder / "model")
    for method in ("grad_cam", "integrated_gradients"):
        maps = attribute(method, model, torch.rand(1, 3, 96, 96), torch.tensor([0]))
        if not bool(torch.isfinite(maps).all()):
            raise SystemExit(f"{method} gives no finite map")


def try_sweep(folder: Path) -> None:
    __import__("optuna")


def try_demo(folder: Path) -> None:
    import softcam

    softcam.create_black_box("timm:tf_efficientnet_lite0", weights="pretrained", num_classes=2)


TRIES: dict[str, Callable[[Path], None]] = {
    "onnx": try_onnx,
    "openvino": try_openvino,
    "dicom": try_dicom,
    "records": try_records,
    "hub": try_hub,
    "ray": try_ray,
    "serve": try_serve,
    "sweep": try_sweep,
    "demo": try_demo,
    "peers": try_peers,
}


def refuse_others(folder: Path, here: set[str]) -> list[str]:
    """Ask for what each absent extra is for."""
    dicom = folder / "a.dcm"
    dicom.write_bytes(bytes(128) + b"DICM" + bytes(64))
    explain = ["explain", folder / "model", folder / "a.png", "--out", folder / "refused"]
    asked: dict[str, list[object]] = {
        "onnx": ["export", folder / "model", "--out", folder / "refused.onnx"],
        "openvino": [*explain, "--backend", "openvino"],
        "records": ["keys", "--out", folder / "refused-keys"],
        "ray": [*explain, "--engine", "ray"],
        "serve": ["serve", folder / "model"],
        "dicom": ["dicom", "deidentify", dicom, "--out", folder / "refused-dicom"],
    }
    absent = [extra for extra in asked if extra not in here]
    for extra in absent:
        refuse(extra, *asked[extra])
    return absent


def main() -> None:
    extras = sys.argv[1:]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        prepare(folder)
        try_plain(folder)
        for extra in extras:
            TRIES[extra](folder)
        refused = refuse_others(folder, set(extras))
    seconds = round(time.perf_counter() - begun, 1)
    print(json.dumps({"extras": extras, "refused": refused, "seconds": seconds}))


if __name__ == "__main__":
    main()
