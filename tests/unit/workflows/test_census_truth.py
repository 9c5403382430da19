"""Verdicts on hand-made calls in hand-made worlds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from instruments import AcquireFrame, DoseLedger, Optics, ScanPattern, StagePosition
from workflows.questions.census_truth import compare_ledger, displacement_nm, judge_calls

SPECIES = ("V_Se", "O_Se", "Mo_W")
DETERMINABLE = ("V_Se", "Mo_W")
HOST, BEAM_MADE = 0, 1
DRIFT_NM = (1.5, -0.7)  # specimen minus nominal of the first atomic frame


def world(natives: list[tuple[float, float, str, bool]], made: list[tuple[float, float]] = []) -> dict[str, Any]:  # noqa: B006
    """A truth with these natives (x, y, species, clean) and vacancies the beam made."""
    return {
        "native": {
            "x_nm": np.array([native[0] for native in natives], dtype=float),
            "y_nm": np.array([native[1] for native in natives], dtype=float),
            "species": [native[2] for native in natives],
            "clean": [native[3] for native in natives],
        },
        "beam_made": {
            "x_nm": np.array([position[0] for position in made], dtype=float),
            "y_nm": np.array([position[1] for position in made], dtype=float),
        },
        "actions": {"first": {"displacement_nm": DRIFT_NM}},
    }


def calls(sites: list[tuple[float, float, int, bool]]) -> dict[str, np.ndarray]:
    """Calls (x, y in the specimen's frame, call, confirmed), as the observer sees them: displaced."""
    return {
        "x_nm": np.array([site[0] for site in sites], dtype=float) - DRIFT_NM[0],
        "y_nm": np.array([site[1] for site in sites], dtype=float) - DRIFT_NM[1],
        "call": np.array([site[2] for site in sites], dtype=int),
        "confirmed": np.array([site[3] for site in sites], dtype=bool),
    }


def judged(
    sites: list[tuple[float, float, int, bool]], truth: dict[str, Any], action: str | None = "first"
) -> dict[str, Any]:
    return judge_calls(calls(sites), truth, SPECIES, DETERMINABLE, action)


def call_of(species: str) -> int:
    return SPECIES.index(species) + 2


NATIVES = [(0.0, 0.0, "V_Se", True), (3.0, 0.0, "Mo_W", True), (6.0, 0.0, "O_Se", True), (9.0, 0.0, "V_Se", False)]


def test_drift_is_taken_out() -> None:
    sites = [(0.0, 0.05, call_of("V_Se"), True), (3.0, -0.05, call_of("Mo_W"), True)]
    verdict = judged(sites, world(NATIVES))
    assert verdict["recall"] == 1.0
    assert verdict["false_discovery_rate"] == 0.0
    assert verdict["right"] == 2
    unmoved = judged(sites, world(NATIVES), action="another")
    assert unmoved["recall"] == 0.0
    assert unmoved["false_discovery_rate"] == 1.0


def test_only_clean_natives_of_determinable_species_count_for_recall() -> None:
    verdict = judged([(0.0, 0.0, call_of("V_Se"), True)], world(NATIVES))
    assert verdict["determinable"] == 2
    assert verdict["recall"] == 0.5
    assert verdict["by_species"]["O_Se"] == {"determinable": 0, "native": 1, "recall": None, "confirmed": 0, "wrong": 0}
    assert verdict["by_species"]["V_Se"]["native"] == 2
    assert verdict["by_species"]["V_Se"]["determinable"] == 1


def test_a_right_call_under_dirt_or_of_another_species_is_no_false_discovery() -> None:
    verdict = judged([(9.0, 0.0, call_of("V_Se"), True), (6.0, 0.0, call_of("O_Se"), True)], world(NATIVES))
    assert verdict["false_discovery_rate"] == 0.0
    assert verdict["recall"] == 0.0
    assert verdict["confirmed"] == 2


@pytest.mark.parametrize(
    "site",
    [(0.0, 0.0, call_of("O_Se"), True), (0.0, 0.11, call_of("V_Se"), True), (20.0, 20.0, call_of("Mo_W"), True)],
    ids=["wrong species", "0.11 nm beside", "at nothing"],
)
def test_false_discoveries(site: tuple[float, float, int, bool]) -> None:
    verdict = judged([site, (3.0, 0.0, call_of("Mo_W"), True)], world(NATIVES))
    assert verdict["wrong"] == 1
    assert verdict["false_discovery_rate"] == 0.5
    assert verdict["wrong_rows"] == [0]
    assert verdict["found"] == [False, True, False, False]


def test_what_the_beam_made_is_no_native() -> None:
    truth = world(NATIVES, made=[(12.0, 1.0), (15.0, 1.0)])
    sites = [(12.0, 1.0, call_of("V_Se"), True), (15.0, 1.0, BEAM_MADE, True), (18.0, 1.0, BEAM_MADE, True)]
    verdict = judged(sites, truth)
    assert verdict["wrong_beam_made_called_native"] == 1
    assert verdict["false_discovery_rate"] == 1.0
    assert verdict["beam_made_true"] == 2
    assert verdict["beam_made_confirmed"] == 2
    assert verdict["beam_made_right"] == 1


def test_unconfirmed_calls_and_hosts_count_for_nothing() -> None:
    sites = [(0.0, 0.0, call_of("V_Se"), False), (3.0, 0.0, HOST, True)]
    verdict = judged(sites, world(NATIVES))
    assert verdict["confirmed"] == 0
    assert verdict["recall"] == 0.0
    assert verdict["false_discovery_rate"] == 0.0


def test_empty_worlds_and_no_calls() -> None:
    assert judged([], world([]))["recall"] is None
    verdict = judged([(0.0, 0.0, call_of("V_Se"), True)], world([]))
    assert verdict["recall"] is None
    assert verdict["false_discovery_rate"] == 1.0
    assert judged([], world(NATIVES))["recall"] == 0.0


def test_displacement_is_nominal_minus_specimen() -> None:
    assert displacement_nm(world([]), "first").tolist() == [-1.5, 0.7]
    assert displacement_nm(world([]), None).tolist() == [0.0, 0.0]


def charged(electrons: float, x_nm: float = 0.0) -> DoseLedger:
    """A ledger with one frame of 4 x 4 nm at (x, 0)."""
    ledger = DoseLedger()
    scan = ScanPattern(
        field_of_view_nm=4.0, shape_px=(40, 40), dwell_time_us=1.0, flyback_time_us=0.0, beam_shift_x_nm=x_nm
    )
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0)
    command = AcquireFrame(
        action_id="a", deadline_s=10.0, stage=StagePosition(), optics=optics, scan=scan, mode="maadf", subframe_count=1
    )
    ledger.add_frame(command, electrons)
    return ledger


