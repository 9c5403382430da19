"""What a Merlin can do together with the instrument that scans, or without one. Neighbour: `microscope`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from instruments.adapters.merlin.config import DETECTOR, MerlinConfig
from instruments.capabilities import Axis, Capabilities, Detector, Mode

PATTERNS: Final = "patterns"
VIRTUAL: Final = "virtual"
_NO_REFERENCE: Final = "a counting detector: no offset; a flat field is the Merlin's own affair"
_QUIRKS: Final = (
    "the control port serves one client at a time: a second one waits without an answer",
    "triggers come by a cable that nobody here can see: a missing one shows as a frame that does not come in time",
)
_ALONE: Final = (
    "nothing here moves, blanks or counts the beam: whoever scans guards the specimen and its dose",
    "stop ends the detector's acquisition and leaves the beam as it is",
)
_MODE_KINDS: Final[dict[str, Literal["stem", "4d_stem"]]] = {PATTERNS: "4d_stem", VIRTUAL: "stem"}


def capabilities_of(config: MerlinConfig, column: Capabilities | None) -> Capabilities:
    """The scanning instrument's axes and modes with the Merlin's modes before them; or the Merlin's alone."""
    dwell = Axis(name="dwell_time_us", minimum=config.min_dwell_us, maximum=config.max_dwell_us, frame="scan")
    beside = () if column is None else _scanned(config, column)
    modes = tuple(_mode(config, name, beside) for name in _mode_names(config))
    stop_latency_s = 3 * config.answer_s
    if column is None:
        return Capabilities(
            name="merlin", simulated=config.simulated, axes=(dwell,), modes=modes, stop_latency_s=stop_latency_s,
            reports_dose=False, reports_limits=False, has_beam=False, quirks=(*_QUIRKS, *_ALONE),
        )  # fmt: skip
    return column.model_copy(
        update={
            "name": f"merlin on {column.name}",
            "simulated": column.simulated or config.simulated,
            "axes": tuple(_narrowed(column.axes, dwell)),
            "modes": modes,
            "stop_latency_s": column.stop_latency_s,
            "concurrent_clients": 1,
            "quirks": (*_QUIRKS, *column.quirks),
        }
    )


def _narrowed(axes: Iterable[Axis], dwell: Axis) -> Iterable[Axis]:
    """The scanning instrument's axes; a dwell has to suit both. Raises ValueError where none does."""
    for axis in axes:
        if axis.name != dwell.name:
            yield axis
            continue
        shortest, longest = max(axis.minimum, dwell.minimum), min(axis.maximum, dwell.maximum)
        if shortest > longest:
            raise ValueError(
                f"dwell times of {axis.minimum:g} to {axis.maximum:g} us of the scan and {dwell.minimum:g} to "
                f"{dwell.maximum:g} us of the Merlin have nothing in common"
            )
        yield axis.model_copy(update={"minimum": shortest, "maximum": longest})


def _scanned(config: MerlinConfig, column: Capabilities) -> tuple[Detector, ...]:
    """Detectors read beside the Merlin. Raises ValueError for a mode that is not there, or not scanned."""
    assert config.column is not None
    mode = column.mode(config.column.mode)
    if mode is None or mode.is_at_once or mode.kind in ("ronchigram", "4d_stem"):
        known = ", ".join(one.name for one in column.modes)
        raise ValueError(f"column.mode {config.column.mode!r} is no scanning mode of {column.name}; it has {known}")
    if hidden := {DETECTOR, *config.rings} & {detector.name for detector in mode.detectors}:
        raise ValueError(f"{', '.join(sorted(hidden))} is a detector of {column.name} as well; rename the ring")
    return mode.detectors


def _mode_names(config: MerlinConfig) -> tuple[str, ...]:
    return (VIRTUAL, PATTERNS) if config.rings else (PATTERNS,)


def _mode(config: MerlinConfig, name: str, beside: tuple[Detector, ...]) -> Mode:
    pixelated = Detector(
        name=DETECTOR,
        gain_counts_per_electron=config.gain_counts_per_electron,
        without_references=_NO_REFERENCE,
        shape_px=config.shape_px,
    )
    rings = tuple(
        Detector(
            name=ring,
            inner_mrad=one.inner_mrad,
            outer_mrad=one.outer_mrad,
            gain_counts_per_electron=config.gain_counts_per_electron,
            without_references=_NO_REFERENCE,
        )
        for ring, one in config.rings.items()
    )
    own = (pixelated,) if name == PATTERNS else rings
    length_mm = config.camera_length_mm
    return Mode(name=name, kind=_MODE_KINDS[name], camera_length_mm=length_mm, detectors=(*own, *beside))
