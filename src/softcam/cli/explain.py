"""`softcam explain`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json, telling

SUMMARY = "Predict images and write the evidence of each prediction"
EXAMPLES = """\
  softcam explain model images/ --out explained
  softcam explain model a.png b.tif --out explained --no-overlays
  softcam explain model study.zip /media/cdrom/DICOMDIR --out explained
  softcam explain model cine.dcm --frames 12 --out explained
  softcam explain model images/ --out explained --backend openvino
  softcam explain model study/ --out explained --dicom-out map report --deidentify
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("paths", type=str, nargs="+", help="image files, folders, zip archives and DICOMDIRs")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, evidence and overlays")
    parser.add_argument(
        "--frames", type=str, default="each", help="'each' or the number of the one to take, where a file holds several"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", type=str, default=None, help="torch device, such as cpu or cuda")
    parser.add_argument(
        "--backend",
        choices=["auto", "torch", "onnxruntime", "openvino"],
        default="auto",
        help="what runs the model; auto takes the fastest for many images",
    )
    parser.add_argument("--no-overlays", action="store_true", help="write no pictures")
    parser.add_argument("--no-arrays", action="store_true", help="write no evidence arrays")
    parser.add_argument(
        "--dicom-out",
        type=str,
        nargs="*",
        default=None,
        metavar="KIND",
        help="write DICOM objects of DICOM images: map, segmentation, report, capture; all if none is named",
    )
    parser.add_argument("--deidentify", action="store_true", help="write them with the basic profile of PS3.15 applied")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Explain every input; a bad one is named and the rest goes on."""
    from softcam.bundle import find_bundle
    from softcam.predict import Predictor
    from softcam.reporting.explanations import explain
    from softcam.reporting.products import Further, Products

    frames = _read_frames(options.frames)
    bundle = find_bundle(options.model)
    with telling("softcam.predict"):
        predictor = Predictor(bundle, batch_size=options.batch_size, device=options.device, backend=options.backend)
    writer = _create_writer(options, bundle, predictor.fingerprint)
    products = Products(
        overlays=not options.no_overlays,
        arrays=not options.no_arrays,
        further=None if writer is None else Further("dicom", writer.arguments, partial(_write_objects, writer)),
    )
    with telling("softcam.predict"), progress() as report:
        summary = explain(predictor, options.paths, options.out, products=products, frames=frames, progress=report)
    counts = {"done": summary.done, "failed": summary.failed, "out": str(options.out)}
    objects = None if writer is None else writer.finish()
    if objects is not None:
        counts |= {"dicom": objects.written, "dicom_failed": len(objects.failures)}
    if options.json:
        show_json(counts)
    else:
        show(f"{summary.done} explained, {summary.failed} failed: {options.out / 'predictions.csv'}")
    if summary.failed:
        say(f"{summary.failed} inputs failed; {options.out / 'failures.csv'} says why")
    if objects is not None:
        _tell(objects, summary.done, deidentified=options.deidentify)
    return 1 if summary.failed or (objects is not None and objects.failures) else 0


def _create_writer(options: Any, bundle: Path, fingerprint: str) -> Any:
    """Return what writes DICOM objects, None if none are asked for."""
    if options.dicom_out is None:
        if options.deidentify:
            raise ValueError("Expected --deidentify together with --dicom-out, but got it alone.")
        return None
    from softcam.bundle import read_config
    from softcam.interop.dicom import KINDS, ModelIdentity, ObjectSettings, ObjectWriter

    architecture = read_config(bundle).architecture
    name = "own architecture" if architecture is None else str(architecture["name"])
    settings = ObjectSettings(tuple(options.dicom_out) or KINDS, deidentify=options.deidentify)
    return ObjectWriter(options.out / "dicom", ModelIdentity(name, fingerprint), settings)


def _write_objects(writer: Any, entry: Any, outcome: Any) -> None:
    if outcome.image is None or outcome.image.format == "DICOM":
        writer.write(outcome.prediction, entry.read(), entry.id, frame=entry.frame)


def _tell(objects: Any, done: int, *, deidentified: bool) -> None:
    say(f"{objects.written} images have DICOM objects")
    if others := done - objects.written - len(objects.failures):
        say(f"{others} inputs are no DICOM files and have none")
    for name, reason in objects.failures.items():
        say(f"no DICOM objects for {name}: {reason}")
    if deidentified and objects.written:
        say("pixels are not cleaned: look at the captures of images that may show text before you share them")


def _read_frames(text: str) -> Any:
    if text != "each" and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"Expected --frames to be 'each' or a whole number of at least 1, but got {text!r}.")
    return "each" if text == "each" else int(text)
