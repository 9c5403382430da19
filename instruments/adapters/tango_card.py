"""The capabilities of Tango devices as configured, with the limits that the devices give themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from instruments.adapters.tango_config import AttributeConfig, TangoConfig
from instruments.axes import known_axis
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.errors import ConfigurationError

Limits = Mapping[str, tuple[float | None, float | None]]


def capabilities_of(config: TangoConfig, limits: Limits) -> Capabilities:
    """The card; `limits` are the devices' own, by axis, in their units. Raises ConfigurationError."""
    longest_s = max((camera.max_exposure_s + camera.readout_s for camera in config.cameras.values()), default=0.0)
    return Capabilities(
        name="tango",
        simulated=config.simulated,
        axes=(*(_axis(name, one, limits[name]) for name, one in config.axes.items()), *_fixed(config)),
        modes=tuple(_modes(config)),
        stop_latency_s=(3 + len(config.cameras) + len(config.stop_commands)) * config.answer_s,
        reports_limits=any(limit is not None for pair in limits.values() for limit in pair),
        reports_dose=False,
        blanker_settle_s=config.beam_overhead_s,
        quirks=tuple(_quirks(config, longest_s)),
    )


def _axis(name: str, one: AttributeConfig, told: tuple[float | None, float | None]) -> Axis:
    house = sorted(one.factor * (limit - one.zero) for limit in told if limit is not None)
    if len(house) == 1:  # one side only: which, the sign of the factor says
        is_low = (told[0] is not None) == (one.factor > 0)
        lows, highs = (house, []) if is_low else ([], house)
    else:
        lows, highs = house[:1], house[1:]
    lows = [*lows, *([one.minimum] if one.minimum is not None else [])]
    highs = [*highs, *([one.maximum] if one.maximum is not None else [])]
    if not lows or not highs:
        raise ConfigurationError(f"{name}: neither {one.device}/{one.attribute} nor the configuration limits it; do")
    if max(lows) >= min(highs):
        raise ConfigurationError(
            f"{name}: limits {max(lows):g} to {min(highs):g} leave nothing; see both sets of limits"
        )
    known = known_axis(name)
    return Axis(
        name=name,
        minimum=max(lows),
        maximum=min(highs),
        tolerance=one.tolerance,
        settle_s=one.settle_s,
        rate_per_s=one.rate_per_s,
        frame=known.frame if known else "optics",
    )


def _fixed(config: TangoConfig) -> Iterator[Axis]:
    """What comes with a frame and cannot be set here."""
    for name in ("beam_energy_ev", "semi_convergence_angle_mrad", "probe_current_pa"):
        if name not in config.axes:
            value = float(getattr(config, name))
            yield Axis(name=name, minimum=value, maximum=value)
    cameras = config.cameras.values()
    if not cameras:
        return
    ranges = {
        "field_of_view_nm": [camera.pixel_size_nm * camera.shape_px[1] for camera in cameras],
        "pixel_size_nm": [camera.pixel_size_nm * slack for camera in cameras for slack in (0.999, 1.001)],
        "dwell_time_us": [1e6 * s for one in cameras for s in (one.min_exposure_s, one.max_exposure_s)],
        "subframe_count": [1.0, 64.0],
    }
    for name, values in ranges.items():
        yield Axis(name=name, minimum=min(values), maximum=max(values), frame="scan")


def _modes(config: TangoConfig) -> Iterator[Mode]:
    for name, camera in config.cameras.items():
        detector = Detector(
            name=name,
            shape_px=camera.shape_px,
            gain_counts_per_electron=camera.gain_counts_per_electron,
            without_references="Tango devices say nothing of dark and gain images",
        )
        yield Mode(name=name, kind="tem_image", detectors=(detector,))


def _quirks(config: TangoConfig, longest_s: float) -> Iterator[str]:
    yield "current, energy and convergence are declared, so doses are nominal"
    yield f"a device that does not answer while it exposes is stopped only after it: up to {longest_s:g} s"
    for name, camera in config.cameras.items():
        if not camera.counter:
            yield f"{name} counts no images: one that it failed to take cannot be told from the one before"
