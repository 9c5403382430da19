"""Site-by-site evidence from a frame that resolves the lattice: extractor `lattice_sites`.

The order of work: `laying` (where the lattice lies, focus, what is clean) -> `templates` (what each site should look
like) -> `judgement` (log-likelihood ratios). Sites are predicted, not found: a column that is half missing is no
peak, so a search for peaks misses the very sites that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from instruments.frames import Frame
from instruments.optics import Coherence, Optics
from orchestrator.features.cell_fit import rotation_deg as crystal_rotation_deg
from orchestrator.features.detectors import believed, centre_nm, dark_field, electrons_per_px, ring_counts
from orchestrator.features.errors import UnknownSpecies
from orchestrator.features.evidence import Calibration, Exposure, Sites
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.features.forward import Forward
from orchestrator.features.judgement import Judgement, Thresholds, judge
from orchestrator.features.lattice import Periodicity, Picture
from orchestrator.features.lattice_model import LatticeModel
from orchestrator.features.laying import NAME, FrameView, Laid, LatticeHint, Laying, predicted_sites
from orchestrator.features.normalised import describe
from orchestrator.features.templates import ColumnTemplates, PatchGrid, change_patches, column_templates, host_patches

__all__ = ["LatticeHint", "LatticeSites"]

_USABLE = 0.9


class LatticeSites:
    """Extractor `lattice_sites`: for every predicted site, how much likelier each species is than the host.

    `model` is a forward model (LatticeModel); `species` fixes the order of all species axes. `coherence` is used
    where the microscope cannot tell its own. `radius_nm`: pixels that count for a site. `suspect_llr_threshold`: above
    it ratios are also given by sub-frame. `settled_llr_threshold`: above it a site's best species belongs to the
    surroundings of its neighbours. `near_rotation_deg`: of the equivalent orientations of the lattice the one nearest
    to it is reported, so that frames agree.

    The optics read back are only where the search for focus starts: the offset is fitted from the lattice within
    12 nm. Where the cell looks nearly the same on both sides of focus the sign of the offset is open.
    """

    def __init__(
        self,
        model: LatticeModel,
        species: Sequence[str],
        *,
        coherence: Callable[[Optics], Coherence] | None = None,
        radius_nm: float = 0.35,
        suspect_llr_threshold: float = 2.0,
        settled_llr_threshold: float = 6.0,
        margin_nm: float = 0.1,
        near_rotation_deg: float = 0.0,
    ) -> None:
        unknown = [name for name in species if name not in model.defects]
        if unknown or not species:
            raise UnknownSpecies(
                f"species {', '.join(unknown) or '(none given)'} not in the lattice model; choose from: "
                f"{', '.join(model.defects)}"
            )
        self._forward = Forward(model)
        self._laying = Laying(self._forward, near_rotation_deg)
        self.species = tuple(species)
        self.column_names = self._forward.cell.column_names
        self._species_column = [self.column_names.index(model.defects[name].column) for name in species]
        self._coherence = coherence
        self._near_rotation_deg = near_rotation_deg
        self._radius_nm = radius_nm
        self._thresholds = Thresholds(suspect_llr_threshold, settled_llr_threshold)
        self._margin_nm = margin_nm

    def extract(self, frame: Frame, hint: LatticeHint | None = None) -> FeatureSet:
        """Features of a frame; arrays have no sites (n = 0) where no lattice is found.

        A hint (the lattice of an earlier frame) lets frames below 5 nm refit only the origin, and keeps orientation
        and focus near for all. Raises NormalisedCounts where counts are not raw, FeatureError where no detector is
        annular. Arrays (n sites, D detectors, S species; NaN where a species does not belong to a column):
        site_x_nm, site_y_nm (n,) nominal specimen coordinates; site_column (n,); site_clean_probability (n,);
        llr (n, S); suspect (m,); suspect_llr_subframes (m, sub-frames, S), which add up to llr; amplitude and
        amplitude_std (n, D) electrons above the host column's; expected_amplitude (S, D) what a species should show
        there; expected_information (S,) mean llr under each species; pair_information (S, S) mean of
        log p(row)/p(column) under the row's species; lattice_origin_nm (2,), lattice_basis_nm (2, 2) columns.
        """
        view = self._view(frame)
        laid = self._laying.lay(view, hint)
        if isinstance(laid, Periodicity):
            return self._nothing(frame, view, laid)
        grid = PatchGrid.of(self._radius_nm, frame.pixel_size_nm)
        templates = self._templates(view, laid, grid)
        sites, probability = self._sites(view, laid)
        inside = (np.abs(sites.xy_nm) < view.half_nm - self._radius_nm - frame.pixel_size_nm).all(axis=1)
        judgement = judge(
            laid.exposures,
            self._subframes(view, laid),
            sites,
            probability,
            inside & (probability > _USABLE),
            templates,
            grid,
            self._thresholds,
        )
        arrays = self._where(frame, view, laid, sites, probability) | self._evidence(judgement)
        arrays |= self._information(templates, judgement.calibration, len(view.rings))
        values = self._values(view, laid, probability, judgement)
        return FeatureSet(extractor=NAME, action_id=frame.action_id, values=values, arrays=arrays)

    def describe_normalised(
        self, image: np.ndarray, pixel_size_nm: float, *, inner_mrad: float, outer_mrad: float, optics: Optics
    ) -> FeatureSet:
        """Lattice and column intensities of an image that is no longer counts: no probabilities, no species.

        Image (rows, columns) in any unit. See `normalised.describe` for the arrays and values.
        """
        source = self._coherence(optics) if self._coherence is not None else Coherence()
        return describe(
            self._forward, self._near_rotation_deg, image, pixel_size_nm, (inner_mrad, outer_mrad), optics, source
        )

    def _view(self, frame: Frame) -> FrameView:
        rings = ring_counts(frame)
        optics, coherence = believed(frame, self._coherence)
        pictures = [Picture(ring.counts.sum(axis=0, dtype=np.float32), frame.pixel_size_nm) for ring in rings]
        terms = self._forward.terms(rings, optics, coherence)
        rotation_deg = frame.requested.scan.rotation_deg
        return FrameView(rings, pictures, optics, coherence, terms, electrons_per_px(frame), rotation_deg)

    def _subframes(self, view: FrameView, laid: Laid) -> list[Exposure]:
        """Every sub-frame by itself."""
        count = len(view.rings[0].counts)
        moved = len(laid.exposures) == count
        return [
            Exposure(
                np.array([ring.counts[number] for ring in view.rings], dtype=np.float32),
                1 / count,
                laid.exposures[number].shift_nm if moved else np.zeros(2),
            )
            for number in range(count)
        ]

    def _templates(self, view: FrameView, laid: Laid, grid: PatchGrid) -> list[ColumnTemplates]:
        cell, fit = self._forward.cell, laid.fit
        g = view.terms.indices @ np.linalg.inv(fit.basis_nm)
        scan_to_crystal = cell.vectors_nm @ np.linalg.inv(fit.basis_nm)
        optics = view.defocused(fit.defocus_offset_nm)
        turn_deg = crystal_rotation_deg(fit.basis_nm, cell) + view.scan_rotation_deg
        found: list[ColumnTemplates] = []
        for fraction, column in zip(cell.fractions, cell.site_columns, strict=True):
            members = [number for number, owner in enumerate(self._species_column) if owner == column]
            place_nm = fit.basis_nm @ fraction
            host = np.array([host_patches(terms, g, place_nm, grid) for terms in laid.host_terms])
            change = np.zeros((len(view.rings), len(members), *host.shape[1:]))
            for d, ring in enumerate(view.rings):
                for local, number in enumerate(members):
                    name = self.species[number]
                    difference = self._forward.difference(name, ring, optics, view.coherence, turn_deg)
                    change[d, local] = fit.gain[d] * change_patches(difference, scan_to_crystal, fit.blur_nm, grid)
            found.append(column_templates(members, host, change, grid))
        return found

    def _sites(self, view: FrameView, laid: Laid) -> tuple[Sites, np.ndarray]:
        """Every site in the frame by its number in the primitive cell, and its clean probability."""
        xy_nm, number = predicted_sites(self._forward.cell, laid.fit, view.half_nm - self._margin_nm)
        probability, brightness = laid.at(view, xy_nm)
        return Sites(xy_nm, number, brightness), probability

    def _where(
        self, frame: Frame, view: FrameView, laid: Laid, sites: Sites, probability: np.ndarray
    ) -> dict[str, np.ndarray]:
        centre = centre_nm(frame)
        xy_nm = sites.xy_nm @ view.turn.T + centre
        return {
            "site_x_nm": xy_nm[:, 0],
            "site_y_nm": xy_nm[:, 1],
            "site_column": self._forward.cell.site_columns[sites.column].astype(np.int8),
            "site_clean_probability": probability.astype(np.float32),
            "lattice_origin_nm": view.turn @ laid.fit.origin_nm + centre,
            "lattice_basis_nm": view.turn @ laid.fit.basis_nm,
        }

    def _evidence(self, judgement: Judgement) -> dict[str, np.ndarray]:
        return {
            "llr": judgement.llr.astype(np.float32),
            "suspect": judgement.suspect.astype(np.int32),
            "suspect_llr_subframes": judgement.by_subframe.astype(np.float32),
            "amplitude": judgement.amplitude.astype(np.float32),
            "amplitude_std": judgement.amplitude_std.astype(np.float32),
        }

    def _information(
        self, templates: Sequence[ColumnTemplates], calibration: Calibration, detector_count: int
    ) -> dict[str, np.ndarray]:
        count = len(self.species)
        against_host = np.full(count, np.nan)
        pairs = np.full((count, count), np.nan)
        amplitude = np.full((count, detector_count), np.nan)
        for kind in templates:
            for local, number in enumerate(kind.species):
                factor = max(float(calibration.spread[number]), 1.0) ** 2
                against_host[number] = kind.information(local, None) / factor
                amplitude[number] = (kind.estimator * kind.change[:, local]).sum(axis=2).mean(axis=1)
                for other, other_number in enumerate(kind.species):
                    pairs[number, other_number] = kind.information(local, other) / factor
        return {
            "expected_information": against_host.astype(np.float32),
            "pair_information": pairs.astype(np.float32),
            "expected_amplitude": amplitude.astype(np.float32),
        }

    def _values(self, view: FrameView, laid: Laid, probability: np.ndarray, judgement: Judgement) -> dict[str, Feature]:
        fit, calibration = laid.fit, judgement.calibration
        clean = float(probability.mean()) if len(probability) else 0.0
        values = {
            "clean_fraction": Feature(value=clean),
            "clean_area_nm2": Feature(value=clean * float(4 * view.half_nm.prod())),
            "lattice_power_ratio": Feature(value=laid.period.power),
            "lattice_rms_nm": Feature(value=laid.period.rms_nm, reason="blocks against one affine lattice"),
            "orientation_log_likelihood_margin": Feature(value=fit.log_likelihood_margin),
            "defocus_offset_nm": Feature(value=fit.defocus_offset_nm, std=1.0, reason="sign may be ambiguous"),
            "fitted_defocus_nm": Feature(
                value=view.optics.defocus_nm + fit.defocus_offset_nm, std=1.0, reason="sign may be ambiguous"
            ),
            "blur_nm": Feature(value=fit.blur_nm, reason="beyond the coherence read back"),
            "suspect_count": Feature(value=float(len(judgement.suspect))),
            "settled_count": Feature(value=float(judgement.settled_count)),
        }
        if laid.cells is not None:
            values["clean_level_ratio"] = Feature(value=laid.cells.level, std=laid.cells.level_std)
        values |= self._by_detector(view, laid)
        for number, column in enumerate(self.column_names):
            spread = [calibration.spread[s] for s, owner in enumerate(self._species_column) if owner == number]
            if spread:
                values[f"overdispersion_{column}"] = Feature(
                    value=float(max(spread)), reason="host ratios over Poisson; above 1 evidence is tempered"
                )
        return values

    def _by_detector(self, view: FrameView, laid: Laid) -> dict[str, Feature]:
        """Contrast over prediction in focus, gain and background; unnamed ones are the dark field's."""
        fit = laid.fit
        turn_deg = crystal_rotation_deg(fit.basis_nm, self._forward.cell) + view.scan_rotation_deg
        focused = view.optics.model_copy(update={"defocus_nm": 0.0})
        sharp = self._forward.cell_terms(view.rings, view.terms, focused, view.coherence, turn_deg)[:, 1:]
        contrast = np.real(fit.measured[:, 1:] * np.conj(sharp)).sum(axis=1) / (np.abs(sharp) ** 2).sum(axis=1)
        error = np.sqrt(fit.variance / (2 * (np.abs(sharp) ** 2).sum(axis=1)))
        main = dark_field(view.rings, view.optics.semi_convergence_angle_mrad) or 0
        electrons = view.electrons_per_px or float("nan")
        values: dict[str, Feature] = {}
        for number, ring in enumerate(view.rings):
            features = {
                "contrast_ratio": Feature(
                    value=float(contrast[number]) / electrons, std=float(error[number]) / electrons
                ),
                "gain_ratio": Feature(value=float(fit.gain[number]) / electrons),
                "background_per_px": Feature(value=float(fit.background[number])),
                "counts_per_electron": Feature(value=float(fit.measured[number, 0].real) / electrons),
            }
            values |= {f"{name}_{ring.name}": feature for name, feature in features.items()}
            if number == main:
                values |= features
        return values

    def _nothing(self, frame: Frame, view: FrameView, period: Periodicity) -> FeatureSet:
        """What is said of a frame in which no lattice is seen."""
        count, detectors = len(self.species), len(view.rings)
        reason = f"no lattice: peaks are {period.power:.1f} times the noise"
        values = {
            "clean_fraction": Feature(value=0.0, reason=reason),
            "clean_area_nm2": Feature(value=0.0, reason=reason),
            "contrast_ratio": Feature(value=0.0, reason=reason),
            "lattice_power_ratio": Feature(value=period.power),
        }
        single = np.float32
        arrays = {
            "site_x_nm": np.zeros(0),
            "site_y_nm": np.zeros(0),
            "site_column": np.zeros(0, dtype=np.int8),
            "site_clean_probability": np.zeros(0, dtype=single),
            "llr": np.zeros((0, count), dtype=single),
            "suspect": np.zeros(0, dtype=np.int32),
            "suspect_llr_subframes": np.zeros((0, len(view.rings[0].counts), count), dtype=single),
            "amplitude": np.zeros((0, detectors), dtype=single),
            "amplitude_std": np.zeros((0, detectors), dtype=single),
            "expected_information": np.zeros(count, dtype=single),
            "pair_information": np.zeros((count, count), dtype=single),
            "expected_amplitude": np.zeros((count, detectors), dtype=single),
            "lattice_origin_nm": np.full(2, np.nan),
            "lattice_basis_nm": np.full((2, 2), np.nan),
        }
        return FeatureSet(extractor=NAME, action_id=frame.action_id, values=values, arrays=arrays)
