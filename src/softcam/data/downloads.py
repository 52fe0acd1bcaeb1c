"""What a public download is to softcam: which of its files are images, what is known of each, how each is written."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from softcam.data.archives import Member, list_packed
from softcam.data.splits import assign_splits
from softcam.data.tables import SPLITS
from softcam.errors import ManifestError

Row = dict[str, Any]


@dataclass(frozen=True)
class PreparationSettings:
    """What decides how a download becomes a manifest.

    Args:
        labels: Which labels the images get, a key of the download's `labels`; None for its first.
        splits: Folder with the tables of published splits; None draws a patient-disjoint split.
        size: Side of the written images in pixels, >= 16; None for the download's own choice.
        seed: Draws another split for another number.
        workers: Processes that decode and write, >= 1; None for one per available core. The result does not depend
            on it.

    Raises:
        ValueError: If a number is out of its range.
    """

    labels: str | None = None
    splits: Path | None = None
    size: int | None = None
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("size", 16), ("workers", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Expected `{name}` to be at least {least}, but got {value}. Raise it.")


@dataclass(frozen=True)
class Order:
    """One image that is to be written.

    Args:
        stem: Name of the written image without its suffix; unique.
        members: The image, and what else is needed for it.
        row: What is known of it before it is opened, as columns of the manifest.
    """

    stem: str
    members: tuple[Member, ...]
    row: Row


@dataclass(frozen=True)
class Plan:
    """What is to be done with a download.

    Args:
        orders: The images.
        skipped: Names and reasons of images that cannot be written, or have no label.
        notes: Counts that the record of the preparation keeps, such as of patients that were left out.
    """

    orders: tuple[Order, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Product:
    """What became of an image.

    Args:
        files: Content by path below the output folder; the first is the image.
        facts: What was found in it, in JSON values.
    """

    files: Mapping[str, bytes]
    facts: Row


@dataclass(frozen=True)
class Download:
    """A public data set that is fetched by hand, since its terms have to be accepted.

    Args:
        name: As the command line has it.
        title: What it is, in a few words.
        labels: Kinds of labels with their classes in the order of the logits; the first is the usual one.
        size: Side in pixels that images are written with by default; None leaves them as they are.
        plan: From the files of the download to what is to be done.
        convert: From the bytes of an order's members to what is written. A function of a module, since worker
            processes import it.
        complete: From an order's row and an image's facts to the columns of the manifest.
    """

    name: str
    title: str
    labels: Mapping[str, tuple[str, ...]]
    size: int | None
    plan: Callable[[Sequence[Member], PreparationSettings], Plan]
    convert: Callable[[str, Sequence[bytes], int | None], Product]
    complete: Callable[[Row, Row], Row]

    def choose_labels(self, settings: PreparationSettings) -> str:
        """Return the kind of labels that the settings ask for.

        Raises:
            ValueError: If there is no such kind.
        """
        if settings.labels is None:
            return next(iter(self.labels))
        if settings.labels not in self.labels:
            names = ", ".join(self.labels)
            raise ValueError(f"Expected `labels` of {self.name} to be one of {names}, but got {settings.labels!r}.")
        return settings.labels


def index_images(members: Iterable[Member], name: Callable[[Member], str | None]) -> dict[str, Member]:
    """Return the images of a download by name; of copies that are equally large the first one is taken.

    Args:
        members: Of the download.
        name: Returns the name that tables give to an image, or None for a file that is none.

    Raises:
        ManifestError: If files of different size have the same name.
    """
    found: dict[str, Member] = {}
    clashes = []
    for member in members:
        key = name(member)
        if key is not None and found.setdefault(key, member).size != member.size:
            clashes.append(f"Expected {key!r} once in the download, but got {found[key].name!r} and {member.name!r}.")
    if clashes:
        raise ManifestError([*clashes[:9], f"{len(clashes)} name(s) lead to different files. Keep one folder of each."])
    return found


def read_columns(content: bytes | None, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV table as text cells, without spaces at their ends.

    Args:
        content: Its bytes; None if it was not found.
        name: Its file name, for messages.
        columns: What it has to have; further columns are kept.

    Raises:
        ManifestError: If it is absent, no such table or has other columns.
    """
    if content is None:
        raise ManifestError([f"Expected the table {name} in the download, but it is missing. Download it as well."])
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeError) as error:  # pandas' own errors derive from ValueError
        raise ManifestError(
            [f"Expected {name} to be comma-separated text, but it is not. Download it again."]
        ) from error
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    missing = [column for column in columns if column not in table]
    if missing:
        got = ", ".join(table.columns[:12])
        raise ManifestError(
            [f"Expected {name} to have the columns {', '.join(columns)}, but got {got}. Check the file."]
        )
    return pd.DataFrame({name: table[name].str.strip() for name in table.columns})


