"""Labels as people write them: class names, whole numbers from 0, or one 0/1 column per class."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from softcam.data.tables import ImageTable


def infer_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the class names that labels imply: numbers in order of size, other names in alphabetical order.

    Args:
        labels: Label cells as text; empty ones are passed over.

    Example:
        >>> infer_classes(["10", "2", "2"]), infer_classes(["intact", "defect"])
        (('2', '10'), ('defect', 'intact'))
    """
    found = {label for label in labels if label}
    numbers = {label: number for label in found if (number := read_whole(label)) is not None}
    if len(numbers) < len(found):
        return tuple(sorted(found))
    return tuple(str(number) for number in sorted(set(numbers.values())))


def find_class(label: str, classes: Sequence[str]) -> int | None:
    """Return the index that a label names, by name first and as a number from 0 otherwise; None if there is none.

    Args:
        label: A label cell as text.
        classes: Class names in the order of the logits.

    Example:
        >>> [find_class(label, ("intact", "defect")) for label in ("defect", "1", "2")]
        [1, 1, None]
    """
    if label in classes:
        return list(classes).index(label)
    number = read_whole(label)
    return number if number is not None and 0 <= number < len(classes) else None


def read_whole(text: str) -> int | None:
    """Return the whole number that a cell holds, or None.

    `2.0` counts as 2: a column of whole numbers with one empty cell is often saved so.

    Args:
        text: A cell.
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def check_labels(table: ImageTable, classes: Sequence[str] | None) -> Iterator[str]:
    """Yield one sentence for each label that names no class.

    Args:
        table: Has a `label` column of text cells.
        classes: Class names in the order of the logits, or None to take them from the labels.
    """
    labels = list(table.table["label"])
    names = tuple(classes) if classes else infer_classes(labels)
    if not classes:
        yield from _check_inferred(names)
    for position, label in enumerate(labels):
        if find_class(label, names) is None:
            got = f"{_quote(label)}.{_suggest(label, names)}"
            yield f"{table.place(position)}: expected `label` to be one of {list(names)}, but got {got}"


def check_flags(table: ImageTable, classes: Sequence[str]) -> Iterator[str]:
    """Yield one sentence for each label whose name cannot be, and for each of its cells that is neither 0 nor 1.

    Args:
        table: Has text cells; a missing column is passed over.
        classes: Names of the label columns.
    """
    for name in classes:
        if ";" in name:
            yield f"Expected the names of labels to be without `;`, which parts several of them, but got {name!r}."
        for position, text in enumerate(table.table.get(name, ())):
            if read_whole(text) not in (0, 1):
                yield f"{table.place(position)}: expected `{name}` to be 0 or 1, but got {_quote(text)}."


def _check_inferred(names: Sequence[str]) -> Iterator[str]:
    if len(names) < 2:
        yield f"Expected at least two classes, but the labels hold {list(names)}. Name them all with `classes`."
        return
    numbers = [read_whole(name) for name in names]
    # A grade that happens to be absent must not shift the others.
    if None not in numbers and numbers != list(range(len(names))):
        shown = list(names[:10])
        yield f"Expected whole-number labels to be 0, 1, … without gaps, but got {shown}. Name them with `classes`."


def _suggest(label: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(label, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _quote(text: str) -> str:
    return repr(text) if text else "an empty cell"
