"""Recorded images as an instrument: of a maker's file, or all frames of an experiment of ours, where they were taken.

What was recorded is all there is. A frame asks for a place, a mode, a pixel size, a focus, a tilt; a recorded image
must have them all, or the frame is refused and the message says what there is. Exposure is a budget: see
`replay_raster`. Doses follow from the recorded (or declared) current. Everything is a pure function of (configuration,
commands). Neighbour: `replay`, which opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Event
from typing import Final
from zlib import crc32

import numpy as np

from instruments.adapters.clocks import CLOCKS
from instruments.adapters.replay_images_card import card_of
from instruments.adapters.replay_images_config import ReplayImagesConfig
from instruments.adapters.replay_raster import Place, Raster
from instruments.axes import axis_values
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import AcquisitionFailed, CommandRefused, ConfigurationError, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.optics import Optics
from instruments.readers.frame_files import read_experiment
from instruments.readers.recorded_images import RecordedImage, read_images
from instruments.scans import StagePosition
from instruments.state import MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons

KEPT_COUNT: Final = 32  # frames that are given again
_SAME_FRACTION: Final = 1e-3  # numbers that somebody rounded
_SIDE: Final = "pixel_size_nm (the side of the square that was lit)"
_UNKNOWN: Final = {
    "measured_current_pa": "a replay has no beam",
    "coherence": "the file does not say",
    "optics.semi_convergence_angle_mrad": "the file does not say; what is reported was commanded",
    CLOCKS: "a replay has no devices",
}


def open_images(config: ReplayImagesConfig) -> ReplayedImages:
    """The instrument. Raises ConfigurationError naming what the record lacks, and the key that supplies it."""
    if config.folder is not None:
        images = read_experiment(config.folder, config.experiment)
    elif config.file is not None:
        images = _chosen(read_images(config.file), config.image)
    else:
        raise ConfigurationError("give either `file`, or `folder` and `experiment`")
    return ReplayedImages(config, tuple(_complete(image, config) for image in images))


def _chosen(images: tuple[RecordedImage, ...], ending: str) -> tuple[RecordedImage, ...]:
    """The image whose name ends so; the only one where nothing is said, spectra beside it left out."""
    found = [image for image in images if image.name.endswith(ending)]
    if not ending and len(found) > 1:
        found = [image for image in found if not image.has_spectra] or found
    if len(found) != 1:
        names = ", ".join(image.name for image in images)
        raise ConfigurationError(f"`image` {ending!r} fits {len(found)} of {names}; name one of them")
    return tuple(found)


def _complete(image: RecordedImage, config: ReplayImagesConfig) -> Raster:
    values = {name: getattr(image, name) for name in ("pixel_size_nm", "dwell_time_us", "current_pa")}
    for name, told in values.items():
        said = getattr(config, name)
        if told is not None and said is not None and abs(said - told) > _SAME_FRACTION * told:
            raise ConfigurationError(f"{name} = {said:g} is configured, {image.name} says {told:g}; leave it out")
    known = {name: value if value is not None else getattr(config, name) for name, value in values.items()}
    if missing := [name for name, value in known.items() if value is None]:
        words = [_SIDE if name == "pixel_size_nm" and image.shape_px == (1, 1) else name for name in missing]
        hint = f" ({image.hint})" if image.hint else ""
        raise ConfigurationError(f"{image.name} does not say {', '.join(words)}; find out, and configure it{hint}")
    counted = image.counted
    if config.counted is not None:
        counted = frozenset(image.detectors) if config.counted else frozenset[str]()
    raster = Raster(image=image, counted=counted, **known)
    if config.counted:
        raster.refuse_impossible_counts()
    return raster


class ReplayedImages:
    """Microscope, Forecasting, Rebuildable and Releasable over recorded rasters."""

    def __init__(self, config: ReplayImagesConfig, rasters: tuple[Raster, ...]) -> None:
        self._config = config
        self._rasters = rasters
        self._capabilities = card_of(config, rasters)
        self._clock_s = 0.0
        self._stage = StagePosition(x_nm=rasters[0].image.centre_nm[0], y_nm=rasters[0].image.centre_nm[1])
        self._shift_nm = (0.0, 0.0)
        energy_ev = config.beam_energy_ev or rasters[0].image.beam_energy_ev or 200e3
        self._optics = Optics(
            beam_energy_ev=energy_ev, semi_convergence_angle_mrad=0.0, probe_current_pa=rasters[0].current_pa
        )
        self._mode: str | None = None
        self._is_blanked = True
        self._kept: dict[str, Frame] = {}
        self._exposed: set[str] = set()
        self._done: set[str] = set()
        self._stopped = Event()

    def capabilities(self) -> Capabilities:
        """Modes and places of the record, and what is odd about a replay."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Now; after a frame, where it was recorded."""
        return MicroscopeState(
            time_s=self._clock_s,
            stage=self._stage,
            beam_shift_x_nm=self._shift_nm[0],
            beam_shift_y_nm=self._shift_nm[1],
            optics=self._optics,
            mode=self._mode,
            beam_blanked=self._is_blanked or self._stopped.is_set(),
            undetermined=_UNKNOWN,
        )

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes: the clock follows, the record is not touched."""
        if not isinstance(command, Blank):
            self._refuse_after_stop()
        match command:
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
            case RunProcedure():
                raise Unsupported(f"a replay has no procedure {command.name!r}; it has none")
            case Park() | SetAxes():
                values = axis_values(command)
                self._capabilities.check_values(values)
                self._clock_s += command.duration_s if isinstance(command, Park) else 0.0
                self._move({name: float(value) for name, value in values.items()})
                self._done.add(command.action_id)
                return self.read_state().with_readings(values, self._capabilities)
            case Blank() | Unblank():
                self._is_blanked = isinstance(command, Blank)
        self._done.add(command.action_id)
        return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        """Read recorded pixels once, or give the frame of this action id again.

        Raises CommandRefused (nothing is spent) for what was not recorded, or was read before; InstrumentFault after a
        stop.
        """
        kept = self._kept.get(command.action_id)
        if kept is None:
            if command.action_id in self._exposed:
                raise AcquisitionFailed(f"action {command.action_id} was read long ago; give a new command a new id")
            self._refuse_after_stop()
            kept = self._expose(command)
        elif kept.requested != command:
            raise CommandRefused(f"action {command.action_id} was another command; give a new command a new action id")
        return kept

    def forecast(self, command: AcquireFrame) -> tuple[float, float]:
        """(electrons, seconds) now, settling included. Raises CommandRefused for what `acquire` would refuse."""
        raster, _ = self._found(command)
        duration_s = command.scan.duration_s(command.subframe_count)
        return electrons(raster.current_pa, duration_s), self._settling_s(_places(command)) + duration_s

    def outcome(self, action_id: str) -> Outcome:
        """A replay always knows; `unknown` only for a frame that it does not keep any more."""
        if action_id in self._kept or action_id in self._done:
            return "delivered"
        return "unknown" if action_id in self._exposed else "not_started"

    def stop(self) -> None:
        """Blank; nothing more is read until `release`."""
        self._stopped.set()

    def release(self) -> None:
        """Go on after `stop`, the beam blanked."""
        self._is_blanked = True
        self._stopped.clear()

    def rebuild(self, commands: Sequence[Command]) -> None:
        """Go through `commands` again; a refused one is refused again and changes nothing."""
        for command in commands:
            if self.outcome(command.action_id) != "not_started":
                continue
            try:
                if isinstance(command, AcquireFrame):
                    self._expose(command)
                else:
                    self.execute(command)
            except (CommandRefused, Unsupported):
                continue

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("the replay was stopped; release it, or open it again, to go on")

    def _expose(self, command: AcquireFrame) -> Frame:
        raster, place = self._found(command)
        started_s, shift = self._clock_s, command.scan
        self._move(_places(command))
        counts = raster.read(
            command, place, np.random.default_rng([self._config.seed, crc32(command.action_id.encode())])
        )
        self._clock_s += shift.duration_s(command.subframe_count)
        self._stage = command.stage.model_copy(
            update={"x_nm": place.x_nm - shift.beam_shift_x_nm, "y_nm": place.y_nm - shift.beam_shift_y_nm}
        )
        self._optics, self._mode, self._is_blanked = command.optics, command.mode, True
        self._exposed.add(command.action_id)
        frame = self._frame(command, raster, counts, started_s)
        self._kept[command.action_id] = frame
        if len(self._kept) > KEPT_COUNT:
            del self._kept[next(iter(self._kept))]
        return frame

    def _frame(self, command: AcquireFrame, raster: Raster, counts: dict[str, np.ndarray], started_s: float) -> Frame:
        mode = self._capabilities.mode(command.mode)
        assert mode is not None, "checked before it was exposed"
        spent = electrons(raster.current_pa, command.scan.duration_s(command.subframe_count))
        energies_ev = raster.image.energies_ev
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=self.read_state(),
            mode=mode,
            counts=counts,
            pixel_size_nm=raster.pixel_size_nm,
            dose_e_per_a2=spent / (command.scan.area_nm2 * ANGSTROM2_PER_NM2),
            electrons=spent,
            started_s=started_s,
            ended_s=self._clock_s,
            instrument=self._capabilities.name,
            simulated=raster.image.simulated,
            context={
                "is_replay": True,
                "is_simulation": raster.image.simulated,
                "replayed_image": raster.image.name,
                "placing": self._config.placing,
                "recorded_dwell_time_us": raster.dwell_time_us,
                "recorded_at_nm": list(raster.image.centre_nm),
                **({"energies_ev": dict(zip(("first", "step"), energies_ev, strict=True))} if energies_ev else {}),
                "values_zero_and_step": {name: list(scale) for name, scale in raster.scales.items()},
            },
        )

    def _move(self, values: dict[str, float]) -> None:
        self._clock_s += self._settling_s(values)
        x_nm, y_nm = self._shift_nm
        self._shift_nm = (values.get("beam_shift_x_nm", x_nm), values.get("beam_shift_y_nm", y_nm))
        stage = {name: value for name, value in values.items() if name in StagePosition.model_fields}
        self._stage = self._stage.model_copy(update=stage)

    def _settling_s(self, values: dict[str, float]) -> float:
        now = dict(self._stage) | dict(zip(("beam_shift_x_nm", "beam_shift_y_nm"), self._shift_nm, strict=True))
        return self._config.settle_s if any(now.get(name) != value for name, value in values.items()) else 0.0

    def _found(self, command: AcquireFrame) -> tuple[Raster, Place]:
        """The recorded image that has what is asked for, and the part of it. Raises CommandRefused."""
        if self._capabilities.mode(command.mode) is None:
            known = ", ".join(mode.name for mode in self._capabilities.modes)
            raise CommandRefused(f"mode {command.mode!r} was not recorded: {known}")
        if command.scan.at_once:
            raise CommandRefused("a record was scanned, not exposed at once; leave scan.at_once out")
        others = {name: value for name, value in command.optics.aberrations if name.startswith("c") and value}
        others |= {name: value for name in ("tilt_x_mrad", "tilt_y_mrad") if (value := getattr(command.optics, name))}
        if others:
            raise CommandRefused(f"{', '.join(others)}: a record cannot be tilted or corrected; leave them at 0")
        rasters = [raster for raster in self._rasters if raster.image.mode == command.mode]
        for words, tolerance, wanted, recorded in _CONDITIONS:
            rasters = _alike(rasters, words, tolerance, wanted(command), recorded)
        raster, place = self._placed(command, rasters)
        raster.check(command, place)
        return raster, place

    def _placed(self, command: AcquireFrame, rasters: list[Raster]) -> tuple[Raster, Place]:
        x_nm = command.stage.x_nm + command.scan.beam_shift_x_nm
        y_nm = command.stage.y_nm + command.scan.beam_shift_y_nm
        if self._config.placing == "nearest":
            alike = [raster for raster in rasters if raster.image.shape_px == command.scan.shape_px]
            near = sorted(alike, key=lambda raster: _distance_nm(raster, x_nm, y_nm))
            if near and _distance_nm(near[0], x_nm, y_nm) <= self._config.reach_nm:
                place = near[0].place(command, *near[0].image.centre_nm)
                assert place is not None, "the whole image"
                return near[0], place
            raise CommandRefused(_nothing(x_nm, y_nm, rasters, f"within {self._config.reach_nm:g} nm"))
        found = [(raster, place) for raster in rasters if (place := raster.place(command, x_nm, y_nm)) is not None]
        if not found:
            rows, columns = command.scan.shape_px
            raise CommandRefused(_nothing(x_nm, y_nm, rasters, f"with {rows} x {columns} px around it"))
        return max(found, key=lambda one: (one[0].short_us(one[1]), -_distance_nm(one[0], x_nm, y_nm)))


def _alike(
    rasters: list[Raster], words: str, tolerance: float, wanted: float, recorded: Callable[[Raster], float]
) -> list[Raster]:
    found = [raster for raster in rasters if abs(recorded(raster) - wanted) <= tolerance * max(1.0, abs(wanted))]
    if not found:
        there = _listed({recorded(raster) for raster in rasters})
        raise CommandRefused(f"{words} {wanted:g} was not recorded here; there is {there}")
    return found


_CONDITIONS: Final[tuple[tuple[str, float, Callable[[AcquireFrame], float], Callable[[Raster], float]], ...]] = (
    ("pixel_size_nm", 1e-4, lambda one: one.scan.pixel_size_nm, lambda one: one.pixel_size_nm),
    ("probe_current_pa", 1e-6, lambda one: one.optics.probe_current_pa, lambda one: one.current_pa),
    ("defocus_nm", 1e-6, lambda one: one.optics.defocus_nm, lambda one: one.image.defocus_nm),
    ("rotation_deg", 1e-6, lambda one: one.scan.rotation_deg, lambda one: one.image.rotation_deg),
    ("alpha_deg", 1e-2, lambda one: one.stage.alpha_deg, lambda one: one.image.tilt_deg[0]),
    ("beta_deg", 1e-2, lambda one: one.stage.beta_deg, lambda one: one.image.tilt_deg[1]),
    ("z_nm", 0.0, lambda one: one.stage.z_nm, lambda one: 0.0),
)


def _places(command: AcquireFrame) -> dict[str, float]:
    shift = {"beam_shift_x_nm": command.scan.beam_shift_x_nm, "beam_shift_y_nm": command.scan.beam_shift_y_nm}
    return dict(command.stage) | shift


def _distance_nm(raster: Raster, x_nm: float, y_nm: float) -> float:
    return float(np.hypot(raster.image.centre_nm[0] - x_nm, raster.image.centre_nm[1] - y_nm))


def _nothing(x_nm: float, y_nm: float, rasters: list[Raster], where: str) -> str:
    near = min(rasters, key=lambda raster: _distance_nm(raster, x_nm, y_nm))
    rows, columns = near.image.shape_px
    at_x_nm, at_y_nm = near.image.centre_nm
    return (
        f"nothing was recorded at ({x_nm:g}, {y_nm:g}) nm {where}; the nearest image of this kind has {rows} x "
        f"{columns} px of {near.pixel_size_nm:g} nm around ({at_x_nm:g}, {at_y_nm:g}) nm"
    )


def _listed(values: Iterable[float]) -> str:
    several = sorted(values)
    words = ", ".join(f"{value:g}" for value in several[:5])
    return words if len(several) <= 5 else f"{words} ... {several[-1]:g}"
