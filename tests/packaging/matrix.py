"""Install what was built into clean environments and try it: `python tests/packaging/matrix.py [DIST]`.

The wheel and the sdist without extras, each in a new environment that gets from the package index what the metadata ask
for; then the wheel with each extra, in a copy of the first environment. In each, `smoke.py` converts, explains, uses
what the extra is for, and is refused by name what the others are for. Writes `install_matrix.json` beside the builds,
as far as it has come, and ends with 1 if anything failed. Twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import email
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any
from zipfile import ZipFile

SMOKE = Path(__file__).with_name("smoke.py")
OWN = ("dev", "docs")
"""Extras of those who work on softcam: what they bring is used by its own tests."""

BRINGS = {"demo": ["demo", "peers"]}
"""What an extra brings along, where that is more than itself."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path, nargs="?", default=Path("dist"), help="folder with one wheel and one sdist")
    parser.add_argument("--only", nargs="*", default=None, help="some of sdist and the extras")
    options = parser.parse_args()
    (wheel,), (sdist,) = options.dist.glob("*.whl"), options.dist.glob("*.tar.gz")
    rows: list[dict[str, Any]] = []

    def note(name: str, row: dict[str, Any]) -> None:
        rows.append({"install": name, **row})
        print(f"{name}: {row['outcome']}, {row['seconds']} s", flush=True)
        found = {"machine": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
        (options.dist / "install_matrix.json").write_text(json.dumps({**found, "rows": rows}, indent=2) + "\n")

    with tempfile.TemporaryDirectory(prefix="softcam-install-") as name:
        base, other = Path(name) / "base", Path(name) / "other"
        venv.create(base, with_pip=True)
        note("wheel", try_install(base, wheel, ""))
        for extra in [extra for extra in list_extras(wheel) if options.only is None or extra in options.only]:
            shutil.copytree(base, other, symlinks=True, copy_function=os.link)
            note(f"wheel[{extra}]", try_install(other, wheel, extra))
            shutil.rmtree(other)
        if options.only is None or "sdist" in options.only:
            venv.create(other, with_pip=True)
            note("sdist", try_install(other, sdist, ""))
    return int(any(row["outcome"] != "works" for row in rows))


def list_extras(wheel: Path) -> list[str]:
    """Return the extras that the wheel's metadata declare and that are for users."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [extra for extra in metadata.get_all("Provides-Extra", []) if extra not in OWN]


def try_install(folder: Path, artefact: Path, extra: str) -> dict[str, Any]:
    """Install into an environment and return what came of it."""
    begun = time.perf_counter()
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    target = f"{artefact.resolve()}[{extra}]" if extra else str(artefact.resolve())
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    steps = {
        "cannot be installed": [*pip, "install", target],
        "requirements clash": [*pip, "check"],
        "does not work": [python, SMOKE, *(BRINGS.get(extra, [extra]) if extra else [])],
    }
    outcome = "works"
    for fault, command in steps.items():
        done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            outcome = fault
            print((done.stdout + done.stderr).strip()[-2000:], file=sys.stderr)
            break
    packages = len(list(folder.glob("lib*/python*/site-packages/*.dist-info")))
    return {"outcome": outcome, "packages": packages, "seconds": round(time.perf_counter() - begun)}


if __name__ == "__main__":
    raise SystemExit(main())
