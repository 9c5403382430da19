"""Services for the tests of the API, closed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.orchestrator.api.serving import Service, accept, serve


@pytest.fixture
def data(catalogue_folder: Path) -> Path:
    """An empty data folder of this test."""
    return catalogue_folder


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
