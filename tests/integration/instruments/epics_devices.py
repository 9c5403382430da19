"""The devices a facility would write: the soft IOC's microscope in ophyd's words."""

from __future__ import annotations

from ophyd import Component, Device, EpicsMotor, EpicsSignal, EpicsSignalRO


class Setting(EpicsSignal):
    """A signal whose sets wait for the server to say that they are done."""

    def __init__(self, pv, **kwargs):
        super().__init__(pv, put_complete=True, **kwargs)


class Microscope(Device):
    stage_x = Component(EpicsMotor, "stage:x")
    stage_y = Component(EpicsMotor, "stage:y")
    shift_x = Component(Setting, "shift_x")
    shift_y = Component(Setting, "shift_y")
    defocus = Component(Setting, "defocus")
    current = Component(Setting, "current")
    field = Component(Setting, "field")
    dwell = Component(Setting, "dwell")
    subframes = Component(Setting, "subframes")
    temperature = Component(Setting, "temperature")
    bias = Component(Setting, "bias")
    flow = Component(Setting, "flow")
    strain = Component(Setting, "strain")
    rows = Component(Setting, "rows")
    columns = Component(Setting, "columns")
    blanked = Component(Setting, "blanked")
    acquire = Component(Setting, "acquire")
    abort = Component(EpicsSignal, "abort")
    count = Component(EpicsSignalRO, "count")
    measured = Component(EpicsSignalRO, "measured")
    pace = Component(Setting, "pace")
    jammed = Component(Setting, "jammed")
    haadf = Component(EpicsSignalRO, "haadf")


def microscope(prefix: str = "TEM:") -> Microscope:
    """The root of the tree."""
    return Microscope(prefix, name="tem")
