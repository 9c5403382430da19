"""The corrector itself: it measures aberrations, remembers them for a while, and corrects from what was measured.

CEOS corrects by differences: from a value to a target. An absolute command therefore needs a fresh measurement, and
uses it up: sent twice, it is refused the second time instead of being applied twice. Neighbours: `ceos` (beam and
microscope), `ceos_link` (the wire), `ceos_aberrations` (the notation).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from instruments.actions import NOTHING_MOVED
from instruments.adapters.ceos_aberrations import (
    TERMS,
    Term,
    coefficient_m,
    polar,
    read_coefficients,
    read_confidences_nm,
    term_of,
)
from instruments.adapters.ceos_config import C1A1, CeosConfig, confidence_axis, corrector_axes
from instruments.adapters.ceos_link import CeosLink
from instruments.commands import AxisValue
from instruments.errors import AcquisitionFailed, CommandRefused, InstrumentFault, Unsupported

_NEVER: Final = "not measured yet; run a procedure that measures it"
_USED: Final = "corrected since it was measured; measure it again"


@dataclass(frozen=True, slots=True)
class Measured:
    """One aberration as it was measured: its coefficient, how far off with 95 %, and when (`time.monotonic`)."""

    coefficient_m: complex
    within_nm: float | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Correction:
    """One call to the gateway: from what was measured to where it should be, in metres."""

    ceos: str
    value_m: complex
    target_m: complex

    @property
    def params(self) -> dict[str, Any]:
        """As the gateway takes it: [x, y]; a round aberration has y 0."""
        return {
            "name": self.ceos,
            "value": [self.value_m.real, self.value_m.imag],
            "target": [self.target_m.real, self.target_m.imag],
        }


class Corrector:
    """One CEOS corrector; all calls but `abort` and `is_lost` from one thread."""

    def __init__(self, config: CeosConfig) -> None:
        """Asks the gateway for what it is. Raises LinkLost, InstrumentFault."""
        self._config = config
        self._owners = {axis.name: _owner(axis.name) for axis in corrector_axes(config)}
        self._measured: dict[str, Measured] = {}
        self._why_not = dict.fromkeys(map(str, config.max_magnitude_nm), _NEVER)
        self.link = CeosLink(config.host, config.port)
        try:
            self.about = self.link.ask(
                "getInfo", {}, _info, within_s=config.answer_s, refusal=InstrumentFault, repeatable=True
            )
        except BaseException:
            self.link.close()
            raise

    def has(self, axis: str) -> bool:
        """Whether an axis is the corrector's."""
        return axis in self._owners

    def procedure(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """Method and parameters of a measurement; None for what is none of the corrector's."""
        if name == C1A1:
            return "measureC1A1", {}
        tableau = self._config.tableaus.get(name.removeprefix("tableau_"))
        if tableau is None or not name.startswith("tableau_"):
            return None
        return "acquireTableau", {"tabType": tableau.tab_type, "angle": tableau.angle_mrad}

    def measure(self, name: str, within_s: float) -> None:
        """Carry a measurement out; the beam is on the specimen meanwhile.

        Raises AcquisitionFailed where the corrector got nothing out of it, ResultUnknown without an answer.
        """
        call = self.procedure(name)
        if call is None:
            raise Unsupported(f"no procedure {name!r} of the corrector")
        member = self._config.confidence_member
        found, within_nm = self.link.ask(
            call[0], call[1], lambda told: _measurement(told, member), within_s=within_s, refusal=AcquisitionFailed
        )
        now_s = time.monotonic()
        for axis, value_m in found.items():
            if axis in self._config.max_magnitude_nm:
                self._measured[axis] = Measured(value_m, within_nm.get(axis), now_s)

    def corrections(self, values: Mapping[str, AxisValue]) -> list[Correction]:
        """What has to be sent for these axes; what is not named stays as it was measured. Nothing is sent.

        Raises CommandRefused for what was not measured lately.
        """
        terms = {term.name: term for axis in values if (term := term_of(axis)) is not None}
        return [self._correction(term, values) for term in terms.values()]

    def correct(self, corrections: list[Correction], until_s: float, may_go_on: Callable[[], None]) -> None:
        """Send them, one after another; every measurement is used up. Raises what `may_go_on` raises between them."""
        self.forget(_USED)
        for number, correction in enumerate(corrections):
            may_go_on()
            within_s = min(self._config.correction_s, max(until_s - time.monotonic(), 0.1))
            try:
                self.link.ask(
                    "correctAberration", correction.params, lambda _: None, within_s=within_s, refusal=InstrumentFault
                )
            except NOTHING_MOVED as error:
                if number == 0:
                    raise
                done = ", ".join(one.ceos for one in corrections[:number])
                raise InstrumentFault(f"{error}; {done} was corrected before it; measure again") from error

    def values(self) -> dict[str, float]:
        """Every axis that is known now: magnitudes, azimuths, 95 % intervals."""
        found: dict[str, float] = {}
        for name, measured in self._fresh().items():
            found |= polar(TERMS[name], measured.coefficient_m, self._config.frame)
            if measured.within_nm is not None:
                found[confidence_axis(name)] = measured.within_nm
        return found

    def undetermined(self) -> dict[str, str]:
        """Every axis that is not known now, and why."""
        known, fresh = self.values(), self._fresh()
        old = f"measured more than {self._config.max_age_s:g} s ago; measure it again"
        reasons: dict[str, str] = {}
        for axis, name in self._owners.items():
            if axis not in known:
                because = old if name in self._measured else self._why_not[name]
                reasons[axis] = "the corrector gave no interval" if name in fresh else because
        return reasons

    def stands(self, axis: str, value: float) -> bool:
        """Whether a frame that commands this value leaves the axis alone: it is 0, or what was measured."""
        known = self.values().get(axis)
        return value == 0 or (known is not None and abs(known - value) <= 1e-6 * max(1.0, abs(known)))

    def forget(self, because: str) -> None:
        """What was measured does not hold any more."""
        self._measured.clear()
        self._why_not = dict.fromkeys(self._why_not, because)

    def close(self) -> None:
        """Hang up."""
        self.link.close()

    def _fresh(self) -> dict[str, Measured]:
        oldest_s = time.monotonic() - self._config.max_age_s
        return {name: one for name, one in self._measured.items() if one.at_s >= oldest_s}

    def _correction(self, term: Term, values: Mapping[str, AxisValue]) -> Correction:
        measured = self._fresh().get(term.name)
        if measured is None:
            why = self.undetermined().get(term.name, _NEVER)
            raise CommandRefused(f"{term.name}: {why}; a correction goes from what is measured to what is wanted")
        now = polar(term, measured.coefficient_m, self._config.frame)
        wanted = now | {axis: float(values[axis]) for axis in now if axis in values}
        return Correction(term.ceos, measured.coefficient_m, coefficient_m(term, wanted, self._config.frame))


def _owner(axis: str) -> str:
    """The magnitude that an axis of the corrector belongs to."""
    term = term_of(axis)
    return next(name for name in TERMS if confidence_axis(name) == axis) if term is None else term.name


def _info(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise TypeError(f"{told!r:.80} is no table")
    return cast("dict[str, Any]", told)


def _measurement(told: Any, confidence_member: str) -> tuple[dict[str, complex], dict[str, float]]:
    """Coefficients, and 95 % intervals where there are any."""
    table = _info(told)
    found = read_coefficients(table["aberrations"])
    if not found:
        raise ValueError("it holds no aberration")
    return found, read_confidences_nm(table.get(confidence_member, {}))
