"""Books of a tilted specimen: where it may have been lit, who says how far it is off the axis, and what keeps it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import radians, tan
from pathlib import Path

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    CommandRefused,
    ConfigurationError,
    Frame,
    GuardedMicroscope,
    LinkLost,
    SafetyEnvelope,
)
from instruments.book_entries import BookEntry, LinkLoss
from instruments.dose_file import KeptLedger
from instruments.illumination import HEIGHT_NM
from instruments.limits import TiltAxis
from tests.unit.instruments.envelope_bench import CARD, Bench, frame, guard, setting

SLOPE = tan(radians(20))


@dataclass
class Stiff(Bench):
    """Its stage stands tilted by this, whatever it is told."""

    came_deg: float = 0.0

    def acquire(self, command: AcquireFrame) -> Frame:
        shot = super().acquire(command)
        stage = shot.state.stage.model_copy(update={"alpha_deg": self.came_deg})
        return replace(shot, state=shot.state.model_copy(update={"stage": stage}))


def booked_beside_nm(guarded: GuardedMicroscope, **stage: float) -> float:
    """How far the books of a frame of 10 nm reach beyond it, along x."""
    guarded.acquire(frame(stage=stage))
    window = guarded.ledger.window_nm()
    assert window is not None
    return (window[2] - 10) / 2


def test_the_facility_says_how_far_a_specimen_is_off_the_tilt_axis() -> None:
    known, unsaid = guard(tilt_axis=TiltAxis(z_nm=90.0, error_nm=20.0)), guard()
    assert booked_beside_nm(known, alpha_deg=20.0, z_nm=100.0) == pytest.approx(30 * SLOPE, abs=3.0)
    assert booked_beside_nm(unsaid, alpha_deg=20.0, z_nm=100.0) == pytest.approx((HEIGHT_NM + 100) * SLOPE, abs=3.0)


def test_the_instrument_may_say_it_where_the_facility_does_not() -> None:
    guarded = guard(Bench(card=CARD.model_copy(update={"height_error_nm": 10.0})))
    assert booked_beside_nm(guarded, beta_deg=-20.0) == pytest.approx(10 * SLOPE, abs=3.0)


def test_an_experiment_may_not_say_it() -> None:
    ours = SafetyEnvelope(tilt_axis=TiltAxis(error_nm=500.0))
    with pytest.raises(ConfigurationError, match=r"safety\.tilt_axis: where it lies is the facility's to say"):
        ours.narrowed_by(SafetyEnvelope(tilt_axis=TiltAxis(error_nm=1.0)))
    assert ours.narrowed_by(SafetyEnvelope()).tilt_axis == ours.tilt_axis


def test_electrons_are_counted_once_and_each_cell_has_all_of_the_flux(tmp_path: Path) -> None:
    guarded = guard(tilt_axis=TiltAxis(error_nm=50.0))
    guarded.ledger = KeptLedger(tmp_path / "kept.dose")
    command = frame(stage={"alpha_deg": -20.0})
    charge = guarded.check(command)
    guarded.acquire(command)
    assert guarded.ledger.electrons == pytest.approx(charge.electrons)
    flux = charge.electrons / command.scan.area_nm2 / 100
    for ledger in (guarded.ledger, KeptLedger(tmp_path / "kept.dose")):
        np.testing.assert_allclose(ledger.mean_map(-15, -15, 30, 30), flux)
        assert ledger.mean_map(-80, -80, 30, 30).max() == 0
        assert ledger.max_e_per_a2 >= flux


def test_a_limit_counts_what_may_have_fallen_beside() -> None:
    """A field 20 nm away is refused where its neighbour may have lit it, and let through where it cannot have."""
    for error_nm, refused in ((50.0, True), (5.0, False)):
        guarded = guard(tilt_axis=TiltAxis(error_nm=error_nm), max_dose_e_per_a2=20.0)
        guarded.acquire(frame(stage={"alpha_deg": 20.0}))  # 12.5 e/A2 at most, its pixels 1 nm apart
        with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell") if refused else nullcontext():
            guarded.acquire(frame(stage={"alpha_deg": 20.0, "x_nm": 20.0}))


def test_what_would_be_beyond_the_books_is_refused() -> None:
    with pytest.raises(CommandRefused, match="what may be lit of a tilted specimen up to 400000 nm off the tilt axis"):
        guard(tilt_axis=TiltAxis(error_nm=4e5)).acquire(frame(stage={"alpha_deg": 60.0}))


def test_a_beam_that_was_lost_over_a_tilted_specimen_may_be_anywhere_in_it() -> None:
    bench, kept = Bench(), list[BookEntry]()
    guarded = guard(bench, tilt_axis=TiltAxis(error_nm=100.0))
    guarded.keep = kept.append
    guarded.execute(setting(alpha_deg=20.0))
    bench.error, bench.lost = LinkLost("gone"), True
    with pytest.raises(LinkLost):
        guarded.acquire(frame(stage={"alpha_deg": 20.0}))
    lost = [entry for entry in kept if isinstance(entry, LinkLoss)]
    assert lost[0].region is not None
    assert lost[0].region.x_max_nm > 5 + 100 * SLOPE


def test_a_frame_that_came_tilted_further_is_booked_as_it_came_too() -> None:
    """One that came upright lies in what was booked: nothing is added."""
    for came_deg in (40.0, 0.0):
        bench = Stiff(came_deg=came_deg)
        guarded = guard(bench, tilt_axis=TiltAxis(error_nm=50.0))
        guarded.acquire(frame(stage={"alpha_deg": 20.0}))
        reached = guarded.ledger.mean_map(-100, -100, 200, 200).any(axis=0).sum() / 2
        assert (reached > 5 + 50 * tan(radians(40))) == (came_deg > 20)
        assert guarded.ledger.electrons == pytest.approx(guarded.check(frame()).electrons)
