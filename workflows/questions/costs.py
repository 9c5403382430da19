"""What a point will cost, forecast from the capabilities the instrument declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instruments import Capabilities
from instruments.guards import worst_charge
from orchestrator.mapping import command_for
from orchestrator.spec import ExperimentSpec
from policies import Cost

_MOVES = (
    ("stage_x_nm", lambda command: command.stage.x_nm),
    ("stage_y_nm", lambda command: command.stage.y_nm),
    ("beam_shift_x_nm", lambda command: command.scan.beam_shift_x_nm),
    ("beam_shift_y_nm", lambda command: command.scan.beam_shift_y_nm),
    ("probe_current_pa", lambda command: command.optics.probe_current_pa),
    ("camera_length_mm", lambda command: command.optics.camera_length_mm),
    ("defocus_nm", lambda command: command.optics.defocus_nm),
)


class CostForecast:
    """Electrons and seconds of a point after another.

    What changes settles one after another: the slower stage axis, the slower beam-shift axis, camera length, current,
    defocus. How far a stage goes is not counted.
    """

    def __init__(self, spec: ExperimentSpec, capabilities: Capabilities) -> None:
        self._spec = spec
        self._capabilities = capabilities
        self._settle_s = {
            f"stage_{axis.name}" if axis.frame == "stage" else axis.name: axis.settle_s for axis in capabilities.axes
        }

    def __call__(self, point: Mapping[str, Any], previous_point: Mapping[str, Any] | None) -> Cost:
        """Forecast for `point` when the instrument stands at `previous_point` (None: as it was opened)."""
        command = command_for(point, self._spec, self._capabilities, "forecast")
        seconds = self._capabilities.blanker_settle_s + command.scan.duration_s(command.subframe_count)
        if previous_point is not None:
            before = command_for(previous_point, self._spec, self._capabilities, "forecast")
            changed = {name for name, read in _MOVES if read(command) != read(before)}
            settle_s = {name: self._settle_s.get(name, 0.0) for name in changed}
            for place in ("stage", "beam_shift"):
                seconds += max((settle_s.pop(name) for name in changed if name.startswith(place)), default=0.0)
            seconds += sum(settle_s[name] for name, _ in _MOVES if name in settle_s)
        return Cost(electrons=worst_charge(command, self._capabilities).electrons, seconds=seconds)
