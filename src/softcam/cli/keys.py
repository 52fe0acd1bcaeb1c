"""`softcam keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json

SUMMARY = "Make a pair of keys that sign records"
EXAMPLES = """\
  softcam keys --out keys
  SOFTCAM_KEY_PASSPHRASE=... softcam keys --out keys
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--out", type=Path, required=True, help="folder for key.pem and key.pub.pem")
    parser.add_argument("--json", action="store_true", help="print the files as JSON")


def run(options: Any) -> int:
    """Write the keys."""
    from softcam.records import create_key, load_verifier

    private, public = create_key(options.out)
    name = load_verifier(public).name
    if options.json:
        show_json({"name": name, "private": str(private), "public": str(public)})
    else:
        show(f"key {name}: {private} signs, {public} verifies")
        say(f"keep {private.name} secret and out of the folders that it signs; give {public.name} to whoever verifies")
    return 0
