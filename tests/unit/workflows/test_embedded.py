"""A run in this process gives back what its adapter holds, however the run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from instruments import InstrumentFault
from orchestrator.catalogue import Catalogue
from tests.integration.bench_microscope import BenchMicroscope
from workflows import embedded
from workflows.embedded import EmbeddedInstrument


class Holding(BenchMicroscope):
    """A bench with something to give back, which may fail."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__("works")
        self.fails, self.closed_count = fails, 0

    def close(self) -> None:
        self.closed_count += 1
        if self.fails:
            raise InstrumentFault("the worker does not end")


@pytest.mark.parametrize("fails", [False, True])
def test_the_adapter_is_closed_once_the_run_is_over(
    catalogue_folder: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    bench = Holding(fails=fails)
    monkeypatch.setattr(embedded, "open_here", lambda adapter, config: bench)
    with Catalogue.open(catalogue_folder) as catalogue:
        with EmbeddedInstrument(catalogue, "bench", lambda: None) as instrument:
            instrument.open("bench", {})
            assert bench.closed_count == 0
        assert bench.closed_count == 1
        with EmbeddedInstrument(catalogue, "bench", lambda: None):
            assert bench.closed_count == 1
