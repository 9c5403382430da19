"""The forward model at one frame's optics, kept between frames: cell terms and difference images by defocus offset."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from instruments.optics import Aberrations, Coherence, Optics
from orchestrator.features.detectors import RingCounts
from orchestrator.features.lattice_model import (
    FourierTerms,
    LatticeModel,
    ModelDifference,
    PrimitiveCell,
    fourier_terms,
)

_KEPT = 512
_DEFOCUS_STEP_NM = 0.5
_TERM_FLOOR = 1e-3

Ring = tuple[float, float]


class Forward:
    """Predictions of a lattice model in the terms that features need; remembers the latest 512 images."""

    def __init__(self, model: LatticeModel) -> None:
        self.model = model
        self.cell = PrimitiveCell.of(model)
        self._images: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._terms: dict[tuple[Any, ...], FourierTerms] = {}

    def terms(self, rings: Sequence[RingCounts], optics: Optics, coherence: Coherence) -> FourierTerms:
        """Fourier terms that matter to any of the detectors, at the sharpest focus."""
        angles = tuple((ring.inner_mrad, ring.outer_mrad) for ring in rings)
        key = (angles, optics.beam_energy_ev, optics.semi_convergence_angle_mrad, coherence)
        if key not in self._terms:
            sharp = optics.model_copy(update={"defocus_nm": 0.0, "aberrations": Aberrations()})
            images = [self.model.cell_image(*ring, sharp, coherence) for ring in angles]
            self._terms[key] = FourierTerms.of(self.cell, images, self.model, floor=_TERM_FLOOR)
        return self._terms[key]

    def cell_terms(
        self, rings: Sequence[RingCounts], terms: FourierTerms, optics: Optics, coherence: Coherence, turn_deg: float
    ) -> np.ndarray:
        """(D, G) Fourier terms of the cell, fraction of the beam; the crystal is turned by `turn_deg` in the beam."""
        optics = in_crystal_frame(optics, turn_deg)
        found = []
        for ring in rings:
            key = ("cell", ring.inner_mrad, ring.outer_mrad, _what_matters(optics), coherence, len(terms.indices))
            if key not in self._images:
                image = self.model.cell_image(ring.inner_mrad, ring.outer_mrad, optics, coherence)
                self._keep(key, fourier_terms(image, terms.q_per_nm, self.model))
            found.append(self._images[key])
        return np.array(found)

    def difference(
        self, species: str, ring: RingCounts, optics: Optics, coherence: Coherence, turn_deg: float
    ) -> ModelDifference:
        """What one defect adds, in the crystal's own axes."""
        optics = in_crystal_frame(optics, turn_deg)
        key = (species, ring.inner_mrad, ring.outer_mrad, _what_matters(optics), coherence)
        if key not in self._images:
            self._keep(key, self.model.difference_image(species, ring.inner_mrad, ring.outer_mrad, optics, coherence))
        return self._images[key]

    def _keep(self, key: tuple[Any, ...], value: Any) -> None:
        self._images[key] = value
        if len(self._images) > _KEPT:
            self._images.popitem(last=False)


def in_crystal_frame(optics: Optics, turn_deg: float) -> Optics:
    """Aberrations as the crystal sees them when its x axis lies at `turn_deg`; defocus on a grid of 0.5 nm."""
    changed: dict[str, Any] = {"defocus_nm": round(optics.defocus_nm / _DEFOCUS_STEP_NM) * _DEFOCUS_STEP_NM}
    terms = optics.aberrations.model_dump()
    turned = {
        name: value - round(turn_deg) if name.startswith("phi") and terms[f"c{name[3:5]}_nm"] else value
        for name, value in terms.items()
    }
    changed["aberrations"] = Aberrations(**turned)
    changed["tilt_x_mrad"], changed["tilt_y_mrad"] = _turned(optics.tilt_x_mrad, optics.tilt_y_mrad, -round(turn_deg))
    return optics.model_copy(update=changed)


def _turned(x: float, y: float, turn_deg: float) -> tuple[float, float]:
    if x == 0 and y == 0:
        return 0.0, 0.0
    cosine, sine = float(np.cos(np.radians(turn_deg))), float(np.sin(np.radians(turn_deg)))
    return cosine * x - sine * y, sine * x + cosine * y


def _what_matters(optics: Optics) -> tuple[Any, ...]:
    return (
        optics.beam_energy_ev,
        optics.semi_convergence_angle_mrad,
        optics.defocus_nm,
        optics.aberrations,
        optics.tilt_x_mrad,
        optics.tilt_y_mrad,
    )
