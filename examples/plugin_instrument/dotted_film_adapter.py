"""An adapter as a plug-in: a driver that converts units and drives; `DrivenMicroscope` does what all must do alike."""

from __future__ import annotations

import numpy as np
from dotted_film import Column

from instruments import (
    AcquisitionFailed,
    Axis,
    Capabilities,
    Detector,
    InstrumentFault,
    MicroscopeState,
    Mode,
    Optics,
    StagePosition,
)
from instruments.adapters.clocks import CLOCKS
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed, InThisProcess

NM_PER_UM = 1000.0
BEAM = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=25.0, probe_current_pa=50.0)
UNKNOWN = {
    "measured_current_pa": "nothing measures it, 50 pA are declared",
    "coherence": "the maker does not say",
    "mode": "nothing was exposed yet",
    CLOCKS: "its library runs in this process, by this clock",
}


def open_dotted_film(reach_nm=500.0):
    """The function of the entry point: its keywords are the configuration."""
    return DrivenMicroscope(DottedFilmDriver(Column(), reach_nm))


class DottedFilmDriver:
    """The methods of `instruments.adapters.driver.Driver`."""

    def __init__(self, column, reach_nm):
        self._column = column
        self.worker = InThisProcess()
        self.capabilities = Capabilities(
            name="dotted film",
            simulated=True,
            axes=(
                Axis(name="x_nm", minimum=-reach_nm, maximum=reach_nm, tolerance=0.1, frame="stage"),
                Axis(name="y_nm", minimum=-reach_nm, maximum=reach_nm, tolerance=0.1, frame="stage"),
                # What every frame has: fixed ones are as wide as their one value.
                Axis(name="beam_energy_ev", minimum=60e3, maximum=60e3),
                Axis(name="semi_convergence_angle_mrad", minimum=25.0, maximum=25.0),
                Axis(name="probe_current_pa", minimum=50.0, maximum=50.0),
                Axis(name="field_of_view_nm", minimum=10.0, maximum=1000.0, frame="scan"),
                Axis(name="pixel_size_nm", minimum=0.1, maximum=50.0, frame="scan"),
                Axis(name="dwell_time_us", minimum=1.0, maximum=1000.0, frame="scan"),
                Axis(name="subframe_count", minimum=1.0, maximum=64.0, frame="scan"),
            ),
            modes=(Mode(name="stem", detectors=(Detector(name="adf", without_references="not measured yet"),)),),
            stop_latency_s=0.5,
        )

    def read_state(self, time_s, deadline_s):
        """What is read back; what cannot be is named with the reason."""
        stage = StagePosition(x_nm=self._column.x_um * NM_PER_UM, y_nm=self._column.y_um * NM_PER_UM)
        blanked = self._column.is_blanked
        return MicroscopeState(time_s=time_s, stage=stage, optics=BEAM, beam_blanked=blanked, undetermined=UNKNOWN)

    def set_axes(self, values, deadline_s):
        """Values were checked against the axes; what stands afterwards is read back and compared."""
        x_um, y_um = values.get("x_nm"), values.get("y_nm")
        self._column.move(
            self._column.x_um if x_um is None else x_um / NM_PER_UM,
            self._column.y_um if y_um is None else y_um / NM_PER_UM,
        )

    def set_blanked(self, is_blanked, deadline_s):
        """Read back, and a fault where it is not so."""
        self._column.is_blanked = is_blanked
        if self._column.is_blanked != is_blanked:
            raise InstrumentFault("the blanker did not follow; assume that the beam is on")

    def check(self, command, mode):
        """What the axes' limits do not say would be refused here, with CommandRefused: nothing moved yet."""

    def expose(self, command, mode, until_s, *, is_lit):
        """All sub-frames, the beam on meanwhile if `is_lit`, and blanked afterwards whatever happens."""
        scan, images = command.scan, []
        try:
            self._column.is_blanked = not is_lit
            for _ in range(command.subframe_count):
                image = self._column.scan(scan.field_of_view_nm / NM_PER_UM, *scan.shape_px, scan.dwell_time_us * 1e-6)
                if image is None:
                    raise AcquisitionFailed(f"stopped after {len(images)} of {command.subframe_count} sub-frames")
                images.append(image)
        finally:
            self._column.is_blanked = True
        return Exposed({"adf": np.stack(images)}, scan.pixel_size_nm, {"software": {"dotted film": "1.0"}})

    def interrupt(self):
        """From any thread, while `expose` runs."""
        self._column.halt()

    def release(self):
        """Expose again."""
        self._column.go_on()

    def close(self):
        """Leave it dark."""
        self._column.halt()
