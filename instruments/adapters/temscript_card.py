"""What a temscript server said of itself, once, and the capabilities that follow from it and the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from instruments.adapters.temscript_axes import CHOICES, STAGE, AxisTable, ServerAxis
from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_link import TemscriptLink
from instruments.capabilities import Axis, Capabilities, Detector, Mode, Procedure
from instruments.errors import ConfigurationError, InstrumentFault

STEM: Final = "stem"
MAX_SUBFRAMES: Final = 64
NORMALISATIONS: Final = {
    f"normalize_{mode.lower()}": mode for mode in ("ALL", "CONDENSER", "OBJECTIVE", "PROJECTOR", "SPOTSIZE")
}
_WHOLE_TURN_DEG: Final = 360.0


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """A camera as the server describes it."""

    rows: int
    columns: int
    binnings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What does not change while the server runs."""

    version: str
    family: str
    microscope_id: str
    beam_energy_ev: float
    holder: str
    stage_limits: Mapping[str, tuple[float, float]]
    cameras: Mapping[str, CameraFacts]
    stem_detectors: tuple[str, ...]

    @property
    def is_simulated(self) -> bool:
        """Whether there is no microscope behind the server."""
        return self.family == "NULL"


def facts_of(link: TemscriptLink) -> ServerFacts:
    """Ask the server. Raises LinkLost, InstrumentFault for one that is too old or whose high tension is off."""
    try:
        return _asked(link)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InstrumentFault(f"the server does not answer as temscript 2 does: {error!r}; see what it is") from error


def _asked(link: TemscriptLink) -> ServerFacts:
    version = str(link.get("version"))
    if int(version.split(".")[0]) < 2:
        raise InstrumentFault(f"the temscript server has version {version}; 2.0.0 or later is needed")
    voltage_kv = float(link.get("voltage"))
    if voltage_kv <= 0:
        raise InstrumentFault(f"the high tension is at {voltage_kv:g} kV; switch it on at the microscope")
    limits: dict[str, list[float]] = link.get("stage_limits")
    return ServerFacts(
        version=version,
        family=str(link.get("family")),
        microscope_id=str(link.get("microscope_id")),
        beam_energy_ev=voltage_kv * 1e3,
        holder=str(link.get("stage_holder")),
        stage_limits={axis: (float(low), float(high)) for axis, (low, high) in limits.items()},
        cameras={name: _camera(told) for name, told in link.get("cameras").items()},
        stem_detectors=tuple(link.get("stem_detectors")) if link.get("stem_available") else (),
    )


def _camera(told: Mapping[str, Any]) -> CameraFacts:
    return CameraFacts(int(told["height"]), int(told["width"]), tuple(int(one) for one in told["binnings"]))


def capabilities_of(facts: ServerFacts, config: TemscriptConfig, table: AxisTable) -> Capabilities:
    """The card. Raises ConfigurationError for limits, cameras or detectors that are not those of this server."""
    axes = (*_set_axes(facts, config, table), *_frame_axes(facts, config))
    if unknown := sorted(config.limits.keys() - {axis.name for axis in axes}):
        raise ConfigurationError(f"limits of {', '.join(unknown)}: this server has no such axis; take them out")
    return Capabilities(
        name="temscript",
        simulated=facts.is_simulated,
        axes=axes,
        modes=tuple(_modes(facts, config)),
        can_interrupt=False,
        stop_latency_s=config.stop_latency_s,
        concurrent_clients=1,
        reports_dose=False,
        blanker_settle_s=config.beam_overhead_s,
        current_uncertainty_fraction=config.current_uncertainty_fraction,
        procedures=tuple(Procedure(name=name, duration_s=30.0, exposes=False) for name in NORMALISATIONS),
        quirks=tuple(_quirks(facts, config)),
    )


def _set_axes(facts: ServerFacts, config: TemscriptConfig, table: AxisTable) -> Iterator[Axis]:
    for name, axis in table.numbers.items():
        limits = _limits(name, axis, facts, config)
        if limits is None:
            continue
        yield Axis(
            name=name,
            minimum=limits[0],
            maximum=limits[1],
            resolution=1.0 if axis.is_whole else 0.0,
            settle_s=config.stage_settle_s if axis.endpoint == STAGE else 0.0,
            frame=axis.frame,
            tolerance=config.tolerances.get(name, axis.tolerance),
        )
    for name, choice in CHOICES.items():
        yield Axis(name=name, frame=choice.frame, choices=tuple(choice.words), interlocked=name == "column_valves")


def _limits(name: str, axis: ServerAxis, facts: ServerFacts, config: TemscriptConfig) -> tuple[float, float] | None:
    """Those of the facility; for the stage within the server's; None for an axis that must not be set."""
    ours = config.limits.get(name)
    if axis.endpoint != STAGE:
        return ours
    theirs = facts.stage_limits.get(str(axis.place))
    if theirs is None or theirs[0] >= theirs[1]:
        return None
    low, high = axis.factor * theirs[0], axis.factor * theirs[1]
    if ours is None:
        return low, high
    if ours[0] < low or ours[1] > high:
        raise ConfigurationError(
            f"limits.{name} {ours[0]:g} to {ours[1]:g} are wider than the server's {low:g} to {high:g}; narrow them"
        )
    return ours


