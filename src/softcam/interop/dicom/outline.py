"""Where the border of a region of cells runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Point = tuple[int, int]

_STEPS = ((0, -1), (1, 0), (0, 1), (-1, 0))


def trace_outline(cells: Mask) -> tuple[Point, ...]:
    """Return the border of a region as one closed line of corners (x, y) in cells, first and last the same.

    A hole is joined to the border by a line that runs there and back, so that exactly the region is enclosed.

    Args:
        cells: (h, w), of which those that are marked touch along their sides.
    """
    loops = sorted(_trace_loops(cells), key=min)
    border = loops[0]
    for hole in loops[1:]:
        border = _join(border, hole)
    return _straighten(border)


def _trace_loops(cells: Mask) -> list[list[Point]]:
    """Return every closed border as corners one step apart, with the cells on the right hand."""
    edges = _list_edges(cells)
    loops = []
    while edges:
        start = min(edges)
        loop, heading = [start], edges[start][0]
        _take(edges, start, heading)
        while (corner := _step(loop[-1], heading)) != start or _continues(edges, corner, heading):
            loop.append(corner)
            heading = _turn(edges[corner], heading)
            _take(edges, corner, heading)
        loops.append(loop)
    return loops


def _list_edges(cells: Mask) -> dict[Point, list[int]]:
    """Return the directions, as indices of `_STEPS`, in which borders leave each corner."""
    padded = np.pad(cells, 1)
    edges: dict[Point, list[int]] = {}
    for row, column in np.argwhere(cells).tolist():
        # Upper side eastwards, right side southwards, lower side westwards, left side northwards.
        sides = (
            (padded[row, column + 1], (column, row), 1),
            (padded[row + 1, column + 2], (column + 1, row), 2),
            (padded[row + 2, column + 1], (column + 1, row + 1), 3),
            (padded[row + 1, column], (column, row + 1), 0),
        )
        for inside, corner, heading in sides:
            if not inside:
                edges.setdefault(corner, []).append(heading)
    return edges


def _turn(headings: list[int], heading: int) -> int:
    # Where two cells touch at a corner alone they are not connected there: turn right, towards the own cell.
    return next(turned for turn in (1, 0, 3) if (turned := (heading + turn) % 4) in headings)


def _continues(edges: dict[Point, list[int]], corner: Point, heading: int) -> bool:
    # A corner may be passed twice, but a right turn into the first edge closes the loop.
    return (heading + 1) % 4 in edges.get(corner, ())


def _take(edges: dict[Point, list[int]], corner: Point, heading: int) -> None:
    edges[corner].remove(heading)
    if not edges[corner]:
        del edges[corner]


def _step(corner: Point, heading: int) -> Point:
    return corner[0] + _STEPS[heading][0], corner[1] + _STEPS[heading][1]


def _join(border: list[Point], hole: list[Point]) -> list[Point]:
    """Return one loop of both: from the hole's leftmost corner straight to the left until the border is met."""
    x, y = hole[0]
    bridge = []
    while (x, y) not in border:
        bridge.append((x, y))
        x -= 1
    at = border.index((x, y))
    return [*border[: at + 1], *reversed(bridge), *hole[1:], *bridge, *border[at:]]


def _straighten(loop: list[Point]) -> tuple[Point, ...]:
    """Return the corners at which the line turns, closed."""
    closed = [loop[-1], *loop, loop[0]]
    kept = [
        here
        for before, here, after in zip(closed, closed[1:], closed[2:], strict=False)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    return (*kept, kept[0])
