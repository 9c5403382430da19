"""Fills the report's data from the catalogue and writes the file."""

from __future__ import annotations

from pathlib import Path

from orchestrator.catalogue import Catalogue


def write_report(catalogue: Catalogue, experiment_id: str) -> Path:
    return catalogue.data_folder / "experiments" / experiment_id / "report.html"