def _frame_axes(facts: ServerFacts, config: TemscriptConfig) -> Iterator[Axis]:
    current_pa, energy_ev, stem = config.probe_current_pa, facts.beam_energy_ev, _stem_of(facts, config)
    yield Axis(name="beam_energy_ev", minimum=energy_ev, maximum=energy_ev)
    yield Axis(name="probe_current_pa", minimum=current_pa, maximum=current_pa)
    yield Axis(name="subframe_count", minimum=1, maximum=MAX_SUBFRAMES, resolution=1, frame="scan")
    turn_deg = _WHOLE_TURN_DEG if stem else 0.0
    yield Axis(name="rotation_deg", minimum=-turn_deg, maximum=turn_deg, frame="scan")
    fields, dwells, lengths_mm = list[float](), list[float](), list[float]()
    for name, camera in config.cameras.items():
        known = facts.cameras.get(name)
        if known is None:
            raise ConfigurationError(f"cameras.{name}: the server has {', '.join(facts.cameras) or 'no camera'}")
        fields += [size_nm * known.columns / part for size_nm in camera.pixel_size_nm.values() for part in (1, 4)]
        fields += [camera.selected_area_nm] if camera.selected_area_nm else []
        lengths_mm += camera.camera_lengths_mm.values()
        dwells += [config.min_exposure_s * 1e6, config.max_exposure_s * 1e6]
    if stem and config.stem:
        flyback_us = config.stem.flyback_time_us
        yield Axis(name="flyback_time_us", minimum=flyback_us, maximum=flyback_us, frame="scan")
        fields += [config.stem.min_field_nm, config.stem.max_field_nm]
        dwells += [0.1, config.stem.max_dwell_us]
    if lengths_mm:
        yield Axis(name="camera_length_mm", minimum=min(lengths_mm), maximum=max(lengths_mm))
    if fields:
        yield Axis(name="field_of_view_nm", minimum=min(fields), maximum=max(fields), frame="scan")
        yield Axis(name="dwell_time_us", minimum=min(dwells), maximum=max(dwells), frame="scan")


def _stem_of(facts: ServerFacts, config: TemscriptConfig) -> tuple[str, ...]:
    """Detectors of the scanned mode; none without a calibration."""
    if config.stem is None:
        return ()
    wanted = config.stem.detectors or facts.stem_detectors
    missing = [name for name in wanted if name not in facts.stem_detectors]
    if missing or not wanted:
        raise ConfigurationError(
            f"stem.detectors {', '.join(missing)}: the server has {', '.join(facts.stem_detectors) or 'no STEM'}"
        )
    return wanted


def _modes(facts: ServerFacts, config: TemscriptConfig) -> Iterator[Mode]:
    for name, camera in config.cameras.items():
        detector = Detector(
            name=name,
            gain_counts_per_electron=camera.gain_counts_per_electron,
            offset_counts=float(camera.added_counts),
            dark_reference=camera.dark_reference,
            gain_reference=camera.gain_reference,
            without_references="as configured; the server tells none",
            raw_counts=not facts.is_simulated,
            shape_px=(facts.cameras[name].rows, facts.cameras[name].columns),
        )
        yield Mode(name=name, kind="tem_image", detectors=(detector,))
        if camera.camera_lengths_mm:
            yield Mode(name=f"{name}_diffraction", kind="tem_diffraction", detectors=(detector,))
    if detectors := _stem_of(facts, config):
        offset = float(config.stem.added_counts) if config.stem else 0.0
        yield Mode(
            name=STEM,
            kind="stem",
            detectors=tuple(
                Detector(name=name, offset_counts=offset, without_references="the server tells none", raw_counts=False)
                for name in detectors
            ),
        )


def _quirks(facts: ServerFacts, config: TemscriptConfig) -> Iterator[str]:
    yield "the server does one thing after another: a blank waits for the exposure before it"
    yield "the server clamps the stage and the spot without a word: limits are checked here, everything is read back"
    yield "the beam is on while a camera is read out; this is counted as beam_overhead_s"
    yield "setting a beam tilt switches the dark field on, (0, 0) switches it off"
    if not config.calibration_id:
        unchecked = "not calibrated: sign and direction are the server's own"
        yield f"beam_shift_motion: {unchecked}"
        yield f"stage_motion: {unchecked}"
        yield f"calibration: {unchecked}"
    if facts.is_simulated:
        yield "null microscope: every frame is zeros, there is no STEM"
        yield "dwell: the null microscope's frames are zeros, whatever the exposure"
