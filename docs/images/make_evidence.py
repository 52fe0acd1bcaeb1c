"""Draw the README's picture from the demo's model: `python docs/images/make_evidence.py demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import softcam
from softcam.bundle import read_config
from softcam.data import ImageDataset, read_manifest
from softcam.files import atomic_path
from softcam.imaging import Preprocessing

IMAGES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that `make demo` wrote")
    options = parser.parse_args()
    config = read_config(options.demo / "model")
    manifest = read_manifest(options.demo / "data" / "manifest.csv", classes=config.classes).subset("test")
    preprocessing = Preprocessing.from_dict(config.preprocessing)
    dataset = ImageDataset(manifest, preprocessing)
    # The first test images of the second class, in the manifest's order: none is picked by its look.
    rows = [row for row, target in enumerate(manifest.targets) if target == 1][:IMAGES]
    images = torch.stack([dataset[row][0] for row in rows])
    with torch.inference_mode():
        evidence = softcam.load(options.demo / "model").evidence(images).check()
    figure = softcam.plot(
        evidence, images, classes=config.classes, mean=preprocessing.mean, std=preprocessing.std, target=1, against=0
    )
    with atomic_path(Path(__file__).with_name("evidence.png")) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
