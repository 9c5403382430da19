"""Where each axis may stand, as far as a guard knows: what was sent, what was read back, both while nobody can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot, isfinite

from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, AxisValue
from instruments.regions import Box
from instruments.scans import StagePosition
from instruments.state import MicroscopeState


class Whereabouts:
    """Remembers what was sent to every axis and when it was last moved, on the instrument's clock."""

    def __init__(self) -> None:
        self._sent: dict[str, list[float]] = {}
        self._moved_s: dict[str, float] = {}

    def places(self, state: MicroscopeState, names: Iterable[str]) -> Mapping[str, list[float]]:
        """Axis -> every value at which it may stand, the last the likeliest; one without a number is not there.

        Nor is one that was read back as no finite number: then nobody knows where it stands.
        """
        places: dict[str, list[float]] = {}
        for name in names:
            found, value = list(self._sent.get(name, ())), state.axis_value(name)
            if isinstance(value, float | int) and not isinstance(value, bool):
                found.append(float(value))
            if found and all(map(isfinite, found)):
                places[name] = found
        return places

    @property
    def is_known(self) -> bool:
        """Whether anything was ever sent anywhere."""
        return bool(self._sent)

    def box(self, seen: MicroscopeState | None, card: Capabilities) -> Box:
        """Where the beam may stand on the specimen: every place of stage and beam shift, and all between them.

        `seen` counts where an axis was read back off by more than its tolerance, or was never sent anywhere.
        """
        x, y = (
            [self._reach(name, seen, card) for name in names]
            for names in (("x_nm", "beam_shift_x_nm"), ("y_nm", "beam_shift_y_nm"))
        )
        return Box(
            x_min_nm=sum(low for low, _ in x), x_max_nm=sum(high for _, high in x),
            y_min_nm=sum(low for low, _ in y), y_max_nm=sum(high for _, high in y),
        )  # fmt: skip

    def steepest(self, seen: MicroscopeState | None, card: Capabilities) -> tuple[StagePosition, StagePosition, float]:
        """The most tilted that the stage may stand, at its lowest and its highest, and the longest beam shift."""
        alpha_deg, beta_deg, shift_x_nm, shift_y_nm = (
            max(map(abs, self._reach(name, seen, card)))
            for name in ("alpha_deg", "beta_deg", "beam_shift_x_nm", "beam_shift_y_nm")
        )
        lowest, highest = (
            StagePosition.model_construct(z_nm=z_nm, alpha_deg=alpha_deg, beta_deg=beta_deg)
            for z_nm in self._reach("z_nm", seen, card)
        )
        return lowest, highest, hypot(shift_x_nm, shift_y_nm)

    def _reach(self, name: str, seen: MicroscopeState | None, card: Capabilities) -> tuple[float, float]:
        places = list(self._sent.get(name, ()))
        value = seen.axis_value(name) if seen is not None else None
        if isinstance(value, float | int) and value not in places:
            axis = card.axis(name)
            allowed = axis.allowed_error if axis is not None else 0.0
            if all(abs(value - place) > allowed for place in places):
                places.append(value)
        return (min(places), max(places)) if places else (0.0, 0.0)

    def since_s(self, now_s: float) -> Mapping[str, float]:
        """Axis -> time since it was last moved; a negative one counts as none."""
        return {name: max(0.0, now_s - moved_s) for name, moved_s in self._moved_s.items()}

    def moved(self, values: Mapping[str, AxisValue], at_s: float) -> None:
        """A command was carried out: it stands where it was sent."""
        for name, value in values.items():
            if not isinstance(value, str):
                if self._sent.get(name) != [value]:
                    self._moved_s[name] = at_s
                self._sent[name] = [value]

    def may_have_moved(self, values: Mapping[str, AxisValue], until_s: float) -> None:
        """A command had no answer: it may stand where it was or where it was sent, and may move until then."""
        for name, value in values.items():
            if not isinstance(value, str):
                self._sent.setdefault(name, []).append(value)
                self._moved_s[name] = until_s


def displaced(command: AcquireFrame, state: MicroscopeState, card: Capabilities) -> dict[str, tuple[float, float]]:
    """Axis -> where a frame was asked for and where it was taken, of stage and shift, beyond the axis' tolerance.

    An axis that the instrument has not, or cannot read back, is not in it.
    """
    shift = {"beam_shift_x_nm": command.scan.beam_shift_x_nm, "beam_shift_y_nm": command.scan.beam_shift_y_nm}
    off: dict[str, tuple[float, float]] = {}
    for name, asked in {**dict(command.stage), **shift}.items():
        value = state.axis_value(name)
        if value == asked or not isinstance(value, float | int):
            continue
        axis = card.axis(name)
        if axis is not None and not abs(value - asked) <= axis.allowed_error:
            off[name] = asked, float(value)
    return off


def taken_at(command: AcquireFrame, off: Mapping[str, tuple[float, float]]) -> AcquireFrame:
    """The command as it was carried out: with these axes where they were read back."""
    found = {name: value for name, (_, value) in off.items()}
    stage = {name: value for name, value in found.items() if name in type(command.stage).model_fields}
    shift = {name: value for name, value in found.items() if name not in stage}
    return command.model_copy(
        update={"stage": command.stage.model_copy(update=stage), "scan": command.scan.model_copy(update=shift)}
    )
