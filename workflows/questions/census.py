"""Wires the defect census: forward model from the simulator, features, objective, and what its policy may know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from instruments import Capabilities, Coherence, Frame, Optics
from orchestrator.errors import SpecError
from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.lattice_model import PrimitiveCell
from orchestrator.features.sites import LatticeHint, LatticeSites
from orchestrator.features.survey import Survey
from orchestrator.objectives.defect_census import CensusOptions, DefectCensus, LatticeGeometry
from orchestrator.objectives.objective import Objective
from orchestrator.spec import ExperimentSpec
from orchestrator.spec_file import fault_lines
from policies import Context, Cost
from simulation.detectability import information_per_dose
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import read_structure
from workflows.questions.census_truth import judge_calls
from workflows.questions.costs import CostForecast
from workflows.questions.measured import measured_images
from workflows.questions.question import Question, Setting

MAX_AREA_NM2 = 4e6


def census_options(spec: ExperimentSpec) -> CensusOptions:
    """The objective's options, checked. Raises SpecError."""
    try:
        options = CensusOptions.model_validate(spec.objective.options)
    except ValidationError as error:
        raise SpecError("objective.options: " + "; ".join(fault_lines(error))) from error
    unknown = (set(options.determinable) | set(options.prior_density_per_nm2)) ^ set(spec.specimen.defects)
    missing = set(spec.specimen.defects) - set(options.prior_density_per_nm2)
    if missing:
        raise SpecError(
            f"objective.options.prior_density_per_nm2: no guess for {', '.join(sorted(missing))}; add one (1/nm2)"
        )
    if not set(options.determinable) <= set(spec.specimen.defects) or unknown - set(spec.specimen.defects):
        raise SpecError(
            f"objective.options names species that specimen.defects does not: {', '.join(sorted(unknown))}; "
            f"known: {', '.join(spec.specimen.defects)}"
        )
    return options


def lattice_images(
    spec: ExperimentSpec, capabilities: Capabilities, phonon_count: int, cache_folder: Path | None
) -> LatticeImages:
    """The forward model of the specimen believed, at the optics believed."""
    if spec.specimen.structure is None or not spec.specimen.defects:
        raise SpecError("objective defect_census needs specimen.structure and specimen.defects; add them")
    ranges = {
        (detector.inner_mrad, detector.outer_mrad)
        for mode in capabilities.modes
        for detector in mode.detectors
        if detector.inner_mrad is not None and detector.outer_mrad is not None
    }
    return LatticeImages.from_structure(
        read_structure(spec.specimen.structure),
        {name: Defect(column=change.column, becomes=change.becomes) for name, change in spec.specimen.defects.items()},
        beam_energy_ev=spec.instrument.optics.beam_energy_ev,
        semi_convergence_angle_mrad=spec.instrument.optics.semi_convergence_angle_mrad,
        detector_ranges_mrad=sorted(ranges),
        rms_displacement_nm=spec.specimen.rms_displacement_nm,
        phonon_count=phonon_count,
        cache_folder=cache_folder,
    )


def believed_coherence(spec: ExperimentSpec, probe_current_pa: float) -> Coherence:
    """Source size grows with the square root of the current (assumption of the spec), focal spread as given."""
    nominal = spec.instrument.optics
    return Coherence(
        source_size_nm=nominal.source_size_nm * sqrt(probe_current_pa / nominal.source_current_pa),
        focal_spread_nm=nominal.focal_spread_nm,
    )


class Information:
    """d'^2 per e/A2 of all detectors of a mode together, between two species, at the believed optics."""

    def __init__(self, spec: ExperimentSpec, capabilities: Capabilities, images: LatticeImages) -> None:
        self._spec = spec
        self._capabilities = capabilities
        self._images = images
        self._known: dict[tuple[Any, ...], float] = {}

    def __call__(self, species_a: str, species_b: str | None, mode: str, point: Mapping[str, Any]) -> float:
        """The forward model of `policies.Context.information`; defocus counts from the best focus."""
        current_pa = float(point.get("probe_current_pa", self._spec.instrument.optics.source_current_pa))
        key = (species_a, species_b, mode, round(current_pa, 1))
        if key not in self._known:
            nominal = self._spec.instrument.optics
            optics = Optics(
                beam_energy_ev=nominal.beam_energy_ev,
                semi_convergence_angle_mrad=nominal.semi_convergence_angle_mrad,
                probe_current_pa=current_pa,
                aberrations=nominal.aberrations,
            )
            found = self._capabilities.mode(mode)
            self._known[key] = sum(
                information_per_dose(
                    self._images, species_a, species_b, detector.inner_mrad, detector.outer_mrad,
                    optics, believed_coherence(self._spec, current_pa),
                )
                for detector in (found.detectors if found else ())
                if detector.inner_mrad is not None and detector.outer_mrad is not None
            )  # fmt: skip
        return self._known[key]


