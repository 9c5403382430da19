"""The guard around a microscope: it refuses, never clamps, and nothing goes round it.

Its neighbours: `limits` (what is allowed), `dose_ledger` (what was spent).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, Unblank
from instruments.dose_ledger import MAX_SIDE_NM, DoseLedger, first_pixel_nm, footprint
from instruments.errors import AcquisitionFailed, CommandRefused, InstrumentBusy, Unsupported
from instruments.frames import Frame
from instruments.limits import SafetyEnvelope
from instruments.microscope import Forecasting, Microscope, Outcome
from instruments.state import MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons


@dataclass(frozen=True, slots=True)
class Charge:
    """Electrons a frame puts on the specimen: all of them, and those on the first pixel while the blanker settles."""

    electrons: float
    settling_electrons: float


def worst_charge(command: AcquireFrame, capabilities: Capabilities) -> Charge:
    """The most electrons `command` can put on the specimen: flyback, settling and current uncertainty included."""
    current_pa = command.optics.probe_current_pa * (1 + capabilities.current_uncertainty_fraction)
    count = command.subframe_count
    on_s = command.scan.duration_s(count) if capabilities.flyback_exposes else command.scan.beam_on_s(count)
    settling = electrons(current_pa, capabilities.blanker_settle_s)
    return Charge(electrons(current_pa, on_s) + settling, settling)


@dataclass
class GuardedMicroscope:
    """A microscope that refuses what the envelope forbids and debits every exposure before it happens.

    The debit is the worst case; after a frame it is corrected to the electrons the instrument read back (if it reports
    dose). A failed or unanswered exposure stays debited in full.
    """

    inner: Microscope
    envelope: SafetyEnvelope
    ledger: DoseLedger = field(default_factory=DoseLedger)
    time_before_s: float = 0.0

    def __post_init__(self) -> None:
        self._capabilities = self.inner.capabilities()
        self._shift_nm = (0.0, 0.0)

    def capabilities(self) -> Capabilities:
        """Those of the instrument."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values of the instrument."""
        return self.inner.read_state()

    def outcome(self, action_id: str) -> Outcome:
        """What became of an action whose answer was lost."""
        return self.inner.outcome(action_id)

    def stop(self) -> None:
        """Blank and interrupt; never refused."""
        self.inner.stop()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Check, debit, expose, correct the debit to what was read back. A CommandRefused comes before any move."""
        charge = self.check(command)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        try:
            frame = self.inner.acquire(command)
        except (CommandRefused, InstrumentBusy, Unsupported):  # nothing moved; after any other error the debit stays
            self.ledger.add_frame(command, -charge.electrons, -charge.settling_electrons)
            raise
        self._correct(command, charge, frame.electrons)
        return frame

    def fetch(self, command: AcquireFrame) -> Frame:
        """The frame of an exposure that the instrument says was made before a restart: debited, but not checked.

        Its electrons are on the specimen already, so no limit may refuse it now. Raises AcquisitionFailed where it is
        not handed over; the debit stays.
        """
        charge = worst_charge(command, self._capabilities)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        try:
            frame = self.inner.acquire(command)
        except (CommandRefused, Unsupported) as error:
            raise AcquisitionFailed(f"exposed before the restart, but its frame is not handed over: {error}") from error
        self._correct(command, charge, frame.electrons)
        return frame

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank; exposing while parked is limited by the envelope and counted."""
        if isinstance(command, AcquireFrame):
            raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
        if isinstance(command, Park):
            self._check_park(command)
        if isinstance(command, Unblank):
            raise CommandRefused(
                "unblank is refused: a parked beam burns (30 pA for 1 s is 1.9e8 electrons on one spot); "
                "acquire_frame unblanks and blanks by itself"
            )
        state = self.inner.execute(command)
        if isinstance(command, Blank):
            self._shift_nm = (state.beam_shift_x_nm, state.beam_shift_y_nm)
        return state

    def recharge(self, command: AcquireFrame, read_back_electrons: float | None) -> None:
        """After a restart: debit again what the journal holds; None (no answer was stored) costs the worst case."""
        charge = worst_charge(command, self._capabilities)
        self.ledger.add_frame(command, charge.electrons, charge.settling_electrons)
        if read_back_electrons is not None:
            self._correct(command, charge, read_back_electrons)

    def count_time_from(self, spent_s: float) -> None:
        """After a restart: so much microscope time was spent before; the instrument's clock adds to it from now on."""
        self.time_before_s = spent_s - self.inner.read_state().time_s

    def check(self, command: AcquireFrame) -> Charge:
        """What `command` would cost, or CommandRefused naming the value, the limit and the unit; nothing moves."""
        mode = self._capabilities.mode(command.mode)
        if mode is None:
            known = ", ".join(mode.name for mode in self._capabilities.modes)
            raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {known}")
        self._check_geometry(command)
        self._check_beam(command)
        charge = worst_charge(command, self._capabilities)
        self._check_spent(command, charge)
        return charge

    def _check_geometry(self, command: AcquireFrame) -> None:
        limits, stage, scan = self.envelope, command.stage, command.scan
        _within("stage x", stage.x_nm, limits.min_stage_x_nm, limits.max_stage_x_nm, "nm")
        _within("stage y", stage.y_nm, limits.min_stage_y_nm, limits.max_stage_y_nm, "nm")
        for name, value, limit, unit in (
            ("stage alpha", stage.alpha_deg, limits.max_stage_tilt_deg, "deg"),
            ("stage beta", stage.beta_deg, limits.max_stage_tilt_deg, "deg"),
            ("beam shift x", scan.beam_shift_x_nm, limits.max_beam_shift_nm, "nm"),
            ("beam shift y", scan.beam_shift_y_nm, limits.max_beam_shift_nm, "nm"),
        ):
            if limit is not None:
                _within(name, value, -limit, limit, unit)
        longest_nm = max(scan.field_of_view_nm, scan.height_nm)
        _within("longest side of a scan for the dose ledger", longest_nm, None, MAX_SIDE_NM, "nm")

    def _check_beam(self, command: AcquireFrame) -> None:
        limits, optics = self.envelope, command.optics
        _within("defocus", optics.defocus_nm, limits.min_defocus_nm, limits.max_defocus_nm, "nm")
        _within("probe current", optics.probe_current_pa, None, limits.max_current_pa, "pA")
        _within("beam energy", optics.beam_energy_ev, None, limits.max_beam_energy_ev, "eV")
        exposure_s = command.scan.duration_s(command.subframe_count)
        if not self._capabilities.can_interrupt:
            _within(
                "exposure of an instrument that cannot interrupt",
                exposure_s,
                None,
                self._capabilities.stop_latency_s,
                "s",
            )
        _within("exposure", exposure_s, None, limits.max_exposure_s, "s")

    def _check_spent(self, command: AcquireFrame, charge: Charge) -> None:
        limits = self.envelope
        total = self.ledger.electrons + charge.electrons
        _within("electrons after this frame", total, None, limits.max_electrons, "electrons")
        flux = (charge.electrons - charge.settling_electrons) / (command.scan.area_nm2 * ANGSTROM2_PER_NM2)
        marks = footprint(command.stage, command.scan)
        peak = self.ledger.peak_after(marks, flux)
        settling = charge.settling_electrons / ANGSTROM2_PER_NM2
        if settling:
            x_nm, y_nm = first_pixel_nm(command.stage, command.scan)
            spot = footprint(
                command.stage.model_copy(update={"x_nm": x_nm, "y_nm": y_nm}),
                command.scan.model_copy(
                    update={
                        "field_of_view_nm": 1e-3,
                        "shape_px": (1, 1),
                        "beam_shift_x_nm": 0.0,
                        "beam_shift_y_nm": 0.0,
                    }
                ),
            )
            peak = max(peak, self.ledger.peak_after(spot, flux + settling))
        _within("dose of a 1 nm2 cell after this frame", peak, None, limits.max_dose_e_per_a2, "e/A2")
        if limits.max_instrument_time_s is not None:
            now_s = self.time_before_s + self.inner.read_state().time_s
            ends_s = now_s + self._duration_s(command)
            _within("microscope time after this frame", ends_s, None, limits.max_instrument_time_s, "s")

    def _duration_s(self, command: AcquireFrame) -> float:
        """Moves and settling included where the instrument can tell, else the exposure alone."""
        if isinstance(self.inner, Forecasting):
            return self.inner.forecast(command)[1]
        return command.scan.duration_s(command.subframe_count)

    def _check_park(self, command: Park) -> None:
        if not self.inner.read_state().beam_blanked:
            raise CommandRefused("the beam is not blanked and would burn where it is parked; blank it first")
        _within("park time", command.duration_s, None, self.envelope.max_park_s, "s")
        limit = self.envelope.max_beam_shift_nm
        if limit is not None:
            _within("beam shift x", command.beam_shift_x_nm, -limit, limit, "nm")
            _within("beam shift y", command.beam_shift_y_nm, -limit, limit, "nm")

    def _correct(self, command: AcquireFrame, charge: Charge, read_back_electrons: float) -> None:
        if not self._capabilities.reports_dose or charge.electrons <= 0:
            return
        excess = charge.electrons - read_back_electrons
        self.ledger.add_frame(command, -excess, -excess * charge.settling_electrons / charge.electrons)


def _within(name: str, value: float, low: float | None, high: float | None, unit: str) -> None:
    if low is not None and value < low:
        raise CommandRefused(f"{name} {value:.6g} {unit} is below the limit {low:.6g} {unit}; narrow the search space")
    if high is not None and value > high:
        raise CommandRefused(f"{name} {value:.6g} {unit} is above the limit {high:.6g} {unit}; narrow the search space")


SafetyCheck = Callable[[AcquireFrame], Charge]
