"""Write `newest.txt` and `oldest.txt`: versions of all packages with which softcam was installed and tested.

    python constraints/resolve.py [newest] [oldest]

`newest.txt` is what pip chooses today, `oldest.txt` what it chooses where every direct dependency is at its lower bound
in `pyproject.toml`; both for the packages of the library and of the extras below. Nothing is installed. Use one with
`pip install -c constraints/newest.txt 'softcam[serve]'`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("demo", "dicom", "hub", "onnx", "records", "serve")
"""Those of the tested installation."""

KINDS = ("newest", "oldest")


def list_requirements() -> Iterator[Requirement]:
    """Yield the direct dependencies of the library and its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])):
        if (requirement := Requirement(text)).name != project["name"]:
            yield requirement


def list_lower_bounds() -> list[str]:
    """Return each direct dependency at its lower bound, the highest one where extras raise it."""
    bounds: dict[str, Version] = {}
    for requirement in list_requirements():
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                name = canonicalize_name(requirement.name)
                bounds[name] = max(bounds.get(name, Version("0")), Version(specifier.version))
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


def resolve(pins: Sequence[str]) -> list[str]:
    """Return all packages that pip would install, each at its version.

    Args:
        pins: Constraints.

    Raises:
        RuntimeError: If they contradict each other; with what pip says.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
        project = f"{ROOT}[{','.join(EXTRAS)}]"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", str(report), "--constraint", str(constraints), project]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip of this Python
        if done.returncode:
            raise RuntimeError(f"Expected a set of versions, but pip says: {done.stderr[-2000:]}")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    items = {canonicalize_name(item["metadata"]["name"]): Version(item["metadata"]["version"]) for item in found}
    return [f"{name}=={version.public}" for name, version in sorted(items.items()) if name != "softcam"]


def main(kinds: Sequence[str]) -> int:
    """Resolve and write."""
    for kind in kinds or KINDS:
        pins = list_lower_bounds() if kind == "oldest" else []
        head = f"# Written by constraints/resolve.py; Python {sys.version_info.major}.{sys.version_info.minor}."
        lines = [head, *resolve(pins)]
        (ROOT / "constraints" / f"{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
