"""Times as people write them, files by their content."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec
from workflows.submission import moment_of, with_uploads

SPEC = Path(__file__).resolve().parents[2] / "integration" / "specs" / "small_raster.yaml"
NOW = datetime(2026, 11, 21, 15, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:00", "2026-11-21T22:00:00+01:00"),
        ("9:05", "2026-11-22T09:05:00+01:00"),
        ("15:30", "2026-11-22T15:30:00+01:00"),
        ("2026-12-01", "2026-12-01T00:00:00+01:00"),
        ("2026-12-01T08:00", "2026-12-01T08:00:00+01:00"),
        ("2026-12-01T08:00Z", "2026-12-01T08:00:00+00:00"),
    ],
)
def test_a_time_is_local_and_in_the_future_where_it_is_a_clock(text: str, expected: str) -> None:
    assert moment_of(text, NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["soon", "25:00", "22", "", "2026-13-01"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match="22:00"):
        moment_of(text, NOW)


def test_files_are_named_by_content() -> None:
    kept: dict[str, bytes] = {}

    def keep(name: str, data: bytes) -> str:
        kept[name] = data
        return sha256(data).hexdigest()

    spec = ExperimentSpec.from_yaml(SPEC)
    document = with_uploads(spec, keep)
    digest = sha256(kept["WSe2.extxyz"]).hexdigest()
    assert document["specimen"]["structure"] == f"sha256:{digest}/WSe2.extxyz"
    again = with_uploads(ExperimentSpec.model_validate(document), keep)
    assert again["specimen"]["structure"] == document["specimen"]["structure"]
    assert {key: value for key, value in document.items() if key != "specimen"} == {
        key: value for key, value in spec.model_dump(mode="json").items() if key != "specimen"
    }


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    spec = ExperimentSpec.from_yaml(SPEC)
    moved = spec.model_copy(update={"specimen": spec.specimen.model_copy(update={"structure": tmp_path / "no.cif"})})
    with pytest.raises(SpecError, match=r"specimen\.structure: .*no\.cif cannot be read"):
        with_uploads(moved, lambda name, data: "0" * 64)


def test_now_may_be_in_utc() -> None:
    assert moment_of("23:00", datetime(2026, 11, 21, 22, 0, tzinfo=UTC)) == datetime(2026, 11, 21, 23, tzinfo=UTC)
