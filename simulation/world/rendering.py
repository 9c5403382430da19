"""Counts of an exposed frame, made from what is kept of its exposure; any number of times, always the same."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame
from instruments.optics import Optics
from simulation.lattice_images import Defect, LatticeImages
from simulation.noise import count_electrons, poisson_electrons
from simulation.world.at_once import ParallelBeam, View
from simulation.world.clock import Situation
from simulation.world.contamination import film_fraction_per_nm
from simulation.world.crystal import Site
from simulation.world.focus_bands import BLURRED_NM, bands
from simulation.world.frame_images import Grid, ImageMaker, Imaging, with_afterglow
from simulation.world.randomness import Purpose, generator
from simulation.world.specimen import World
from simulation.world.tilt import Tilt

_DEFOCUS_STEP_NM = 0.5
_PATCH_REACH_NM = 3.0
_TILTS_KEPT = 4
_AT_ONCE_KEPT = 4


@dataclass(frozen=True, slots=True)
class Exposure:
    """All that is needed to make one exposed frame again."""

    command: AcquireFrame
    started_s: float
    situation: Situation  # settled, just before the beam came on
    ended_s: float
    births_before_count: int
    births_after_count: int
    true_electrons: tuple[float, ...]  # of each sub-frame, flyback included
    settling_electrons: float
    reading_factor: float  # current read back over true current

    @property
    def subframe_s(self) -> float:
        """Duration of one sub-frame, flyback and waiting for the mains included."""
        return self.command.scan.duration_s() + self.situation.fittings.waiting_s(self.command.scan)

    def start_s(self, subframe: int, settle_s: float) -> float:
        """When a sub-frame's first pixel begins."""
        return self.situation.time_s + settle_s + subframe * self.subframe_s