@dataclass
class CensusExtraction:
    """Survey frames to clean maps, all others to site evidence; the latest good lattice helps small frames."""

    sites: LatticeSites
    survey: Survey
    hint: LatticeHint | None = field(default=None)

    def extract(self, frame: Frame) -> FeatureSet:
        """Features of one frame."""
        if frame.requested.purpose == "survey":
            return self.survey.extract(frame)
        features = self.sites.extract(frame, hint=self.hint)
        self.remember(features)
        return features

    def remember(self, features: FeatureSet) -> None:
        """Keep the lattice of a frame as the hint for the next."""
        if features.extractor != "survey":
            self.hint = LatticeHint.from_features(features) or self.hint


def lattice_geometry(images: LatticeImages) -> LatticeGeometry:
    """Distinct columns with their places in the primitive cell, in the basis the features report."""
    cell = PrimitiveCell.of(images)
    return LatticeGeometry(tuple(cell.column_names), np.asarray(cell.fractions), 1.0 / cell.area_nm2)


def bounds_of(spec: ExperimentSpec) -> tuple[float, float, float, float]:
    """(x low, x high, y low, y high) of the search space, nm. Raises SpecError for one without, or too wide to map."""
    try:
        x_low, x_high, y_low, y_high = (
            float(spec.search_space[axis][end]) for axis in ("x_nm", "y_nm") for end in ("low", "high")
        )
    except KeyError as error:
        raise SpecError(f"search_space lacks {error}; the census needs x_nm and y_nm with low and high") from error
    if (area_nm2 := (x_high - x_low) * (y_high - y_low)) > MAX_AREA_NM2:
        raise SpecError(
            f"search_space: {x_high - x_low:g} x {y_high - y_low:g} nm are {area_nm2:.3g} nm2; the census maps at most "
            f"{MAX_AREA_NM2:.3g} nm2 in cells of 1 nm2; narrow x_nm or y_nm"
        )
    return x_low, x_high, y_low, y_high


def build_census(setting: Setting) -> Question:
    """The question `defect_census` of a spec."""
    spec, capabilities = setting.spec, setting.capabilities
    options = census_options(spec)
    images = lattice_images(spec, capabilities, options.phonon_count, setting.cache_folder)
    species = tuple(spec.specimen.defects)
    columns = {name: change.column for name, change in spec.specimen.defects.items()}
    geometry = lattice_geometry(images)
    objective = DefectCensus(options, species, tuple(columns[name] for name in species), geometry, bounds_of(spec))
    budget = spec.budget
    context = Context(
        budget=Cost(electrons=budget.electrons or 1e18, seconds=budget.instrument_time_s or 1e7),
        local_dose_limit_e_per_a2=spec.safety.max_dose_e_per_a2,
        cost=CostForecast(spec, capabilities),
        information=Information(spec, capabilities, images),
        species=species,
        prior_density_per_nm2=options.prior_density_per_nm2,
        species_column=columns,
        wanted_species=options.determinable,
        site_density_per_nm2=dict.fromkeys(geometry.column_names, geometry.sites_per_nm2),
        modes=tuple(mode.name for mode in capabilities.modes),
        false_discovery_rate=options.false_discovery_rate,
    )

    def answer(answered: Objective) -> tuple[dict[str, np.ndarray], str | None]:
        census = cast("DefectCensus", answered)
        return census.calls(), census.first_action_id

    def judge(given: tuple[dict[str, np.ndarray], str | None], truth: Mapping[str, Any]) -> dict[str, Any]:
        calls, first_action_id = given
        return judge_calls(calls, truth, species, options.determinable, first_action_id)

    extraction = CensusExtraction(LatticeSites(images, species), Survey(images))
    return Question(
        objective,
        extraction,
        context,
        answer,
        judge,
        prepare=lambda: images.prepare(worker_count=os.cpu_count() or 1),
        on_measured=measured_images,
    )
