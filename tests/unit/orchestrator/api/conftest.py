"""Services for the tests of the API, closed afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.catalogue import Catalogue
from tests.unit.orchestrator.api.serving import Service, accept, serve


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database is at the newest schema: copying it is quicker than making it."""
    folder = tmp_path_factory.mktemp("empty")
    Catalogue.open(folder).close()
    return folder


@pytest.fixture
def data(empty_catalogue: Path, tmp_path: Path) -> Path:
    """An empty data folder of this test."""
    return Path(shutil.copytree(empty_catalogue, tmp_path / "data"))


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    """A service without tokens that takes every spec of the right form."""
    service = serve(data, check=accept)
    yield service
    service.catalogue.close()


@pytest.fixture
def guarded(data: Path) -> Iterator[Service]:
    """A service that asks for tokens."""
    service = serve(data, check=accept, with_tokens=True)
    yield service
    service.catalogue.close()
