"""A ledger that is kept: opened again it has every entry, a torn end is dropped, anything else damaged is refused."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from instruments import AcquireFrame, DoseLedger, InstrumentFault, Optics, ScanPattern, StagePosition
from instruments.dose_file import KeptLedger, dose_path
from instruments.footprints import footprint
from instruments.regions import Box

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20.0, probe_current_pa=50.0)


def frame(x_nm: float, field_nm: float = 12.3, rotation_deg: float = 0.0) -> AcquireFrame:
    scan = ScanPattern(field_of_view_nm=field_nm, shape_px=(8, 8), dwell_time_us=1.0, rotation_deg=rotation_deg)
    stage = StagePosition(x_nm=x_nm)
    return AcquireFrame(
        action_id=f"at {x_nm}", deadline_s=10.0, stage=stage, optics=OPTICS, scan=scan, mode="stem", purpose="test"
    )


def exposed(ledger: DoseLedger) -> None:
    """Everything that may happen to a ledger."""
    ledger.add_frame(frame(0.0), 1e6, 5e3)
    ledger.add_frame(frame(0.0), -2e5, -1e3)
    ledger.add_frame(frame(7.7, rotation_deg=30.0), 3e6)
    ledger.add_frame(frame(0.0, field_nm=9000.0), 4e9)
    ledger.add_within(Box(x_min_nm=20.0, x_max_nm=30.0, y_min_nm=0.0, y_max_nm=30.0), 1e6, 9.0, is_counted=False)
    ledger.add_point(3.0, 4.0, 1e4)
    ledger.add(footprint(StagePosition(), frame(0.0).scan), 1e5, 2.0)
    ledger.add_within(Box(x_min_nm=0.0, x_max_nm=50.0, y_min_nm=0.0, y_max_nm=30.0), 1e7)
    ledger.add_within(Box(x_min_nm=-1e8, x_max_nm=1e8, y_min_nm=-1e8, y_max_nm=1e8), 1e3)


def same(one: DoseLedger, other: DoseLedger) -> bool:
    window = (-50, -50, 100, 100)
    totals = (one.electrons, one.max_e_per_a2) == (other.electrons, other.max_e_per_a2)
    return totals and np.array_equal(one.mean_map(*window), other.mean_map(*window))


def test_what_was_booked_is_there_again_bit_for_bit(tmp_path: Path) -> None:
    path = dose_path(tmp_path / "dose", "titan", "lamella 12/a")
    kept, plain = KeptLedger(path), DoseLedger()
    exposed(kept)
    exposed(plain)
    assert plain.electrons > 4e9
    assert same(kept, plain)
    again = KeptLedger(path)
    assert same(again, plain)
    again.add_frame(frame(0.0), 1.0)
    assert KeptLedger(path).electrons == plain.electrons + 1.0
    assert KeptLedger(dose_path(tmp_path / "dose", "titan", "lamella 13")).electrons == 0.0


def test_a_torn_end_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.dose"
    KeptLedger(path).add_frame(frame(0.0), 1e6)
    whole = path.read_bytes()
    for torn in (whole + whole[:-1], whole + whole[:5], whole + whole[:-1] + b"?", whole + bytes(4), whole + bytes(99)):
        path.write_bytes(torn)
        ledger = KeptLedger(path)
        assert ledger.electrons == 1e6
        assert path.read_bytes() == whole
    ledger.add_frame(frame(0.0), 1e6)
    assert KeptLedger(path).electrons == 2e6


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dose"
    ledger = KeptLedger(path)
    ledger.add_frame(frame(0.0), 1e6)
    size_bytes = path.stat().st_size
    ledger.add_frame(frame(0.0), 1e6)
    content = bytearray(path.read_bytes())
    content[size_bytes - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InstrumentFault, match="damaged at byte 0; nobody knows the dose"):
        KeptLedger(path)


def test_no_byte_before_the_last_entry_can_change_unnoticed(tmp_path: Path) -> None:
    """Its length neither, which would let an entry swallow those after it, as if all were a torn end."""
    path = tmp_path / "a.dose"
    ledger = KeptLedger(path)
    ledger.add_within(Box(x_min_nm=0.0, x_max_nm=5.0, y_min_nm=0.0, y_max_nm=3.0), 1e7)
    first_bytes = path.stat().st_size
    ledger.add_within(Box(x_min_nm=0.0, x_max_nm=5.0, y_min_nm=0.0, y_max_nm=3.0), 1e6)
    content, unnoticed = path.read_bytes(), list[tuple[int, int]]()
    places = [(at, bit) for at in (0, 1, 3, 4, 7, first_bytes, first_bytes + 3) for bit in range(8)]  # lengths, sums
    places += [(at, at % 8) for at in range(8, first_bytes, 7)]
    for at, bit in places:
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        try:
            KeptLedger(path)
        except InstrumentFault:
            continue
        unnoticed.append((at, bit))
    assert unnoticed == []


def test_a_debit_that_cannot_be_kept_is_not_made_and_a_correction_is(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.dose"
    ledger = KeptLedger(path)
    ledger.add_frame(frame(0.0), 1e6)
    path.rename(tmp_path / "a.dose")
    path.mkdir()  # nobody can write there, root neither
    with pytest.raises(InstrumentFault, match="nothing is exposed"):
        ledger.add_frame(frame(0.0), 1e6)
    assert ledger.electrons == 1e6
    ledger.add_frame(frame(0.0), -2e5)
    assert ledger.electrons == 8e5
    with pytest.raises(InstrumentFault, match="cannot be read"):
        KeptLedger(path)


@contextmanager
def disk_full_beyond(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow further: the part of a write that still fits is taken, without an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_in_the_middle_of_an_entry_lets_nothing_through_and_damages_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.dose"
    ledger = KeptLedger(path)
    ledger.add_frame(frame(0.0), 1e6)
    whole_bytes = path.stat().st_size
    with disk_full_beyond(whole_bytes + 20):
        with pytest.raises(InstrumentFault, match="nothing is exposed"):
            ledger.add_frame(frame(0.0), 4e6)
        ledger.add_frame(frame(0.0), -2e5)  # a correction is not worth a fault
    assert path.stat().st_size == whole_bytes
    ledger.add_frame(frame(0.0), 3e6)
    assert (ledger.electrons, KeptLedger(path).electrons) == (3.8e6, 4e6)