@dataclass
class Renderer:
    """Makes counts; holds nothing but images kept for speed."""

    world: World
    card: Capabilities
    _makers: OrderedDict[Tilt, ImageMaker] = field(default_factory=OrderedDict[Tilt, ImageMaker])
    _at_once: OrderedDict[tuple[str, int], np.ndarray] = field(default_factory=OrderedDict[tuple[str, int], np.ndarray])
    _film_fractions: dict[tuple[float, float, float], float] = field(
        default_factory=dict[tuple[float, float, float], float]
    )

    def prepare(self, worker_count: int = 1) -> None:
        """Compute, or read from the cache folder, all images of the lattice now instead of when first needed."""
        self._images.prepare(worker_count=worker_count)

    @cached_property
    def _images(self) -> LatticeImages:
        config = self.world.config
        return LatticeImages.from_structure(
            self.world.atoms,
            {name: Defect(defect.column, defect.becomes) for name, defect in config.defects.items()},
            beam_energy_ev=config.beam_energy_ev,
            semi_convergence_angle_mrad=config.semi_convergence_angle_mrad,
            detector_ranges_mrad=self._ranges_mrad,
            rms_displacement_nm=config.rms_displacement_nm,
            phonon_count=config.phonon_count,
            cache_folder=config.cache_folder,
        )

    def _maker(self, tilt: Tilt) -> ImageMaker:
        """Of the lattice as it leans; a few are kept, for the matrices of each take a second or more."""
        maker = self._makers.get(tilt)
        if maker is None:
            maker = self._makers[tilt] = self._made(tilt)
            while len(self._makers) > _TILTS_KEPT:
                self._makers.popitem(last=False)
        return maker

    def _made(self, tilt: Tilt) -> ImageMaker:
        crystal, images = self.world.crystal, self._images
        return ImageMaker(
            images if tilt.is_upright else images.of_lattice(tilt.lattice(images.lattice)),
            self.world.landscape,
            (crystal.origin_x_nm, crystal.origin_y_nm),
            self.world.config.contamination_contrast_nm,
            (crystal.cell_width_nm, crystal.cell_height_nm),
        )

    @property
    def _ranges_mrad(self) -> list[tuple[float, float]]:
        return [
            (detector.inner_mrad or 0.0, detector.outer_mrad or 0.0)
            for mode in self.card.modes
            if not mode.is_at_once
            for detector in mode.detectors
        ]

    def _film_fraction(self, imaging: Imaging) -> float:
        optics = imaging.optics
        key = (optics.semi_convergence_angle_mrad, imaging.inner_mrad, imaging.outer_mrad)
        if key not in self._film_fractions:
            self._film_fractions[key] = film_fraction_per_nm(optics.beam_energy_ev, *key)
        return self._film_fractions[key]

    def counts(self, exposure: Exposure, mode: Mode) -> dict[str, np.ndarray]:
        """(sub-frames, rows, columns) counts by detector, uint16; uint32 of one that amplifies or has an offset."""
        if mode.is_at_once:
            return self._counts_at_once(exposure, mode)
        command, ordinal = exposure.command, exposure.situation.ordinal
        stacks: dict[str, list[np.ndarray]] = {detector.name: [] for detector in mode.detectors}
        share = command.scan.beam_on_s() / command.scan.duration_s()
        pixels = command.scan.shape_px[0] * command.scan.shape_px[1]
        efficiency = self.world.config.quantum_efficiency
        for subframe, amount in enumerate(exposure.true_electrons):
            dose_e_per_px = amount * share / pixels * efficiency
            for number, (name, image) in enumerate(self.noiseless(exposure, subframe, mode).items()):
                rng = generator(self.world.config.seed, Purpose.SHOT_NOISE, ordinal, subframe, number)
                electrons = count_electrons(image, dose_e_per_px, rng)
                stacks[name].append(exposure.situation.fittings.counted(name, electrons))
        return {name: np.stack(stack) for name, stack in stacks.items()}

    def noiseless(self, exposure: Exposure, subframe: int, mode: Mode) -> dict[str, np.ndarray]:
        """Expected images of a sub-frame by detector, fraction of the beam, afterglow included.

        Of an exposure at once fractions of all electrons on the lit disc.
        """
        command, config = exposure.command, self.world.config
        if mode.is_at_once:
            expected = self._expected_at_once(exposure, subframe, mode)
            return {detector.name: expected for detector in mode.detectors}
        grid = self._grid(exposure, subframe)
        film = self._maker(grid.tilt).film_nm(grid)
        defects = self._defects_in(grid, exposure, subframe)
        images: dict[str, np.ndarray] = {}
        for detector in mode.detectors:
            limits = (detector.inner_mrad or 0.0, detector.outer_mrad or 0.0)
            imaging = Imaging(*limits, self.true_optics(exposure), self.world.coherence(exposure.situation))
            image = self._image(imaging, grid, defects, film, exposure)
            images[detector.name] = with_afterglow(image, command.scan.dwell_time_us, config.afterglow_us)
        return images

    def _image(
        self,
        imaging: Imaging,
        grid: Grid,
        defects: list[tuple[str, float, float]],
        film: np.ndarray | None,
        exposure: Exposure,
    ) -> np.ndarray:
        """Without afterglow; where the specimen leans every part of it in its own focus."""
        maker, fraction = self._maker(grid.tilt), self._film_fraction(imaging)
        if grid.tilt.is_upright:
            is_blurred = exposure.situation.standing.z_nm != 0 and abs(imaging.optics.defocus_nm) >= BLURRED_NM
            return maker.image(imaging, grid, defects, film, fraction, is_blurred=is_blurred)
        image = np.zeros((len(grid.x_nm), grid.columns), np.float32)
        middle_nm = self._untilted_defocus_nm(exposure) - self.world.above_axis_nm
        for band in bands(middle_nm + grid.heights_nm()):
            optics = imaging.optics.model_copy(update={"defocus_nm": band.defocus_nm})
            image[band.place] += band.weights * maker.image(
                replace(imaging, optics=optics), grid.part(*band.place), defects,
                None if film is None else film[band.place], fraction, is_blurred=band.is_blurred,
            )  # fmt: skip
        return image

    def _grid(self, exposure: Exposure, subframe: int) -> Grid:
        scan, situation = exposure.command.scan, exposure.situation
        rows = scan.shape_px[0]
        start_s = exposure.start_s(subframe, self.card.blanker_settle_s)
        times_s = start_s + np.arange(rows) * (exposure.subframe_s / rows)
        drift_x, drift_y = self.world.drift.displacement_nm(situation, times_s)
        rng = generator(self.world.config.seed, Purpose.JITTER, situation.ordinal, subframe)
        jitter_nm = self.world.config.line_jitter_nm + situation.fittings.flow_jitter_nm()
        jitter = rng.standard_normal((2, rows)) * jitter_nm * max(1.0, 1.0 / scan.dwell_time_us)
        x_nm, y_nm = self.world.nominal_centre_nm(situation)
        hum_nm = situation.fittings.hum_nm(times_s)
        if situation.tilt.is_upright:
            return Grid.of(scan, x_nm + drift_x + jitter[0] + hum_nm, y_nm + drift_y + jitter[1])
        shift_x, shift_y = situation.beam_shift_nm
        across = Grid.of(scan, shift_x + jitter[0] + hum_nm, shift_y + jitter[1])
        stage, height_nm = situation.standing, self.world.height_nm(situation)
        return across.leaning(situation.tilt, height_nm, stage.x_nm + drift_x, stage.y_nm + drift_y)

    def _counts_at_once(self, exposure: Exposure, mode: Mode) -> dict[str, np.ndarray]:
        """Electrons on the camera, uint32, counted one by one."""
        config, situation = self.world.config, exposure.situation
        stacks: dict[str, list[np.ndarray]] = {detector.name: [] for detector in mode.detectors}
        for subframe, amount in enumerate(exposure.true_electrons):
            for number, (name, expected) in enumerate(self.noiseless(exposure, subframe, mode).items()):
                rng = generator(config.seed, Purpose.SHOT_NOISE, situation.ordinal, subframe, number)
                electrons = poisson_electrons(expected, amount * config.quantum_efficiency, rng)
                stacks[name].append(situation.fittings.counted(name, electrons.astype(np.uint32)))
        return {name: np.stack(stack) for name, stack in stacks.items()}

    def _expected_at_once(self, exposure: Exposure, subframe: int, mode: Mode) -> np.ndarray:
        """Computed in seconds, so the last few are kept."""
        key = (exposure.command.action_id, subframe)
        expected = self._at_once.get(key)
        if expected is None:
            view, fittings = self._view(exposure, subframe), exposure.situation.fittings
            expected = self._at_once[key] = self._parallel.expected(mode, exposure.command.scan, view, fittings)
            while len(self._at_once) > _AT_ONCE_KEPT:
                self._at_once.popitem(last=False)
        return expected

    @cached_property
    def _parallel(self) -> ParallelBeam:
        return ParallelBeam(self.world)

    def _view(self, exposure: Exposure, subframe: int) -> View:
        situation, half_s = exposure.situation, exposure.subframe_s / 2
        middle_s = exposure.start_s(subframe, self.card.blanker_settle_s) + half_s
        x_nm, y_nm = self.world.true_point_nm(situation, middle_s)
        ends = [self.world.true_point_nm(situation, middle_s + step_s) for step_s in (-half_s, half_s)]
        way_nm = (ends[1][0] - ends[0][0], ends[1][1] - ends[0][1])
        return View(
            x_nm=x_nm,
            y_nm=y_nm,
            way_nm=way_nm if situation.tilt.is_upright else situation.tilt.seen(*way_nm),
            tilt=situation.tilt,
            optics=self.true_optics(exposure),
            focal_spread_nm=self.world.beam.focal_spread_nm,
            contents=self._contents(exposure, subframe),
            keys=(situation.ordinal, subframe),
        )

    def _defects_in(self, grid: Grid, exposure: Exposure, subframe: int) -> list[tuple[str, float, float]]:
        x_low, x_high, y_low, y_high = grid.bounds(_PATCH_REACH_NM)
        contents = self._contents(exposure, subframe)
        placed = ((species, *self.world.crystal.position_nm(site)) for site, species in contents.items())
        return [item for item in placed if x_low <= item[1] <= x_high and y_low <= item[2] <= y_high]

    def _contents(self, exposure: Exposure, subframe: int) -> dict[Site, str]:
        """What stands in the columns that are not perfect when a sub-frame begins to show them."""
        contents = dict(self.world.columns.natives)
        births = self.world.columns.births
        for birth in births[: exposure.births_before_count]:
            contents[birth.site] = birth.species
        for birth in births[exposure.births_before_count : exposure.births_after_count]:
            if birth.subframe <= subframe:
                contents[birth.site] = birth.species
        return contents

    def true_optics(self, exposure: Exposure) -> Optics:
        """Commanded plus residual; total defocus to 0.5 nm, so that images can be kept; of the middle of the field.

        A specimen nearer to the gun is above the crossover of a probe, and below the plane that a camera sees sharp.
        """
        command, raised_nm = exposure.command, self.world.raised_nm(exposure.situation)
        defocus_nm = self._untilted_defocus_nm(exposure) + (-raised_nm if command.scan.at_once else raised_nm)
        return Optics(
            beam_energy_ev=self.world.config.beam_energy_ev,
            semi_convergence_angle_mrad=command.optics.semi_convergence_angle_mrad,
            tilt_x_mrad=command.optics.tilt_x_mrad,
            tilt_y_mrad=command.optics.tilt_y_mrad,
            defocus_nm=round(defocus_nm / _DEFOCUS_STEP_NM) * _DEFOCUS_STEP_NM,
            aberrations=self.world.beam.residual.plus(command.optics.aberrations),
        )

    def _untilted_defocus_nm(self, exposure: Exposure) -> float:
        """Of an upright specimen at height 0."""
        middle_s = (exposure.situation.time_s + exposure.ended_s) / 2
        return exposure.command.optics.defocus_nm + self.world.focus_error_nm(exposure.situation, middle_s)