def read_splits(
    folder: Path, files: Mapping[str, Sequence[str]], *, inside: str, key: str, columns: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of published splits, with a column `split`.

    Args:
        folder: Where the tables are, or the folder above.
        files: Names of the table of each split; the first that is there is taken.
        inside: Folder of this data set, as the authors call it.
        key: Column that names the image.
        columns: What each table has to have.

    Raises:
        ManifestError: If a table is missing, has other columns, or an image is named twice.
    """
    tables = []
    for split, names in files.items():
        places = [path for base in (folder / inside, folder) for name in names if (path := base / name).is_file()]
        if not places:
            raise ManifestError(
                [f"Expected {' or '.join(names)} in {str(folder)!r}, but it is not there. Check --splits."]
            )
        table = read_columns(places[0].read_bytes(), places[0].name, [key, *columns])
        tables.append(table[[key, *columns]].assign(split=split))
    whole = pd.concat(tables, ignore_index=True)
    repeated = whole[key][whole[key].duplicated()]
    if len(repeated):
        raise ManifestError(
            [f"Expected the splits to name each image once, but {len(repeated)} are repeated. Check --splits."]
        )
    return whole


def split_rows(rows: Sequence[Row], settings: PreparationSettings) -> list[Row]:
    """Return rows with a patient-disjoint split in which the labels are shared out alike.

    Args:
        rows: With `label` and `patient`.
        settings: The seed.
    """
    if not rows:
        return []
    table = pd.DataFrame({name: [row[name] for row in rows] for name in ("label", "patient")})
    splits = assign_splits(table, seed=settings.seed, stratify=["label"], group="patient")
    return [row | {"split": split} for row, split in zip(rows, splits, strict=True)]


def match_images(
    rows: Iterable[tuple[str, Row]], images: Mapping[str, Member], members: Sequence[Member]
) -> tuple[tuple[Order, ...], tuple[tuple[str, str], ...]]:
    """Return an order for each row whose image is there, and what is missing.

    Args:
        rows: Name of the image with its columns.
        images: By name.
        members: Of the download, to say what else is in it.

    Raises:
        ManifestError: If not a single image is there.
    """
    orders, skipped = [], []
    for name, row in rows:
        if name in images:
            orders.append(Order(name.replace("/", "_"), (images[name],), row))
        else:
            skipped.append((name, "not in the download"))
    if not orders:
        raise describe_absence("the images that the tables name", members)
    return tuple(orders), tuple(skipped)


def describe_absence(expected: str, members: Sequence[Member]) -> ManifestError:
    """Return the error that says what a download does not hold, and what to do.

    Args:
        expected: What was looked for.
        members: Of the download.
    """
    packed = list_packed(members)
    hint = f"Unpack {packed[0]!r} first." if packed else "Give the folder or zip file that holds them."
    return ManifestError([f"Expected {expected} in the download, but got none among {len(members)} files. {hint}"])


def order_columns(row: Row) -> Row:
    """Return a row with the manifest's own columns first."""
    first = [name for name in ("image", "label", "split", "patient", "boxes", "mask") if name in row]
    return {name: row[name] for name in first} | row


def count_labels(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many images each split has of each label."""
    return {
        split: {str(label): int(count) for label, count in part["label"].value_counts(sort=False).sort_index().items()}
        for split in SPLITS
        if len(part := table[table["split"] == split])
    }
