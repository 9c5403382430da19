"""Data folders whose database is at the newest schema: copied, for that is quicker than made by migrations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an empty catalogue, to be copied and not used."""
    folder = tmp_path_factory.mktemp("empty") / "deep" / "data"
    Catalogue.open(folder).close()
    return folder


@pytest.fixture
def catalogue_folder(empty_catalogue: Path, tmp_path: Path) -> Path:
    """A data folder of this test with an empty catalogue: `data` in its temporary folder."""
    return Path(shutil.copytree(empty_catalogue, tmp_path / "data"))
