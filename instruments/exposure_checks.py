"""What an exposure costs at most, and whether the envelope allows that: length, electrons, dose of every cell.

Neighbours: `guards` asks, `dose_ledger` keeps the books.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from instruments.book_entries import Region
from instruments.capabilities import Capabilities, Procedure
from instruments.commands import AcquireFrame
from instruments.dose_ledger import DoseLedger
from instruments.envelope_checks import LONGEST_DEADLINE_S, within
from instruments.errors import CommandRefused
from instruments.footprints import MAX_PLACE_NM, MAX_SIDE_NM, MIN_SIDE_NM
from instruments.illumination import Exposed, Lit, exposed, reach_on_tilted_nm, waits_on
from instruments.limits import SafetyEnvelope
from instruments.regions import cells_of
from instruments.units import ANGSTROM2_PER_NM2, electrons


@dataclass(frozen=True, slots=True)
class Charge:
    """Electrons a frame puts on the specimen: all of them, and those on the first pixel while the blanker settles.

    Counted with `current_pa`, which is `factor` times what the command says; `lit` bounds where an exposure at once
    falls, None: as commanded; the specimen lies no further than `height_nm` from the tilt axis. `cells` are those of
    the frame, once they were looked up by `placed`.
    """

    electrons: float
    settling_electrons: float
    current_pa: float = 0.0
    factor: float = 1.0
    lit: Lit | None = None
    height_nm: float | None = None
    cells: Exposed | None = None

    def placed(self, command: AcquireFrame) -> Charge:
        """With the cells of the command whose charge it is, where it costs anything."""
        if not self.electrons:
            return self
        return replace(self, cells=exposed(command.stage, command.scan, self.lit, self.height_nm))


def worst_charge(
    command: AcquireFrame,
    capabilities: Capabilities,
    current_pa: float | None = None,
    lit: Lit | None = None,
    height_nm: float | None = None,
) -> Charge:
    """The most electrons `command` can put on the specimen: flyback, settling and current uncertainty included.

    With the current that is commanded, or with `current_pa`, which is taken as it is.
    """
    if not capabilities.has_beam:
        return Charge(0.0, 0.0)
    said_pa = command.optics.probe_current_pa * (1 + capabilities.current_uncertainty_fraction)
    current_pa = said_pa if current_pa is None else current_pa
    factor = current_pa / said_pa if said_pa > 0 else 1.0
    count = command.subframe_count
    on_s = command.scan.duration_s(count) if capabilities.flyback_exposes else command.scan.beam_on_s(count)
    settling = electrons(current_pa, capabilities.blanker_settle_s)
    on_first_pixel = 0.0 if command.scan.at_once else settling
    return Charge(electrons(current_pa, on_s) + settling, on_first_pixel, current_pa, factor, lit, height_nm)


def check_exposure(command: AcquireFrame, capabilities: Capabilities, envelope: SafetyEnvelope) -> None:
    """Raise CommandRefused for a mode there is not, a field too large for the ledger, an exposure too long."""
    mode = capabilities.mode(command.mode)
    if mode is None:
        known = ", ".join(mode.name for mode in capabilities.modes)
        raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {known}")
    scan = command.scan
    if mode.is_at_once != scan.at_once:
        right = "true" if mode.is_at_once else "false"
        raise CommandRefused(f"mode {mode.name!r} is of kind {mode.kind}: scan.at_once must be {right}")
    if capabilities.has_beam:
        if mode.kind == "ronchigram" and scan.shape_px != (1, 1):
            raise CommandRefused(
                f"in mode {mode.name!r} the beam stands still, {scan.shape_px} px would count its dose over a raster: "
                "scan.shape_px must be (1, 1)"
            )
        _check_ledger_holds(command)
    exposure_s = scan.duration_s(command.subframe_count)
    within("exposure", exposure_s, None, LONGEST_DEADLINE_S, "s")
    _check_can_stop(exposure_s, capabilities, envelope)
    within("exposure", exposure_s, None, envelope.max_exposure_s, "s")


def _check_ledger_holds(command: AcquireFrame) -> None:
    """Raise CommandRefused for a field or a place beyond the ledger's cells."""
    scan = command.scan
    longest_nm = max(scan.field_of_view_nm, scan.height_nm, scan.illuminated_nm or 0.0)
    within("longest side of a scan for the dose ledger", longest_nm, None, MAX_SIDE_NM, "nm")
    within(
        "shortest side of a scan for the dose ledger",
        min(scan.field_of_view_nm, scan.height_nm),
        MIN_SIDE_NM,
        None,
        "nm",
    )
    for axis, place_nm in (
        ("x", command.stage.x_nm + scan.beam_shift_x_nm), ("y", command.stage.y_nm + scan.beam_shift_y_nm)
    ):  # fmt: skip
        within(f"{axis} of a scan for the dose ledger", place_nm, -MAX_PLACE_NM, MAX_PLACE_NM, "nm")


