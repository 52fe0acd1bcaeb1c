from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.errors import ImageError
from softcam.reporting.inputs import Entry, list_entries
from softcam.reporting.places import describe_place, open_places


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def entries(*inputs: Path) -> list[Entry]:
    return list(list_entries(inputs, exclude=Path("/nowhere")))


def write_tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            information = tarfile.TarInfo(name.replace("__", "."))
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return path


def test_images_of_shards_are_read_in_place(tmp_path: Path) -> None:
    members = {"b__png": picture(2), "a__png": picture(1), "a__json": b"{}", "a__cls": b"1"}
    found = entries(write_tar(tmp_path / "s-0.tar", **members), write_tar(tmp_path / "s-1.tar", a__png=picture(3)))
    assert [entry.id for entry in found] == ["s-0/a.png", "s-0/b.png", "s-1/a.png"]
    assert [int(entry.decode().pixels[0, 0]) for entry in found] == [1, 2, 3]
    opened = open_places(map(describe_place, found))
    assert [image.id for image in opened] == [entry.id for entry in found]
    assert [int(image.decode().pixels[0, 0]) for image in opened] == [1, 2, 3]


def test_a_cut_shard_gives_what_is_whole_and_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", a__png=picture(1), b__png=picture(2))
    content = path.read_bytes()
    path.write_bytes(content[:1024] + b"\xff" * 512 + content[1536:])
    found = entries(path)
    assert [(entry.id, entry.refusal) for entry in found] == [
        ("s/a.png", ""),
        ("s.tar", "archive is cut off or damaged; what follows is lost"),
    ]


def test_links_and_names_that_lead_out_of_a_shard_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../out.png"))
    assert {entry.refusal for entry in entries(tmp_path / "s.tar")} == {
        "link in an archive, which is not followed",
        "name that leads out of the archive",
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_names_its_images_and_its_bad_rows(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(1))
    table = pd.DataFrame({"label": list("xxxx"), "image": ["images//a.png", "../out.png", "", "images/b.png"]})
    path = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    found = entries(path)
    assert [entry.id for entry in found] == ["images/a.png", "_._/out.png", f"table.{suffix}#row4", "images/b.png"]
    assert [bool(entry.refusal) for entry in found] == [False, True, True, True]
    assert int(open_places([describe_place(found[0])])[0].decode().pixels[0, 0]) == 1


def test_a_table_without_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\na.png\n")
    (entry,) = entries(tmp_path / "t.csv")
    assert entry.refusal == "expected a column named 'image', but the table has none"


def test_members_of_zip_archives_are_opened_again(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", picture(5))
    places = [describe_place(entry) for entry in entries(tmp_path / "z.zip")]
    assert int(open_places(places)[0].decode().pixels[0, 0]) == 5
    (tmp_path / "z.zip").unlink()
    with pytest.raises(ImageError, match="archive cannot be read"):
        open_places(places)[0].decode()


def test_a_table_that_breaks_off_says_after_which_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "t.csv").write_bytes(b'image,label\na.png,1\n\na.png\n"a.png,1\n')
    found = [(entry.id, entry.refusal) for entry in entries(tmp_path / "t.csv")]
    assert found[0] == ("a.png", "")
    assert found[1][1] == "expected 2 cells as in the header, but the row has 1"
    assert found[2] == ("t.csv", "table is damaged after row 4; what follows is lost")


def test_a_parquet_file_that_is_none_or_lacks_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing more")
    (entry,) = entries(tmp_path / "t.parquet")
    assert entry.refusal == "table cannot be read"
    pd.DataFrame({"path": ["a.png"]}).to_parquet(tmp_path / "u.parquet")
    (entry,) = entries(tmp_path / "u.parquet")
    assert entry.refusal == "expected a column named 'image', but the table has none"


def test_a_shard_that_lost_its_bytes_is_an_error_of_the_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", a__png=picture(1), b__png=picture(2))
    places = [describe_place(entry) for entry in entries(path)]
    path.write_bytes(path.read_bytes()[:600])
    second = open_places(places)[1]
    with pytest.raises(ImageError, match=r"archive|damaged|empty"):
        second.decode()


def test_a_shard_without_images_says_so(tmp_path: Path) -> None:
    (entry,) = entries(write_tar(tmp_path / "s.tar", a__cls=b"1"))
    assert entry.refusal == "archive without images"
