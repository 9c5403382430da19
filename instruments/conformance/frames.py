"""The exposures the kit makes, by name, from an instrument's own capabilities: nothing else of it exposes."""

from __future__ import annotations

from typing import Final, Literal, get_args

from instruments.capabilities import Axis, Capabilities
from instruments.commands import AcquireFrame
from instruments.conformance.conditions import Conditions
from instruments.optics import Optics
from instruments.scans import ScanPattern, StagePosition
from instruments.state import MicroscopeState

Shot = Literal[
    "still", "shift_x", "shift_y", "stage_still", "stage_x", "stage_y", "turned", "long", "stopped", "lost", "killed"
]
SHOTS: Final[tuple[Shot, ...]] = get_args(Shot)
TOGETHER: Final[tuple[tuple[Shot, ...], ...]] = (
    ("shift_x", "shift_y", "still"),
    ("stage_x", "stage_y", "stage_still"),
)  # images that are compared follow each other, so that drift has little time; the last of them goes home
TURN_DEG: Final = 90.0  # of the scan: whole pixels fall on whole pixels
LONGER: Final = 4  # dwell of `long` over that of `still`
_FIELD_NM: Final = 100.0
_DWELL_US: Final = 4.0
_MAX_SUBFRAMES: Final = 64
_STOPPED_OVER_BROKEN: Final = 8  # an exposure whose line breaks is shorter than one that is stopped


class Shots:
    """Commands of each shot for one instrument; every call of `command` has an action id never used before."""

    def __init__(self, capabilities: Capabilities, state: MicroscopeState, conditions: Conditions, run_id: str) -> None:
        self._capabilities = capabilities
        self._conditions = conditions
        self._state = state
        self._run_id = run_id
        self._count = 0

    @property
    def move_nm(self) -> float:
        """How far the moved frames lie from the still ones: whole pixels.

        A lattice that is finer than they are is then sampled at the same points: its fringes move as all else does.
        """
        scan = self._scan()
        reach = [axis for name in ("beam_shift_x_nm", "beam_shift_y_nm") if (axis := self._capabilities.axis(name))]
        wanted = self._conditions.move_fraction * scan.field_of_view_nm
        far_nm = min([wanted, *(axis.maximum for axis in reach if axis.maximum > 0)])
        whole_px = int(far_nm / scan.pixel_size_nm * (1 + 1e-9))
        return whole_px * scan.pixel_size_nm if whole_px else far_nm

    def makes(self, shot: Shot) -> bool:
        """Whether this instrument is asked for it: nobody turns a scan that cannot be turned."""
        axis, mode = self._capabilities.axis("rotation_deg"), self._capabilities.mode(self._mode_name)
        is_scanned = mode is not None and not mode.is_at_once
        return shot != "turned" or (is_scanned and axis is not None and axis.minimum <= TURN_DEG <= axis.maximum)

    def action_id(self) -> str:
        """One that no instrument has seen."""
        self._count += 1
        return f"conform-{self._run_id}-{self._count}"

    def command(self, shot: Shot) -> AcquireFrame:
        """The exposure of that name, self-contained."""
        conditions, move_nm = self._conditions, self.move_nm
        scan, stage, subframes = self._scan(), self._stage(), self._subframes(conditions.subframe_count)
        match shot:
            case "still" | "stage_still":
                pass
            case "shift_x":
                scan = scan.model_copy(update={"beam_shift_x_nm": move_nm})
            case "shift_y":
                scan = scan.model_copy(update={"beam_shift_y_nm": move_nm})
            case "stage_x":
                stage = stage.model_copy(update={"x_nm": stage.x_nm + move_nm})
            case "stage_y":
                stage = stage.model_copy(update={"y_nm": stage.y_nm + move_nm})
            case "turned":
                scan = scan.model_copy(update={"rotation_deg": TURN_DEG})
            case "long":
                scan = scan.model_copy(update={"dwell_time_us": scan.dwell_time_us * LONGER})
            case "lost" | "killed":
                scan, subframes = self._lasting(scan, conditions.stop_exposure_s / _STOPPED_OVER_BROKEN)
            case "stopped":
                scan, subframes = self._lasting(scan, conditions.stop_exposure_s)
        exposure_s = scan.duration_s(subframes)
        return AcquireFrame(
            action_id=self.action_id(),
            deadline_s=2 * exposure_s + conditions.patience_s,
            stage=stage,
            optics=self._optics(),
            scan=scan,
            mode=self._mode_name,
            subframe_count=subframes,
            purpose="conformance",
        )

    @property
    def _mode_name(self) -> str:
        first = next((mode.name for mode in self._capabilities.modes), "no-mode")  # then every frame is refused
        return self._conditions.mode or first

    def _optics(self) -> Optics:
        mode, current_pa = self._capabilities.mode(self._mode_name), self._conditions.probe_current_pa
        changes: dict[str, float | None] = {"camera_length_mm": mode.camera_length_mm if mode else None}
        if current_pa is not None:
            changes["probe_current_pa"] = current_pa
        return self._state.optics.model_copy(update=changes)

    def _stage(self) -> StagePosition:
        now, conditions = self._state.stage, self._conditions
        x_nm = now.x_nm if conditions.stage_x_nm is None else conditions.stage_x_nm
        y_nm = now.y_nm if conditions.stage_y_nm is None else conditions.stage_y_nm
        return now.model_copy(update={"x_nm": x_nm, "y_nm": y_nm})

    def _scan(self) -> ScanPattern:
        rows, columns = self._conditions.shape_px
        mode = self._capabilities.mode(self._mode_name)
        return ScanPattern(
            field_of_view_nm=self._field_nm(columns),
            shape_px=(rows, columns),
            dwell_time_us=self._dwell_us(),
            flyback_time_us=_nearest(self._capabilities.axis("flyback_time_us"), 0.0),
            at_once=mode is not None and mode.is_at_once,
        )

    def _field_nm(self, columns: int) -> float:
        if self._conditions.field_of_view_nm is not None:
            return self._conditions.field_of_view_nm
        wanted_nm = _nearest(self._capabilities.axis("field_of_view_nm"), _FIELD_NM)
        pixel_nm = _nearest(self._capabilities.axis("pixel_size_nm"), wanted_nm / columns)
        return pixel_nm * columns

    def _dwell_us(self) -> float:
        """Short enough for one `LONGER` times as long."""
        if self._conditions.dwell_time_us is not None:
            return self._conditions.dwell_time_us
        axis = self._capabilities.axis("dwell_time_us")
        wanted_us = _nearest(axis, _DWELL_US)
        return min(wanted_us, axis.maximum / LONGER) if axis and axis.maximum > axis.minimum * LONGER else wanted_us

    def _lasting(self, scan: ScanPattern, exposure_s: float) -> tuple[ScanPattern, int]:
        """The scan, and how many of it, that take so long together, as far as the instrument goes."""
        pixels = 1 if scan.at_once else scan.shape_px[0] * scan.shape_px[1]
        dwell_us = _nearest(self._capabilities.axis("dwell_time_us"), exposure_s * 1e6 / pixels)
        scan = scan.model_copy(update={"dwell_time_us": dwell_us})
        return scan, self._subframes(max(1, round(exposure_s / scan.duration_s())))

    def _subframes(self, count: int) -> int:
        if not self._capabilities.subframes:
            return 1
        return min(_MAX_SUBFRAMES, int(_nearest(self._capabilities.axis("subframe_count"), count)))


def _nearest(axis: Axis | None, wanted: float) -> float:
    """`wanted`, or what is nearest to it of what the axis can."""
    return wanted if axis is None else min(max(wanted, axis.minimum), axis.maximum)