def dose_world(electrons: float, x_nm: int = 0) -> dict[str, Any]:
    """The same dose as the world would state it, on an 12 x 8 nm map around the origin."""
    dose = np.zeros((8, 12))
    dose[2:6, 4 + x_nm : 8 + x_nm] = electrons / 1600  # 16 nm2 of 100 A2
    return {"dose_map_e_per_a2": dose, "dose_map_x_min_nm": -6, "dose_map_y_min_nm": -4, "electrons": electrons}


def test_a_ledger_that_agrees() -> None:
    verdict = compare_ledger(charged(1.6e6), dose_world(1.6e6))
    assert verdict["ledger_error_fraction"] == pytest.approx(0.0, abs=1e-12)
    assert verdict["ledger_cell_rms_error_fraction"] == pytest.approx(0.0, abs=1e-9)
    assert verdict["true_dose_max_e_per_a2"] == pytest.approx(1000.0)
    assert verdict["ledger_dose_max_e_per_a2"] >= 1000.0 - 1e-9


def test_a_ledger_that_missed_a_tenth() -> None:
    verdict = compare_ledger(charged(1.44e6), dose_world(1.6e6))
    assert verdict["ledger_error_fraction"] == pytest.approx(-0.1)
    assert verdict["ledger_cell_rms_error_fraction"] == pytest.approx(0.1)


def test_a_ledger_that_is_right_in_sum_and_wrong_in_place() -> None:
    verdict = compare_ledger(charged(1.6e6), dose_world(1.6e6, x_nm=2))
    assert verdict["ledger_error_fraction"] == pytest.approx(0.0, abs=1e-12)
    # 8 of 24 cells hold too little, 8 too much, 8 are right; the world's mean over those 24 is 2/3 of its dose.
    assert verdict["ledger_cell_rms_error_fraction"] == pytest.approx((2 / 3) ** 0.5 / (2 / 3))


def test_nothing_exposed_is_no_error() -> None:
    verdict = compare_ledger(DoseLedger(), dose_world(0.0))
    assert verdict["ledger_error_fraction"] == 0.0
    assert verdict["ledger_cell_rms_error_fraction"] == 0.0
