"""Install what was built into clean environments and try it: `python tests/packaging/matrix.py [DIST]`.

The wheel without extras and with each of them, the sdist without; every environment is new, and gets from the package
index what the metadata ask for. In each, `smoke.py` converts, explains, uses what the extra is for, and is refused by
name what the others are for. Writes `install_matrix.json` beside the builds, as far as it has come, and ends with 1 if
anything failed. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import email
import json
import platform
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

BRINGS = {"demo": ["demo", "peers"], "sweep": ["sweep"]}
"""What an extra brings along, where that is more than itself."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path, nargs="?", default=Path("dist"), help="folder with one wheel and one sdist")
    parser.add_argument("--only", nargs="*", default=None, help="wheel, sdist, or extras")
    options = parser.parse_args()
    (wheel,), (sdist,) = options.dist.glob("*.whl"), options.dist.glob("*.tar.gz")
    wanted = {"wheel": (wheel, ""), "sdist": (sdist, "")} | {extra: (wheel, extra) for extra in list_extras(wheel)}
    chosen = [name for name in wanted if options.only is None or name in options.only]
    rows: list[dict[str, Any]] = []
    for name in chosen:
        rows.append({"install": name, **try_install(*wanted[name])})
        print(f"{name}: {rows[-1]['outcome']}, {rows[-1]['seconds']} s", flush=True)
        found = {"machine": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
        (options.dist / "install_matrix.json").write_text(json.dumps({**found, "rows": rows}, indent=2) + "\n")
    return int(any(row["outcome"] != "works" for row in rows))


def list_extras(wheel: Path) -> list[str]:
    """Return the extras that the wheel's metadata declare and that are for users."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [extra for extra in metadata.get_all("Provides-Extra", []) if extra not in OWN]


def try_install(artefact: Path, extra: str) -> dict[str, Any]:
    """Return what came of one environment."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="softcam-install-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        target = f"{artefact.resolve()}[{extra}]" if extra else str(artefact.resolve())
        steps = {
            "cannot be installed": [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", target],
            "requirements clash": [python, "-m", "pip", "--disable-pip-version-check", "check"],
            "does not work": [python, SMOKE, *(BRINGS.get(extra, [extra]) if extra else [])],
        }
        outcome, said = "works", ""
        for fault, command in steps.items():
            done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=folder)
            if done.returncode:
                outcome, said = fault, (done.stdout + done.stderr).strip()[-2000:]
                break
        packages = len(list(Path(folder).glob("lib*/python*/site-packages/*.dist-info")))
    row = {"outcome": outcome, "packages": packages, "seconds": round(time.perf_counter() - begun)}
    if said:
        print(said, file=sys.stderr)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
