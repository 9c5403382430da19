"""The hidden specimen put together: lattice, natives, contamination, optics, drift and damage of one configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, radians, sin

import numpy as np

from instruments.commands import AcquireFrame
from instruments.errors import ConfigurationError
from instruments.optics import Coherence
from instruments.units import ANGSTROM2_PER_NM2
from simulation.errors import InvalidSpecimen
from simulation.specimens import orthogonal_cell, read_structure
from simulation.world.beam import Beam
from simulation.world.clock import Drift, Situation
from simulation.world.config import SimulatedConfig
from simulation.world.cross_sections import loss_barn
from simulation.world.crystal import Crystal
from simulation.world.damage import Columns, LitDisc, Raster
from simulation.world.defect_field import DefectField, draw_natives
from simulation.world.landscape import Landscape
from simulation.world.randomness import Purpose, generator


@dataclass
class World:
    """Everything hidden. Only `columns` and `exposed` change, and only by exposing."""

    config: SimulatedConfig
    atoms: object  # the orthogonal cell, ase.Atoms
    crystal: Crystal
    density: DefectField
    landscape: Landscape
    beam: Beam
    drift: Drift
    columns: Columns
    barn_by_symbol: dict[str, float]
    above_axis_nm: float  # the sheet over the tilt axis, the stage at height 0
    exposed: list[tuple[Raster | LitDisc | tuple[float, float], float]] = field(
        default_factory=list[tuple[Raster | LitDisc | tuple[float, float], float]]
    )

    @classmethod
    def build(cls, config: SimulatedConfig) -> World:
        """The world of a configuration. Raises ConfigurationError if the structure does not fit it."""
        try:
            atoms = orthogonal_cell(read_structure(config.structure))
            crystal = Crystal.of(atoms, generator(config.hidden_seed, Purpose.LATTICE))
        except InvalidSpecimen as error:
            raise ConfigurationError(f"structure: {error}") from error
        _check_columns(config, crystal)
        density = DefectField.draw(config)
        symbols = {symbol for column in crystal.columns for symbol in column.symbols}
        barns = {symbol: loss_barn(config, symbol) for symbol in sorted(symbols)}
        columns = Columns(
            crystal=crystal,
            contents={name: defect.becomes for name, defect in config.defects.items()},
            columns_of={name: defect.column for name, defect in config.defects.items()},
            natives=draw_natives(config, crystal, density),
            barn_by_symbol=barns,
            neighbour_factor=config.vacancy_neighbour_factor,
        )
        return cls(
            config,
            atoms,
            crystal,
            density,
            Landscape.draw(config),
            Beam.draw(config),
            Drift.draw(config),
            columns,
            barns,
            float(generator(config.hidden_seed, Purpose.EUCENTRIC).uniform(-1, 1)) * config.eucentric_error_nm,
        )

    def coherence(self, situation: Situation) -> Coherence:
        """Of the beam as it stands."""
        found = self.beam.coherence(situation.current_pa)
        factor = situation.fittings.source_factor()
        return found if factor == 1 else found.model_copy(update={"source_size_nm": found.source_size_nm * factor})

    def focus_error_nm(self, situation: Situation, time_s: float) -> float:
        """True minus commanded defocus: hidden offset, drift and the jumps of current changes."""
        drift_nm = float(self.beam.focus_wander.at(time_s))
        return self.beam.focus_offset_nm + drift_nm + situation.focus_jump_nm

    def nominal_centre_nm(self, situation: Situation) -> tuple[float, float]:
        """Stage plus beam shift."""
        return (
            situation.standing.x_nm + situation.beam_shift_nm[0],
            situation.standing.y_nm + situation.beam_shift_nm[1],
        )

    def true_point_nm(
        self, situation: Situation, time_s: float, dx_nm: float = 0, dy_nm: float = 0
    ) -> tuple[float, float]:
        """Point of the specimen under the beam, offset from the nominal centre by (dx, dy), at a time."""
        drift_x, drift_y = self.drift.displacement_nm(situation, time_s)
        tilt, shift_nm, stage = situation.tilt, situation.beam_shift_nm, situation.standing
        if tilt.is_upright:
            x_nm, y_nm = self.nominal_centre_nm(situation)
            return x_nm + dx_nm + float(drift_x), y_nm + dy_nm + float(drift_y)
        u_nm, v_nm = tilt.on_sheet(shift_nm[0] + dx_nm, shift_nm[1] + dy_nm, self.height_nm(situation))
        return stage.x_nm + u_nm + float(drift_x), stage.y_nm + v_nm + float(drift_y)

    def height_nm(self, situation: Situation) -> float:
        """Of the sheet over the tilt axis, before tilting."""
        return self.above_axis_nm + situation.standing.z_nm

    def raised_nm(self, situation: Situation) -> float:
        """How much nearer to the gun the middle of the field is than with an upright stage at height 0."""
        tilt, height_nm = situation.tilt, self.height_nm(situation)
        if tilt.is_upright:
            return situation.standing.z_nm
        return tilt.raised_nm(*tilt.on_sheet(*situation.beam_shift_nm, height_nm), height_nm) - self.above_axis_nm

    def expose_subframe(
        self, situation: Situation, command: AcquireFrame, electrons: float, middle_s: float, end_s: float,
        subframe: int, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """One sub-frame's electrons over its true raster; what leaves shows from `subframe` on."""
        scan = command.scan
        x_nm, y_nm = self.true_point_nm(situation, middle_s)
        if scan.at_once:
            disc = LitDisc(x_nm, y_nm, situation.fittings.lit_nm(), situation.tilt)
            for strip in disc.rasters(electrons):
                self.columns.expose_raster(strip, end_s, command.action_id, subframe, rng)
            self.exposed.append((disc, electrons))
            return
        flux = electrons / (scan.area_nm2 * ANGSTROM2_PER_NM2)
        sides = (scan.field_of_view_nm, scan.height_nm, scan.rotation_deg)
        raster = Raster(x_nm, y_nm, *(sides if situation.tilt.is_upright else situation.tilt.rectangle(*sides)), flux)
        self.columns.expose_raster(raster, end_s, command.action_id, subframe, rng)
        self.exposed.append((raster, electrons))

    def expose_first_pixel(
        self, situation: Situation, command: AcquireFrame, electrons: float, time_s: float, rng: np.random.Generator
    ) -> None:
        """The electrons that fall on the first pixel while the blanker settles."""
        scan = command.scan
        c, s = cos(radians(scan.rotation_deg)), sin(radians(scan.rotation_deg))
        u, v = (scan.pixel_size_nm - scan.field_of_view_nm) / 2, (scan.pixel_size_nm - scan.height_nm) / 2
        x_nm, y_nm = self.true_point_nm(situation, time_s, c * u - s * v, s * u + c * v)
        self.expose_point(x_nm, y_nm, electrons, time_s, command.action_id, rng)

    def expose_point(
        self, x_nm: float, y_nm: float, electrons: float, time_s: float, action_id: str, rng: np.random.Generator
    ) -> None:
        """A resting beam; what leaves shows from the first sub-frame on."""
        if electrons > 0:
            self.columns.expose_spot(x_nm, y_nm, electrons, time_s, action_id, 0, rng)
            self.exposed.append(((x_nm, y_nm), electrons))


def _check_columns(config: SimulatedConfig, crystal: Crystal) -> None:
    known = sorted({column.name for column in crystal.columns})
    for name, defect in config.defects.items():
        if defect.column not in known:
            raise ConfigurationError(
                f"defects.{name}.column = {defect.column!r}: the structure has {', '.join(known)}; name one"
            )
