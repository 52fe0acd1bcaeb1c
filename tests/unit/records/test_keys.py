"""Keys are private, and are what they are taken for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from softcam.errors import RecordError
from softcam.records import create_key, load_signer, load_verifier
from softcam.records.keys import PASSPHRASE


def test_a_pair_signs_and_verifies(tmp_path: Path) -> None:
    private, public = create_key(tmp_path / "new")
    signer, verifier = load_signer(private), load_verifier(public)
    signature = signer.sign(b"message")
    assert verifier.name == signer.name == signer.verifier.name
    assert verifier.verify(signature, b"message")
    assert not verifier.verify(signature, b"messages")
    assert not verifier.verify(signature[:-4], b"message")
    assert not verifier.verify("no base64 ü", b"message")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    create_key(tmp_path)
    with pytest.raises(RecordError, match="not replaced"):
        create_key(tmp_path)


def test_a_key_can_have_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    private, _ = create_key(tmp_path)
    assert b"ENCRYPTED" in private.read_bytes()
    load_signer(private)
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(RecordError, match=PASSPHRASE):
        load_signer(private)
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(RecordError, match=PASSPHRASE):
        load_signer(private)


def test_a_passphrase_does_not_disturb_a_key_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = create_key(tmp_path)
    monkeypatch.setenv(PASSPHRASE, "anything")
    load_signer(private)


def test_other_files_are_refused(tmp_path: Path) -> None:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    private, public = create_key(tmp_path)
    for path in (tmp_path / "none", public):
        with pytest.raises(RecordError, match="private key"):
            load_signer(path)
    with pytest.raises(RecordError, match="public key"):
        load_verifier(private)
    key = rsa.generate_private_key(rsa.SECP256R1())
    pem = serialization.Encoding.PEM
    other = tmp_path / "other.pem"
    other.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(RecordError, match="another kind"):
        load_signer(other)
    other.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(RecordError, match="another kind"):
        load_verifier(other)


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    signer = load_signer(create_key(tmp_path)[0])
    assert repr(signer) == f"Signer(name={signer.name!r})"
