"""`softcam dicom send | deidentify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json
from softcam.cli.parsing import create_command

SUMMARY = "Send DICOM files to an archive, or write de-identified copies"
EXAMPLES = """\
  softcam dicom send explained/dicom --to pacs.example.org:104 --aet ARCHIVE
  softcam dicom send explained/dicom --to https://pacs.example.org/dicom-web
  softcam dicom deidentify study/ --out clean
"""

_CREDENTIALS = (
    "Credentials for https come from SOFTCAM_DICOMWEB_TOKEN, or SOFTCAM_DICOMWEB_USER and SOFTCAM_DICOMWEB_PASSWORD, "
    "or from ~/.netrc"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the actions and their flags."""
    actions = parser.add_subcommands(dest="action", metavar="ACTION")
    send = create_command(f"Send DICOM files by C-STORE or STOW-RS. {_CREDENTIALS}", EXAMPLES)
    actions.add_subcommand("send", send, help="send files to an archive")
    send.add_argument("paths", type=str, nargs="+", help="DICOM files and folders")
    send.add_argument("--to", type=str, required=True, help="HOST:PORT, or the http(s) address of a DICOMweb service")
    send.add_argument("--aet", type=str, default="ANY-SCP", help="title of the archive, for C-STORE")
    send.add_argument("--calling-aet", type=str, default="SOFTCAM", help="own title, for C-STORE")
    send.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for an answer")
    send.add_argument("--tls", action="store_true", help="encrypt C-STORE")
    send.add_argument("--ca-file", type=Path, default=None, help="certificates to trust, in PEM")
    send.add_argument("--json", action="store_true", help="print the result of every file as JSON")
    clean = create_command("Write copies with the basic confidentiality profile of DICOM PS3.15 applied", EXAMPLES)
    actions.add_subcommand("deidentify", clean, help="write de-identified copies")
    clean.add_argument("paths", type=str, nargs="+", help="DICOM files and folders")
    clean.add_argument("--out", type=Path, required=True, help="folder for the copies; begun work goes on")
    clean.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(options: Any) -> int:
    """Run the chosen action."""
    actions = {"send": _send, "deidentify": _deidentify}
    return actions[options.action](options[options.action])


def _send(options: Any) -> int:
    from softcam.interop.dicom import Destination, send

    destination = Destination(
        options.to,
        aet=options.aet,
        calling_aet=options.calling_aet,
        timeout=options.timeout,
        tls=options.tls,
        ca_file=options.ca_file,
    )
    with progress() as report:
        deliveries = list(send(options.paths, destination, progress=report))
    failed = [delivery for delivery in deliveries if delivery.problem]
    if options.json:
        show_json([{"file": str(one.path), "sent": not one.problem, "problem": one.problem} for one in deliveries])
    else:
        for delivery in failed:
            show(f"{delivery.path}: {delivery.problem}")
        show(f"{len(deliveries) - len(failed)} sent, {len(failed)} failed")
    return 1 if failed else 0


def _deidentify(options: Any) -> int:
    from softcam.interop.dicom import deidentify_files

    with progress() as report:
        copies = list(deidentify_files(options.paths, options.out, progress=report))
    failed = [copy for copy in copies if copy.problem]
    doubtful = sum(copy.may_show_text for copy in copies)
    if options.json:
        failures = [{"file": str(copy.source), "problem": copy.problem} for copy in failed]
        counts = {"done": len(copies) - len(failed), "failed": failures, "may_show_text": doubtful}
        show_json({**counts, "out": str(options.out)})
    else:
        for copy in failed:
            show(f"{copy.source}: {copy.problem}")
        show(f"{len(copies) - len(failed)} de-identified, {len(failed)} failed: {options.out}")
    if doubtful:
        say(f"{doubtful} images may show text in their pixels, which are not cleaned: look at them before sharing")
    return 1 if failed else 0
