"""One forward model and one finished run for every test of the whole line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration import harness


@dataclass(frozen=True)
class FinishedRun:
    """A completed experiment, what `run --json` said of it, and where it lies."""

    data: Path
    document: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])


@pytest.fixture(scope="session")
def forward_model(request: pytest.FixtureRequest) -> Path:
    """The folder of the small world's forward model, kept between sessions."""
    return harness.build_forward_model(request.config.cache.mkdir("forward-model"))


@pytest.fixture(scope="session")
def census_run(forward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    data = harness.data_folder(tmp_path_factory.mktemp("census"), forward_model)
    outcome = harness.stempilot(
        "run", harness.CENSUS, "--data", data, "--seed", 3, "--engine", "local", "--no-baselines", "--json"
    )
    return FinishedRun(data, outcome.expect(0).document)


@pytest.fixture
def data(forward_model: Path, tmp_path: Path) -> Path:
    """An empty data folder that knows the forward model."""
    return harness.data_folder(tmp_path, forward_model)
