"""`softcam explain`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json, telling
from softcam.cli.parsing import add_augment, add_checks

SUMMARY = "Predict images and write the evidence of each prediction"
EXAMPLES = """\
  softcam explain model images/ --out explained
  softcam explain model a.png b.tif --out explained --no-overlays
  softcam explain model study.zip /media/cdrom/DICOMDIR --out explained
  softcam explain model cine.dcm --frames 12 --out explained
  softcam explain model images/ --out explained --backend openvino
  softcam explain model study/ --out explained --dicom-out map report --deidentify
  softcam explain model images/ --out explained --record keys/key.pem
  softcam explain model images/ --out explained --draw-boxes --regions 0.4
  softcam explain model images/ --out explained --augment flips
  softcam explain model shards/part-*.tar --out explained --engine ray --workers 2
"""


SHARE = 0.5
"""Share of the strongest evidence from which cells make regions where --regions names none."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("paths", type=str, nargs="+", help="image files, folders, archives, tables, DICOMDIRs")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, evidence and overlays")
    parser.add_argument(
        "--frames", type=str, default="each", help="'each' or the number of the one to take, where a file holds several"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", type=str, default=None, help="torch device, such as cpu or cuda")
    parser.add_argument(
        "--draft", action="store_true", help="decode large JPEGs at a part of their size: faster, slightly other pixels"
    )
    parser.add_argument(
        "--backend",
        choices=["auto", "torch", "onnxruntime", "openvino"],
        default="auto",
        help="what runs the model; auto takes the fastest for many images",
    )
    add_checks(parser)
    _add_products(parser)
    add_augment(parser, " over flipped or turned views of each image; as many passes as views")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this process, or a Ray cluster")
    parser.add_argument("--workers", type=int, default=None, help="with Ray: most workers; default: one per GPU or CPU")
    parser.add_argument("--address", type=str, default=None, help="with Ray: a running cluster, such as auto")
    parser.add_argument(
        "--evidence",
        choices=("float32", "float16"),
        default="float32",
        help="with Ray: type of the evidence in predictions.parquet",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def _add_products(parser: ArgumentParser) -> None:
    """Declare what may be written for each image."""
    parser.add_argument("--no-overlays", action="store_true", help="write no pictures")
    parser.add_argument("--no-arrays", action="store_true", help="write no evidence arrays")
    parser.add_argument(
        "--regions",
        type=float,
        nargs="?",
        const=SHARE,
        default=None,
        metavar="SHARE",
        help="write regions.csv and boxes.csv: connected cells of at least this share of an image's strongest evidence",
    )
    parser.add_argument("--region-logits", type=float, default=None, help="the same, of at least so many logits a cell")
    parser.add_argument("--draw-boxes", action="store_true", help="draw the boxes of the regions on the overlays")
    parser.add_argument(
        "--dicom-out",
        type=str,
        nargs="*",
        default=None,
        metavar="KIND",
        help="write DICOM objects of DICOM images: map, segmentation, report, capture; all if none is named",
    )
    parser.add_argument("--deidentify", action="store_true", help="write them with the basic profile of PS3.15 applied")
    parser.add_argument(
        "--record", type=Path, default=None, metavar="KEY", help="write signed records; key.pem of `softcam keys`"
    )


def run(options: Any) -> int:
    """Explain every input; a bad one is named and the rest goes on."""
    if options.engine == "ray":
        return _run_on_ray(options)
    if options.workers is not None or options.address is not None or options.evidence != "float32":
        raise ValueError("Expected --workers, --address and --evidence together with --engine ray, but got no engine.")
    from softcam.bundle import find_bundle
    from softcam.predict import Predictor
    from softcam.records import load_signer
    from softcam.reporting.explanations import explain
    from softcam.reporting.inputs import Reading
    from softcam.reporting.products import Further, Products

    reading = Reading(_read_frames(options.frames), draft=options.draft)
    bundle = find_bundle(options.model)
    with telling("softcam.predict"):
        predictor = Predictor(bundle, **_set_predictor(options))
    writer = _create_writer(options, bundle, predictor.fingerprint)
    products = Products(
        overlays=not options.no_overlays,
        arrays=not options.no_arrays,
        signer=None if options.record is None else load_signer(options.record),
        regions=_choose_regions(options),
        further=None if writer is None else Further("dicom", writer.arguments, partial(_write_objects, writer)),
    )
    with telling("softcam.predict"), progress() as report:
        summary = explain(predictor, options.paths, options.out, products=products, reading=reading, progress=report)
    counts = {"done": summary.done, "failed": summary.failed, "out": str(options.out)}
    warned = {"warned": summary.warned} if predictor.checker.is_active else {}
    counts |= warned
    objects = None if writer is None else writer.finish()
    if objects is not None:
        counts |= {"dicom": objects.written, "dicom_failed": len(objects.failures)}
    if options.json:
        show_json(counts)
    else:
        told = ", ".join([f"{summary.done} explained", f"{summary.failed} failed", *_count(**warned)])
        show(f"{told}: {options.out / 'predictions.csv'}")
    if predictor.checker.wants_features and predictor.backend != "torch":
        say(f"features of images were not checked all along: {predictor.backend} gives none; --backend torch does")
    if summary.failed:
        say(f"{summary.failed} inputs failed; {options.out / 'failures.csv'} says why")
    if objects is not None:
        _tell(objects, summary.done, deidentified=options.deidentify)
    return 1 if summary.failed or (objects is not None and objects.failures) else 0


def _set_predictor(options: Any) -> dict[str, Any]:
    """Return the options of the predictor."""
    from softcam.predict import Checks

    return {
        "batch_size": options.batch_size,
        "device": options.device,
        "backend": options.backend,
        "checks": Checks.of_inputs(options.checks),
        "augment": options.augment,
    }


def _choose_regions(options: Any) -> Any:
    """Return which regions are asked for, None for none."""
    from softcam.reporting.regions import RegionSettings

    if options.regions is None and options.region_logits is None:
        if options.draw_boxes:
            raise ValueError("Expected --draw-boxes together with --regions or --region-logits, but got it alone.")
        return None
    return RegionSettings(options.regions, options.region_logits, boxes=options.draw_boxes)


def _run_on_ray(options: Any) -> int:
    """Explain every input on the workers of a cluster."""
    from softcam.bundle import find_bundle
    from softcam.distributed import Listed, RaySettings, explain
    from softcam.reporting.inputs import list_entries
    from softcam.reporting.places import describe_place, open_places

    if options.dicom_out is not None or options.deidentify:
        raise ValueError("Expected --dicom-out with --engine local, but got ray, which writes tables alone.")
    if options.record is not None:
        raise ValueError("Expected --record with --engine local, but got ray, which writes tables alone.")
    if options.regions is not None or options.region_logits is not None or options.draw_boxes:
        raise ValueError("Expected --regions with --engine local, but got ray, which writes predictions alone.")
    if options.draft:
        raise ValueError("Expected --draft with --engine local, but got ray, which decodes every pixel.")
    settings = RaySettings(
        workers=options.workers,
        address=options.address,
        evidence="none" if options.no_arrays else options.evidence,
        predictor=_set_predictor(options),
    )
    entries = list_entries(options.paths, exclude=options.out, frames=_read_frames(options.frames))
    inputs = (Listed(e.id, describe_place(e), e.frame, e.refusal, e.file.stamp) for e in entries)
    places = {"open_places": open_places, "visible": options.paths}
    with progress() as report:
        bundle = find_bundle(options.model)
        summary = explain(bundle, inputs, options.out, settings=settings, progress=report, **places)
    if options.json:
        show_json({"done": summary.done, "failed": summary.failed, "out": str(options.out)})
    else:
        show(f"{summary.done} explained, {summary.failed} failed: {options.out / 'predictions.parquet'}")
    if summary.repeated:
        say(f"{summary.repeated} shards were begun again because their worker had died")
    if summary.failed:
        say(f"{summary.failed} inputs failed; {options.out / 'failures.csv'} says why")
    return 1 if summary.failed else 0


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


def _count(warned: int | None = None) -> list[str]:
    return [] if warned is None else [f"{warned} with warnings"]


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
