"""Nothing in a chain can change without a trace, and a crash loses nothing that was acknowledged."""

from __future__ import annotations

import base64
import json
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from softcam.errors import RecordError, RunError
from softcam.records import START, ChainWriter, Signer, check_chain, read_chain, write_chain


def write(path: Path, signer: Signer, count: int = 5) -> list[bytes]:
    write_chain(
        path, (({"kind": "note", "number": n}, f"2026-01-0{n + 1}T00:00:00+00:00") for n in range(count)), signer
    )
    return path.read_bytes().splitlines(keepends=True)


def kinds(path: Path, *keys: Any, head: str | None = None) -> list[tuple[int, str]]:
    return [(fault.line, fault.kind) for fault in check_chain(path, keys=keys, head=head).faults]


def test_a_chain_is_whole(chain: Path, signer: Signer) -> None:
    write(chain, signer)
    report = check_chain(chain, keys=[signer.verifier])
    assert (report.records, report.faults, report.signed) == (5, (), True)
    records = list(read_chain(chain))
    assert [record.sequence for record in records if record] == [0, 1, 2, 3, 4]
    assert records[0] is not None
    assert records[0].previous == START
    assert records[-1] is not None
    assert report.head == records[-1].digest
    assert check_chain(chain).signed is False


@pytest.mark.parametrize("field", ["time", "body", "sequence", "previous", "key", "digest", "signature"])
def test_an_edit_of_any_field_is_found(field: str, chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    values = json.loads(lines[2])
    changed = {
        "time": "2026-01-03T00:00:00+00:01", "body": {"kind": "note", "number": 7}, "sequence": 9, "previous": "1" * 64,
        "key": "0" * 16, "digest": "2" * 64, "signature": values["signature"].swapcase(),
    }  # fmt: skip
    lines[2] = json.dumps({**values, field: changed[field]}).encode() + b"\n"
    chain.write_bytes(b"".join(lines))
    assert 3 in {line for line, _ in kinds(chain, signer.verifier)}


def test_an_edit_that_base64_would_not_show_is_found(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    values = json.loads(lines[2])
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    last = digits.index(values["signature"][-3])
    edited = values["signature"][:-3] + digits[last ^ 1] + "=="
    assert base64.b64decode(edited, validate=True) == base64.b64decode(values["signature"])
    lines[2] = json.dumps({**values, "signature": edited}).encode() + b"\n"
    chain.write_bytes(b"".join(lines))
    assert kinds(chain, signer.verifier) == [(3, "foreign")]


def test_an_edit_with_a_new_digest_breaks_the_link(chain: Path, signer: Signer, other: Signer) -> None:
    from softcam.records.chain import Chain  # noqa: PLC0415 - what an attacker would use

    lines = write(chain, signer)
    original = json.loads(lines[2])
    forged = Chain(other, 2, original["previous"]).add({"kind": "note", "number": 8}, time=original["time"])
    lines[2] = forged.to_line()
    chain.write_bytes(b"".join(lines))
    assert kinds(chain) == [(4, "missing")], "the next one does not follow it"
    assert kinds(chain, signer.verifier) == [(3, "foreign"), (4, "missing")]
    assert kinds(chain, signer.verifier, other.verifier) == [(4, "missing")]


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_a_deletion_is_found(gone: int, chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    del lines[gone]
    chain.write_bytes(b"".join(lines))
    assert kinds(chain) == [(gone + 1, "missing")]


def test_several_deletions_are_counted(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    chain.write_bytes(lines[0] + lines[4])
    assert "1 to 3 is missing" in check_chain(chain).faults[0].text


def test_an_exchange_and_a_copy_are_found(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    chain.write_bytes(lines[0] + lines[2] + lines[1] + lines[3] + lines[4])
    assert {kind for _, kind in kinds(chain)} == {"missing", "moved"}
    chain.write_bytes(b"".join([*lines[:3], lines[2], *lines[3:]]))
    assert (4, "moved") in kinds(chain)


def test_an_end_that_is_cut_off_shows_by_a_digest_kept_elsewhere(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    head = json.loads(lines[4])["digest"]
    assert kinds(chain, head=head) == []
    chain.write_bytes(b"".join(lines[:4]))
    assert kinds(chain) == []
    assert kinds(chain, head=head) == [(0, "cut")]
    write(chain, signer, count=7)
    assert kinds(chain, head=json.loads(lines[4])["digest"]) == [], "a chain may have grown since"


def test_another_chain_of_the_same_key_is_not_this_one(chain: Path, signer: Signer) -> None:
    head = json.loads(write(chain, signer)[4])["digest"]
    write_chain(chain, [({"kind": "note"}, "2026-01-01T00:00:00+00:00")], signer)
    assert kinds(chain, signer.verifier) == []
    assert kinds(chain, signer.verifier, head=head) == [(0, "cut")]


@pytest.mark.parametrize(
    "line", [b"words\n", b"[]\n", b"{}\n", b"\n", b"[" * 100_000 + b"\n", b'{"body": {"a": NaN}}\n']
)
def test_lines_that_are_none_are_named(line: bytes, chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    chain.write_bytes(b"".join(lines[:2]) + line + b"".join(lines[2:]))
    assert kinds(chain) == [(3, "damaged")]


def test_a_number_that_json_does_not_know_is_damage(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    chain.write_bytes(b"".join(lines).replace(b'"number": 2', b'"number": NaN'))
    assert (3, "damaged") in kinds(chain, signer.verifier)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        check_chain(tmp_path / "none")


def test_a_writer_goes_on_where_the_last_one_ended(chain: Path, signer: Signer, other: Signer) -> None:
    with ChainWriter(chain, signer) as writer:
        writer.add({"number": 0}, {"number": 1})
    with ChainWriter(chain, other) as writer:
        writer.add({"number": 2})
        head = writer.head
    report = check_chain(chain, keys=[signer.verifier, other.verifier], head=head)
    assert (report.records, report.faults) == (3, ())
    assert chain.stat().st_mode & 0o777 == 0o600


def test_a_torn_line_is_dropped_and_the_chain_goes_on(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    for cut in (1, 20, len(lines[4]) - 1):
        chain.write_bytes(b"".join(lines[:4]) + lines[4][:cut])
        with ChainWriter(chain, signer) as writer:
            writer.add({"number": "new"})
        assert kinds(chain, signer.verifier) == []
        assert len(chain.read_bytes().splitlines()) == 5


def test_a_damaged_chain_is_not_continued(chain: Path, signer: Signer) -> None:
    lines = write(chain, signer)
    chain.write_bytes(lines[0] + lines[2])
    with pytest.raises(RecordError, match="damaged at record 1"):
        ChainWriter(chain, signer)
    chain.write_bytes(b"words\n")
    with pytest.raises(RecordError, match="damaged at record 0"):
        ChainWriter(chain, signer)


def test_one_process_writes_at_a_time(chain: Path, signer: Signer) -> None:
    with ChainWriter(chain, signer), pytest.raises(RunError, match="another run"):
        ChainWriter(chain, signer)


def test_threads_take_turns(chain: Path, signer: Signer) -> None:
    with ChainWriter(chain, signer) as writer, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: writer.add({"number": number}), range(100)))
    report = check_chain(chain, keys=[signer.verifier])
    assert (report.records, report.faults) == (100, ())
    assert sorted(record.body["number"] for record in read_chain(chain) if record) == list(range(100))


def test_a_record_that_cannot_be_written_is_not_counted(
    chain: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChainWriter(chain, signer) as writer:
        writer.add({"number": 0})

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("softcam.records.chain.os.fsync", fail)
            with pytest.raises(OSError, match="No space"):
                writer.add({"number": 1})
        writer.add({"number": 2})
    assert kinds(chain, signer.verifier) == []
    assert [record.body["number"] for record in read_chain(chain) if record] == [0, 2]
