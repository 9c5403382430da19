"""The capabilities that follow from a recorded spectrum image; `replay` shows them."""

from __future__ import annotations

from typing import Final

from instruments.adapters.replay_config import ReplayConfig
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.readers.spectrum_maps import SpectrumMaps

SURVEY, EDS = "survey", "eds"
_NO_REFERENCES: Final = "the file does not say"


def card_of(config: ReplayConfig, maps: SpectrumMaps, survey_dwell_us: float) -> Capabilities:
    """Two modes, a beam shift that spans the recorded field, and what is odd about a replay."""
    rows, columns = maps.shape_px
    shifts = [
        Axis(
            name=name,
            minimum=-side / 2 * maps.pixel_size_nm,
            maximum=side / 2 * maps.pixel_size_nm,
            resolution=maps.pixel_size_nm / 2,
            settle_s=config.settle_s,
            frame="beam_shift",
        )
        for name, side in (("beam_shift_x_nm", columns), ("beam_shift_y_nm", rows))
    ]
    current = Axis(name="probe_current_pa", minimum=config.nominal_current_pa, maximum=config.nominal_current_pa)
    return Capabilities(
        name="replay",
        simulated=False,
        axes=(*shifts, current),
        modes=(
            Mode(
                name=SURVEY,
                kind="stem",
                detectors=(Detector(name="haadf", raw_counts=False, without_references=_NO_REFERENCES),),
            ),
            Mode(
                name=EDS,
                kind="eds",
                detectors=tuple(Detector(name=line, without_references=_NO_REFERENCES) for line in maps.counts),
            ),
        ),
        stop_latency_s=0.0,
        quirks=(
            "the current is declared, so electrons and doses are nominal",
            f"{config.measured_fraction:.0%} of the recorded counts are measured, the rest is held out",
            "a point's recorded exposure is used up by reading it",
            f"the survey image is as recorded, with {survey_dwell_us:g} us a point: no other dwell is given",
        ),
    )
