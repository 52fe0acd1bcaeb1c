"""Draw the floors of the house from the page about it: `python docs/images/make_architecture.py`."""

from __future__ import annotations

import re
from pathlib import Path

from softcam.files import write_atomic

PAGE = Path(__file__).resolve().parents[1] / "explanation" / "architecture.md"
TITLES: dict[float, str] = {
    0: "ground",
    1: "the method, measures, pixels",
    2: "data, methods, models on disk",
    3: "training, graphs",
    3.5: "prediction",
    4: "comparison",
    4.5: "records",
    5: "what people and others see",
    6: "services",
    7: "commands",
}
WIDTH, ROW, LEFT, GAP, LETTER = 900, 46, 235, 8, 8.4
STYLE = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:14px"


def main() -> None:
    write_atomic(Path(__file__).with_name("architecture.svg"), draw(read_floors(PAGE.read_text(encoding="utf-8"))))


def read_floors(page: str) -> dict[str, float]:
    """Return the floor of every room of the page's table."""
    return {room: float(floor) for floor, room in re.findall(r"^\| ([\d.]+) \| `(\w+)` \|", page, re.M)}


def draw(floors: dict[str, float]) -> str:
    """Return the picture: a row for each title, the highest first, and a box for each room."""
    rows: dict[str, list[str]] = {}
    for room, floor in sorted(floors.items(), key=lambda entry: (-entry[1], entry[0])):
        rows.setdefault(TITLES.get(floor) or TITLES[min(int(floor), max(TITLES))], []).append(room)
    height = ROW * len(rows) + GAP
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">']
    lines += ["<title>The floors of the house, the highest on top</title>"]
    lines += [f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f6f7f9"/>']
    for number, (title, rooms) in enumerate(rows.items()):
        top = number * ROW + GAP
        lines += [f'<rect x="{GAP}" y="{top}" width="{WIDTH - 2 * GAP}" height="{ROW - GAP}" rx="5" fill="#e3f2ef"/>']
        lines += [
            f'<text x="{2 * GAP}" y="{top + 24}" fill="#3b4a52" style="font:13px system-ui,sans-serif">{title}</text>'
        ]
        left = float(LEFT)
        for room in rooms:
            width = LETTER * len(room) + 2 * GAP
            box = f'x="{left:.0f}" y="{top + 6}" width="{width:.0f}" height="{ROW - GAP - 12}" rx="4"'
            lines += [f'<rect {box} fill="#fff" stroke="#00776a"/>']
            lines += [f'<text x="{left + GAP:.0f}" y="{top + 24}" fill="#1b1f27" style="{STYLE}">{room}</text>']
            left += width + GAP
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    main()
