"""The kit as a stranger uses it in a suite of their own: the plug-in on a replay, one test for each check."""

from __future__ import annotations

import pytest

from instruments.conformance import AdapterTarget, Conditions, Finding
from instruments.conformance.pytest_plugin import ConformanceFinding
from tests.unit.instruments import replay_files

CAN_BE_TRIED = {
    "frame",
    "out_of_range",
    "unknown_control",
    "counts",
    "read_back",
    "metadata",
    "known_action",
    "dwell",
    "beam_shift_motion",
    "blank",
    "teardown",
}  # fmt: skip  of a replay; it has no stage, no server, and exposures that take no time


@pytest.fixture(scope="module")
def conformance_target(tmp_path_factory: pytest.TempPathFactory) -> AdapterTarget:
    record = replay_files.write_record(tmp_path_factory.mktemp("record") / "record.npz", side_px=96)
    return AdapterTarget("replay", replay_files.config(record))


@pytest.fixture(scope="module")
def conformance_conditions() -> Conditions:
    return Conditions(field_of_view_nm=64 * replay_files.PIXEL_NM, shape_px=(64, 64), subframe_count=1)


def test_a_replay_conforms(conformance_finding: ConformanceFinding) -> None:
    finding = conformance_finding.finding
    assert (finding.verdict == "skipped") == (finding.check not in CAN_BE_TRIED), finding
    if finding.check in CAN_BE_TRIED:
        conformance_finding.assert_conforms()


def finding(verdict: str) -> ConformanceFinding:
    fields = {
        "check": "dwell",
        "verdict": verdict,
        "does": "looks",
        "exposes": True,
        "found": "too dark",
        "cure": "light",
    }
    return ConformanceFinding(Finding.model_validate(fields))


def test_a_finding_fails_skips_or_passes_the_test_it_is_in() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"dwell: too dark\s+-> light"):
        finding("failed").assert_conforms()
    with pytest.raises(pytest.skip.Exception, match="too dark"):
        finding("skipped").assert_conforms()
    for fine in ("passed", "declared quirk"):
        finding(fine).assert_conforms()
