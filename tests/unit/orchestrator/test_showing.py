"""Specs, settings, rows and features as cards: escaped, and without passwords."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from orchestrator.catalogue import DecisionRow, ExperimentRow, StoredFrame
from orchestrator.decisions import Decision
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.settings import Settings
from orchestrator.spec import ExperimentSpec
from tests.unit.instruments.test_cards import NASTY, tags

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["native_defects", "fe_map_replay"])
def test_an_experiment_shows_itself(name: str) -> None:
    spec = ExperimentSpec.from_yaml(ROOT / "examples" / f"{name}.yaml", {"name": NASTY})
    html = spec._repr_html_()
    parsed = tags(html)
    assert NASTY in parsed.text
    assert spec.policy.name in parsed.text
    assert "x_nm" in parsed.text
    assert len(html) < 15_000


def test_settings_show_no_password() -> None:
    settings = Settings(data_folder=Path("data"), database_url="postgresql://anna:secret@host/stempilot")
    html = settings._repr_html_()
    assert "secret" not in html
    assert "host/stempilot" in tags(html).text
    assert "SQLite" in tags(Settings(data_folder=Path("data"))._repr_html_()).text


def test_rows_of_the_catalogue_show_themselves() -> None:
    row = ExperimentRow(
        id="e1", parent_id=None, name=NASTY, status="failed", reason=NASTY, spec={}, seed=3, engine="local", options={},
        context={}, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    assert tags(row._repr_html_()).text.count(NASTY) == 2
    decision = Decision(
        id="e1-d1", experiment_id="e1", seq=1, suggestion_id="s", policy=NASTY, point={"x_nm": 1.0},
        reason={"why": NASTY},
    )  # fmt: skip
    decided = DecisionRow(
        decision=decision, status="refused", status_reason=NASTY, action_id="a", frame_id=None, intended_at=NOW
    )
    assert tags(decided._repr_html_()).text.count(NASTY) == 3


def test_a_stored_frame_says_where_its_file_is() -> None:
    numbers = {name: 2.0 for name, kind in StoredFrame.__annotations__.items() if kind in ("float", "float | None")}
    frame = StoredFrame(
        id="f", experiment_id="e", decision_id="d", action_id="a", ordinal=1, path="experiments/e/frames/f.nxs",
        sha256="0", size_bytes=3_000_000, acquired_at=NOW, purpose=NASTY, mode="maadf", is_simulation=True,
        instrument="simulated", subframe_count=4, **numbers,
    )  # fmt: skip
    text = tags(frame._repr_html_()).text
    for words in (NASTY, "4.0, 4.0 nm", "experiments/e/frames/f.nxs (3 MB)"):
        assert words in text


def test_features_show_values_and_arrays() -> None:
    features = FeatureSet(
        extractor="sites", action_id=NASTY, values={"clean": Feature(value=0.5, std=0.1, reason=NASTY)},
        arrays={"llr": np.zeros((4, 5), dtype=np.float32)},
    )  # fmt: skip
    text = tags(features._repr_html_()).text
    assert text.count(NASTY) == 2
    assert "4 x 5" in text
