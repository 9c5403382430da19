"""Which axis is what on an instamatic server, and the capabilities that follow from a configuration.

The server speaks nm and degrees for the stage, and counts for deflectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from instruments.adapters.instamatic_config import LARGEST_COUNT, InstamaticConfig
from instruments.adapters.instamatic_link import InstamaticLink, number, numbers, word
from instruments.axes import KNOWN_AXES
from instruments.capabilities import Axis, Capabilities
from instruments.commands import AxisValue
from instruments.errors import CommandRefused, ConfigurationError

STAGE: Final = {"x_nm": "x", "y_nm": "y", "z_nm": "z", "alpha_deg": "a", "beta_deg": "b"}
_STAGE_TOLERANCE: Final = {"x_nm": 50.0, "y_nm": 50.0, "z_nm": 50.0, "alpha_deg": 0.1, "beta_deg": 0.1}
_DEFLECTORS: Final = {
    "beam_shift": ("BeamShift", "nm"),
    "image_shift": ("ImageShift1", "nm"),
    "tilt": ("BeamTilt", "mrad"),
    "descan": ("DiffShift", "mrad"),
}
_WHOLE: Final = {"spot_index": "SpotSize", "magnification_index": "MagnificationIndex"}
_SCREEN: Final = ("up", "down")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the server's microscope."""

    function: str
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict[str, Any])


class AxisTable:
    """Axis names and values against the server's, with the calibration of one configuration."""

    def __init__(self, config: InstamaticConfig) -> None:
        self._matrices = {str(name): one.matrix for name, one in config.deflectors.items()}
        self._zeros = {str(name): one.zero_count for name, one in config.deflectors.items()}
        self._whole = [name for name in _WHOLE if name in config.limits]

    @property
    def names(self) -> tuple[str, ...]:
        """Every axis with numbers that can be set where it has limits."""
        return (*STAGE, *(name for stem in self._matrices for name in _pair(stem)), *_WHOLE)

    def step(self, name: str) -> float:
        """The smallest difference of an axis: of whole numbers, or of counts."""
        for stem, matrix in self._matrices.items():
            if name in _pair(stem):
                return sum(map(abs, matrix[_pair(stem).index(name)]))
        return 1.0 if name in _WHOLE or name.endswith("_nm") else 0.0

    def check(self, values: Mapping[str, AxisValue]) -> None:
        """Raise CommandRefused for half of a number that must be whole, or counts that a deflector does not have."""
        for name in self._whole:
            if float(values.get(name, 0)) != round(float(values.get(name, 0))):
                raise CommandRefused(f"{name} {values[name]} is not a whole number; choose one")
        for stem in self._matrices:
            given = [float(values[name]) for name in _pair(stem) if name in values]
            if len(given) == 2:
                self._counts(stem, *given)

    def read(self, link: InstamaticLink) -> dict[str, AxisValue]:
        """Every axis, in house units."""
        values: dict[str, AxisValue] = dict(zip(STAGE, link.ask("getStagePosition", numbers(5)), strict=True))
        for stem in self._matrices:
            values |= dict(zip(_pair(stem), self._deflected(stem, link), strict=True))
        for name in self._whole:
            values[name] = link.ask(f"get{_WHOLE[name]}", number)
        values["screen"] = link.ask("getScreenPosition", word)
        return values

    def calls(self, values: Mapping[str, AxisValue], link: InstamaticLink) -> Iterator[Call]:
        """What brings these axes there; the stage is not waited for."""
        moves = {STAGE[name]: _whole_nm(name, float(values[name])) for name in STAGE if name in values}
        for stem in self._matrices:
            names = _pair(stem)
            if any(name in values for name in names):
                known = [name in values for name in names]
                now = (0.0, 0.0) if all(known) else self._deflected(stem, link)
                counts = self._counts(stem, *(float(values.get(name, at)) for name, at in zip(names, now, strict=True)))
                yield Call(f"set{_DEFLECTORS[stem][0]}", counts)
        for name in self._whole:
            if name in values:
                yield Call(f"set{_WHOLE[name]}", (round(float(values[name])),))
        if "screen" in values:
            yield Call("setScreenPosition", (values["screen"],))
        if moves:
            yield Call("setStagePosition", named={**moves, "wait": False})

    def _deflected(self, stem: str, link: InstamaticLink) -> tuple[float, float]:
        (a, b), (c, d) = self._matrices[stem]
        x, y = (
            count - zero
            for count, zero in zip(link.ask(f"get{_DEFLECTORS[stem][0]}", numbers(2)), self._zeros[stem], strict=True)
        )
        return a * x + b * y, c * x + d * y

    def _counts(self, stem: str, x: float, y: float) -> tuple[int, int]:
        (a, b), (c, d) = self._matrices[stem]
        size = a * d - b * c
        counts = (d * x - b * y) / size + self._zeros[stem][0], (a * y - c * x) / size + self._zeros[stem][1]
        if min(counts) < 0 or max(counts) > LARGEST_COUNT:
            raise CommandRefused(
                f"{stem} ({x:g}, {y:g}) would be {counts[0]:.0f}, {counts[1]:.0f} counts, outside 0 to "
                f"{LARGEST_COUNT}; stay nearer to the middle"
            )
        return round(counts[0]), round(counts[1])


def capabilities_of(config: InstamaticConfig, table: AxisTable) -> Capabilities:
    """The card. Raises ConfigurationError for limits of what cannot be set."""
    if unknown := sorted(config.limits.keys() - set(table.names)):
        raise ConfigurationError(
            f"limits of {', '.join(unknown)}: there is no such axis, or it is a deflector without a calibration"
        )
    return Capabilities(
        name="instamatic",
        simulated=config.simulated,
        axes=(*(_axis(name, config, table) for name in table.names if name in config.limits), _screen()),
        modes=(),
        can_interrupt=True,
        stop_latency_s=3 * config.answer_s,
        concurrent_clients=1,
        reports_dose=False,
        reports_limits=False,
        quirks=tuple(_quirks(config)),
    )


def _screen() -> Axis:
    return Axis(name="screen", frame="detector", choices=_SCREEN)


def _axis(name: str, config: InstamaticConfig, table: AxisTable) -> Axis:
    low, high = config.limits[name]
    step = table.step(name)
    rate = config.tilt_rate_deg_per_s if name.endswith("_deg") else config.stage_rate_nm_per_s
    return Axis(
        name=name,
        minimum=low,
        maximum=high,
        resolution=step,
        rate_per_s=rate if name in STAGE else None,
        frame=KNOWN_AXES[name].frame,
        tolerance=config.tolerances.get(name, _STAGE_TOLERANCE.get(name, 0.75 * step)),
    )


def _quirks(config: InstamaticConfig) -> Iterator[str]:
    yield "the server mixes the answers of several clients: this must be its only one, and every answer is checked"
    yield "the server has no limits: those configured here are all there are"
    yield "cameras have a server of their own: no frames"
    if config.simulated:
        yield "the simulated stage cannot be stopped: it goes on to where it was sent, the beam blanked"


def _pair(stem: str) -> tuple[str, str]:
    unit = _DEFLECTORS[stem][1]
    return f"{stem}_x_{unit}", f"{stem}_y_{unit}"


def _whole_nm(name: str, value: float) -> float:
    return round(value) if name.endswith("_nm") else value