def _check_can_stop(exposure_s: float, capabilities: Capabilities, envelope: SafetyEnvelope) -> None:
    """A stop must darken the specimen in time, also where it can only wait for the end of the exposure."""
    allowed_s = envelope.max_stop_latency_s
    if not capabilities.can_interrupt:
        cap_s = capabilities.stop_latency_s if allowed_s is None else allowed_s
        within("exposure of an instrument that cannot interrupt", exposure_s, None, cap_s, "s")
    else:
        within("stop latency of the instrument", capabilities.stop_latency_s, None, allowed_s, "s")


def check_dose(
    command: AcquireFrame,
    charge: Charge,
    ledger: DoseLedger,
    envelope: SafetyEnvelope,
    uncertainty_fraction: float = 0.0,
) -> None:
    """Raise CommandRefused for more electrons than are left, or too many on any 1 nm2 cell of a placed charge.

    A cell may have got so much more than is booked: readings of the current are off so far.
    """
    total = ledger.electrons + charge.electrons
    within("electrons after this frame", total, None, envelope.max_electrons, "electrons")
    if envelope.max_dose_e_per_a2 is None or charge.cells is None:
        return
    marks, factor = charge.cells
    flux = (charge.electrons - charge.settling_electrons) / (marks.area_nm2 * ANGSTROM2_PER_NM2)
    flux *= factor
    peak = ledger.peak_after(marks, flux)
    settling = charge.settling_electrons / ANGSTROM2_PER_NM2
    if settling:
        peak = max(peak, ledger.peak_after(waits_on(command.stage, command.scan, marks), flux + settling))
    _check_cell("frame", peak, envelope, uncertainty_fraction)


def check_tilted(command: AcquireFrame, height_nm: float) -> None:
    """Raise CommandRefused where a specimen so far off the tilt axis may be lit beyond the ledger's cells."""
    if command.stage.alpha_deg or command.stage.beta_deg:
        reach_nm = 2 * max(reach_on_tilted_nm(command.stage, command.scan, height_nm))
        name = f"what may be lit of a tilted specimen up to {height_nm:.6g} nm off the tilt axis"
        within(name, reach_nm, None, MAX_SIDE_NM, "nm")


def procedure_electrons(
    procedure: Procedure,
    region: Region,
    current_pa: float,
    ledger: DoseLedger,
    capabilities: Capabilities,
    envelope: SafetyEnvelope,
    uncertainty_fraction: float = 0.0,
) -> float:
    """What a procedure may burn where the beam may stand, in the time it declares, the blanker's settling in it.

    Raises CommandRefused where that is too much.
    """
    if not procedure.exposes or not capabilities.has_beam:
        return 0.0
    _check_can_stop(procedure.duration_s, capabilities, envelope)
    within(f"procedure {procedure.name}", procedure.duration_s, None, envelope.max_exposure_s, "s")
    burnt = electrons(current_pa, procedure.duration_s)
    total = ledger.electrons + burnt
    within("electrons after this procedure", total, None, envelope.max_electrons, "electrons")
    marks = cells_of(region.box)
    if marks is None:
        raise CommandRefused(f"procedure {procedure.name}: where the beam stands is not known; have it read back")
    peak = ledger.peak_after(marks, burnt / (region.least_nm2 * ANGSTROM2_PER_NM2))
    _check_cell("procedure", peak, envelope, uncertainty_fraction)
    return burnt


def _check_cell(what: str, booked_e_per_a2: float, envelope: SafetyEnvelope, uncertainty_fraction: float) -> None:
    """Raise CommandRefused where the highest dose of a cell, by the books and their uncertainty, is too much."""
    name = f"dose of a 1 nm2 cell after this {what}"
    if uncertainty_fraction:
        name += (
            f" ({booked_e_per_a2:.6g} booked, times {1 + uncertainty_fraction:.6g} for the uncertainty of the current)"
        )
    within(name, booked_e_per_a2 * (1 + uncertainty_fraction), None, envelope.max_dose_e_per_a2, "e/A2")
