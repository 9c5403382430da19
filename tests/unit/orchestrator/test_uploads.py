"""Uploaded files: kept by their content, named in a spec, never outside their folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import select

from orchestrator.catalogue import Catalogue, schema
from orchestrator.errors import DiskFull, SpecError

DATA = b"3\n\nW 0 0 0\nSe 1 1 1\nSe 2 2 2\n"
DIGEST = sha256(DATA).hexdigest()


@pytest.fixture
def catalogue(catalogue_folder: Path) -> Iterator[Catalogue]:
    with Catalogue.open(catalogue_folder, visitor=True) as opened:
        yield opened


def test_a_file_is_kept_once_by_its_content(catalogue: Catalogue) -> None:
    assert catalogue.uploads.keep("WSe2 単層.xyz", DATA) == DIGEST
    assert catalogue.uploads.keep("WSe2 単層.xyz", DATA) == DIGEST
    assert catalogue.uploads.keep("other.xyz", DATA) == DIGEST
    folder = catalogue.data_folder / "uploads" / DIGEST
    assert sorted(path.name for path in folder.iterdir()) == ["WSe2 単層.xyz", "other.xyz"]
    assert {path.read_bytes() for path in folder.iterdir()} == {DATA}
    with catalogue.database.reading() as connection:
        (row,) = connection.execute(select(schema.upload)).mappings().all()
    assert (row["sha256"], row["name"], row["size_bytes"]) == (DIGEST, "WSe2 単層.xyz", len(DATA))


def test_references_in_a_spec_become_paths(catalogue: Catalogue) -> None:
    catalogue.uploads.keep("a.xyz", DATA)
    reference = f"sha256:{DIGEST}/a.xyz"
    spec = {
        "name": reference,  # not a place for files
        "specimen": {"material": "WSe2", "structure": reference},
        "instrument": {"name": "replay", "config": {"file": reference, "structure": "/a/path.xyz", "seed": 3}},
    }
    resolved = catalogue.uploads.resolve(spec)
    path = str(catalogue.data_folder / "uploads" / DIGEST / "a.xyz")
    assert resolved["specimen"]["structure"] == resolved["instrument"]["config"]["file"] == path
    assert resolved["instrument"]["config"]["structure"] == "/a/path.xyz"
    assert resolved["name"] == reference
    assert spec["specimen"]["structure"] == reference
    assert catalogue.uploads.resolve({"specimen": None, "instrument": {}}) == {"specimen": None, "instrument": {}}


def test_what_was_not_uploaded_is_named(catalogue: Catalogue) -> None:
    catalogue.uploads.keep("a.xyz", DATA)
    missing = f"sha256:{'0' * 64}/a.xyz"
    with pytest.raises(SpecError, match=f"no file with sha256 {'0' * 64}"):
        catalogue.uploads.resolve({"specimen": {"structure": missing}})
    with pytest.raises(SpecError, match=r"was uploaded as a\.xyz, not as 'b\.xyz'"):
        catalogue.uploads.resolve({"specimen": {"structure": f"sha256:{DIGEST}/b.xyz"}})


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a\0b", "a\nb", "x" * 161, "語" * 54])
def test_a_name_leads_nowhere_else(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(SpecError, match="is no name for a file"):
        catalogue.uploads.keep(name, DATA)
    with pytest.raises(SpecError, match="is no name for a file"):
        catalogue.uploads.path(DIGEST, name)
    assert not (catalogue.data_folder / "uploads").exists()


def test_a_full_disk_leaves_nothing(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.catalogue.folder.free_bytes", lambda folder: 100)
    with pytest.raises(DiskFull, match="disk full: 100 bytes are free"):
        catalogue.uploads.keep("a.xyz", DATA)
    assert list((catalogue.data_folder / "uploads").iterdir()) == []


def test_a_file_may_come_in_pieces_and_nothing_is_left_of_one_that_does_not_end(catalogue: Catalogue) -> None:
    folder = catalogue.data_folder / "uploads"
    whole, cut_off = catalogue.uploads.begin(), catalogue.uploads.begin(3)
    for piece in (DATA[:5], DATA[5:]):
        whole.write(piece)
    cut_off.write(b"abc")
    assert (whole.sha256, whole.size_bytes) == (DIGEST, len(DATA))
    assert [catalogue.uploads.take(part, "a.xyz") for part in (whole, cut_off)] == [True, True]
    again = catalogue.uploads.begin()
    again.write(DATA)
    assert catalogue.uploads.take(again, "a.xyz") is False
    for part in (whole, cut_off, again, catalogue.uploads.begin()):
        part.discard()
    assert catalogue.uploads.path(DIGEST, "a.xyz").read_bytes() == DATA
    assert [path for path in folder.iterdir() if path.is_file()] == []


def test_what_a_crash_cut_off_goes_when_nobody_can_be_writing_it(catalogue: Catalogue) -> None:
    left, coming = catalogue.uploads.begin(), catalogue.uploads.begin()
    os.utime(left.path, (0, 0))
    assert (catalogue.uploads.forget_partial(), left.path.exists(), coming.path.exists()) == (1, False, True)
    for part in (left, coming):
        part.discard()
