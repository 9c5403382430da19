"""A small STEM as an EPICS Channel Access server: `python ca_ioc.py`, prefix TEM:, ports from the environment.

Motor records are caproto's own. Times are real: an exposure takes as long as it says.
"""

from __future__ import annotations

import time

from caproto.ioc_examples.fake_motor_record import FakeMotor
from caproto.server import PVGroup, SubGroup, pvproperty, run
from ioc_specimen import Specimen

MAX_PX = 64
MOVE_S = 0.01
MOTOR = {"velocity": 1000.0, "precision": 4, "user_limits": (-40, 40), "tick_rate_hz": 50.0}  # micrometres


def setting(value: float, low: float, high: float):
    """A number with control limits, which the server enforces, and a put that takes a while to complete."""
    return pvproperty(value=value, dtype=float, lower_ctrl_limit=low, upper_ctrl_limit=high, precision=3)


class Microscope(PVGroup):
    stage_x = SubGroup(
        FakeMotor, velocity=1000.0, precision=4, user_limits=(-40, 40), tick_rate_hz=50.0, prefix="stage:x"
    )
    stage_y = SubGroup(
        FakeMotor, velocity=1000.0, precision=4, user_limits=(-40, 40), tick_rate_hz=50.0, prefix="stage:y"
    )
    shift_x = setting(0.0, -500, 500)
    shift_y = setting(0.0, -500, 500)
    defocus = setting(0.0, -2000, 2000)
    current = setting(20.0, 0, 200)
    field = setting(100.0, 1, 2000)
    dwell = setting(1.0, 0.1, 100_000)
    subframes = pvproperty(value=1, dtype=int, lower_ctrl_limit=1, upper_ctrl_limit=64)
    temperature = setting(293.0, 80, 1300)
    bias = setting(0.0, -10, 10)
    flow = setting(0.0, 0, 1)
    strain = setting(0.0, 0, 0.02)
    rows = pvproperty(value=32, dtype=int, lower_ctrl_limit=1, upper_ctrl_limit=MAX_PX)
    columns = pvproperty(value=32, dtype=int, lower_ctrl_limit=1, upper_ctrl_limit=MAX_PX)
    blanked = pvproperty(value=1, dtype=int)
    acquire = pvproperty(value=0, dtype=int)
    abort = pvproperty(value=0, dtype=int)
    count = pvproperty(value=0, dtype=int)
    measured = pvproperty(value=0.0, dtype=float)
    pace = pvproperty(value=1.0, dtype=float, doc="wall seconds of an exposure's second")
    jammed = pvproperty(value=0, dtype=int, doc="1: settings are taken and nothing moves; 2: no new image")
    haadf = pvproperty(value=[0], dtype=int, max_length=64 * MAX_PX * MAX_PX)

    specimen = Specimen()

    async def _moved(self, instance, value):
        await self.async_lib.library.sleep(MOVE_S)
        return instance.value if self.jammed.value == 1 else value

    @shift_x.putter
    async def shift_x(self, instance, value):
        return await self._moved(instance, value)

    @shift_y.putter
    async def shift_y(self, instance, value):
        return await self._moved(instance, value)

    @defocus.putter
    async def defocus(self, instance, value):
        """Refuses what it declares to take, as an interlock would."""
        if abs(value) > 900:
            raise ValueError("interlock")
        return value

    @abort.startup
    async def abort(self, instance, async_lib):
        self.async_lib = async_lib

    @acquire.putter
    async def acquire(self, instance, value):
        if value != 1:
            return 0
        await self.abort.write(0)
        shape = (self.subframes.value, self.rows.value, self.columns.value)
        lit_s = await self._exposed(self.pace.value * self.dwell.value * 1e-6 * shape[0] * shape[1] * shape[2])
        if self.jammed.value == 2:
            return 0
        pa = self.current.value if lit_s else 0.0
        x_nm = self.stage_x.motor.field_inst.user_readback_value.value * 1000 + self.shift_x.value
        y_nm = self.stage_y.motor.field_inst.user_readback_value.value * 1000 + self.shift_y.value
        counts = self.specimen.counts(
            centre_nm=(x_nm, y_nm), field_nm=self.field.value, shape=shape, dwell_us=self.dwell.value, pa=pa
        )
        await self.haadf.write(counts.ravel())
        await self.measured.write(pa * 1.02)
        await self.count.write(self.count.value + 1)
        return 0

    async def _exposed(self, exposure_s: float) -> bool:
        """Wait for the scan; whether the beam was on at its end."""
        until_s = time.monotonic() + exposure_s
        while time.monotonic() < until_s and not self.abort.value:
            await self.async_lib.library.sleep(min(0.02, max(until_s - time.monotonic(), 0)))
        return not self.blanked.value


if __name__ == "__main__":
    run(Microscope(prefix="TEM:").pvdb, interfaces=["127.0.0.1"], log_pv_names=False)
