"""The capabilities that follow from recorded images; `replay_images` shows them."""

from __future__ import annotations

from collections.abc import Iterator

from instruments.adapters.replay_images_config import ReplayImagesConfig
from instruments.adapters.replay_raster import Raster
from instruments.axes import AxisFrame
from instruments.capabilities import Axis, Capabilities, Mode
from instruments.errors import ConfigurationError

_WHY_NOT = "the record does not hold them"


def card_of(config: ReplayImagesConfig, rasters: tuple[Raster, ...]) -> Capabilities:
    """Modes as recorded, and as far as any image reaches. Raises ConfigurationError where frames of a mode differ."""
    return Capabilities(
        name="replay",
        simulated=any(one.image.simulated for one in rasters),
        axes=tuple(_axes(config, rasters)),
        modes=tuple(_modes(config, rasters)),
        stop_latency_s=0.0,
        quirks=tuple(_quirks(config, rasters)),
    )


def _axes(config: ReplayImagesConfig, rasters: tuple[Raster, ...]) -> Iterator[Axis]:
    finest_nm = min(raster.pixel_size_nm for raster in rasters)
    tolerance_nm = config.reach_nm if config.placing == "nearest" else max(one.pixel_size_nm for one in rasters)
    for index, name in enumerate(("x", "y")):
        reach = [max(one.image.shape_px) / 2 * one.pixel_size_nm for one in rasters]
        middles = [one.image.centre_nm[index] for one in rasters]
        low = min(middle - half for middle, half in zip(middles, reach, strict=True))
        high = max(middle + half for middle, half in zip(middles, reach, strict=True))
        half = (high - low) / 2
        places: tuple[tuple[str, float, float, AxisFrame], ...] = (
            (f"{name}_nm", min(low, 0.0), max(high, 0.0), "stage"),
            (f"beam_shift_{name}_nm", -half, half, "beam_shift"),
        )
        for axis, minimum, maximum, frame in places:
            yield Axis(
                name=axis,
                minimum=minimum,
                maximum=maximum,
                resolution=finest_nm,
                settle_s=config.settle_s,
                frame=frame,
                tolerance=tolerance_nm,
            )
    yield _between("probe_current_pa", [one.current_pa for one in rasters])
    yield _between("defocus_nm", [one.image.defocus_nm for one in rasters])
    yield _between("alpha_deg", [one.image.tilt_deg[0] for one in rasters], "stage")
    yield _between("beta_deg", [one.image.tilt_deg[1] for one in rasters], "stage")


def _between(name: str, values: list[float], frame: AxisFrame = "optics") -> Axis:
    return Axis(name=name, minimum=min(values), maximum=max(values), frame=frame)


def _modes(config: ReplayImagesConfig, rasters: tuple[Raster, ...]) -> Iterator[Mode]:
    for name in dict.fromkeys(one.image.mode for one in rasters):
        alike = [one for one in rasters if one.image.mode == name]
        kinds = {(_shapes(one), one.counted, one.image.kind) for one in alike}
        if len(kinds) > 1:
            raise ConfigurationError(f"frames of mode {name!r} differ in detectors or in what these count")
        shapes, counted, kind = kinds.pop()
        yield Mode.model_validate(
            {
                "name": name,
                "kind": kind,
                "detectors": [
                    {
                        "name": one,
                        "raw_counts": one in counted,
                        "without_references": _WHY_NOT,
                        "shape_px": shape_px,
                        **(_counted(kind) if one in counted else _scaled(config, one, alike)),
                    }
                    for one, shape_px in shapes
                ],
            }
        )


def _counted(kind: str) -> dict[str, float]:
    """Of quanta that were counted one by one: electrons, unless they are X-rays."""
    return {} if kind == "eds" else {"gain_counts_per_electron": 1.0}


def _scaled(config: ReplayImagesConfig, detector: str, alike: list[Raster]) -> dict[str, float]:
    """What zero and one electron are among the unsigned integers that are given; nothing where nobody says it."""
    gain = config.gain_counts_per_electron
    if gain is None:
        return {}
    scales = {one.scales[detector] for one in alike}
    if len(scales) > 1:
        raise ConfigurationError(
            f"gain_counts_per_electron {gain:g}: the recorded images of {detector} are brought to integers each in its "
            "own way; leave it out, and take zero and step from each frame's context"
        )
    zero, step = scales.pop()
    return {"gain_counts_per_electron": gain / step, "offset_counts": -zero / step}


def _shapes(raster: Raster) -> tuple[tuple[str, tuple[int, int] | None], ...]:
    """The detectors, and (1, channels) of those that see a spectrum at each point."""
    return tuple(
        (name, (values.shape[2], values.shape[3]) if values.ndim > 2 else None)
        for name, values in raster.image.detectors.items()
    )


def _quirks(config: ReplayImagesConfig, rasters: tuple[Raster, ...]) -> Iterator[str]:
    yield "only what was recorded can be asked for: place, pixel size, current, focus, tilt, rotation"
    yield "a pixel's recorded exposure is used up by reading it; shorter dwells thin the counts binomially"
    if config.placing == "nearest":
        yield f"a frame may have been taken up to {config.reach_nm:g} nm off; the state says where"
    if any(one.image.detectors.keys() - one.counted for one in rasters):
        yield "values that are no counts of electrons are given as recorded, at the recorded dwell alone"
    if any(scale != (0.0, 1.0) for one in rasters for scale in one.scales.values()):
        yield "values that are no whole numbers above 0 are brought to 16 bits (spectra: 32); each context says how"
    if any(one.image.current_pa is None or one.image.dwell_time_us is None for one in rasters):
        yield "current or dwell time are declared, so doses are nominal"
