"""The report's box on measured images, from an image that was drawn and described by the extractor itself."""

from __future__ import annotations

from functools import cache

import numpy as np

from instruments import Optics
from orchestrator.features import LatticeSites
from orchestrator.report.measured import measured_views
from orchestrator.report.measured_image import Measured, MeasuredImage, Substitute
from tests.unit.orchestrator.features.gaussian_lattice import GaussianLattice, Specimen, expose


@cache
def image() -> MeasuredImage:
    """Counts of a drawn lattice with 12 Mo in W places, divided by their maximum."""
    model = GaussianLattice()
    exposure = expose(
        Specimen(model, density_per_nm2={"Mo_W": 0.2}), np.random.default_rng(3), mode="haadf",
        shape_px=(256, 256), dose_e_per_a2=2e5,
    )  # fmt: skip
    counts = exposure.frame.total("haadf")
    sites = LatticeSites(model, ["Mo_W"])
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30)
    normalised = counts / counts.max()
    return MeasuredImage(
        name="drawn", material="WSe2", told="60 kV", assumed="focus within 12 nm", image=normalised,
        pixel_size_nm=exposure.frame.pixel_size_nm, column_names=sites.column_names,
        substitute=Substitute(name="Mo", column="W", brightness_ratio=0.4), refusal="detector 'haadf' says no",
        features=sites.describe_normalised(
            normalised, exposure.frame.pixel_size_nm, inner_mrad=80, outer_mrad=200, optics=optics
        ),
        processor_s=2.4,
    )  # fmt: skip


def test_what_is_said_and_what_is_refused() -> None:
    (view,) = measured_views(Measured(images=(image(),)))
    said = {item.what: item.why for item in view.said}
    count = int((image().features.arrays["site_column"] == 0).sum())
    assert f"{count} W columns" in said
    assert "error of one column by noise" in said[f"{count} W columns"]
    assert "told apart by the forward model with odds of" in said["Which sub-lattice is which"]
    refused = {item.what: item.why for item in view.refused}
    reason = refused["Probabilities, species, a false discovery rate, a density"]
    assert "65,536 values lie between 0.0" in reason
    assert "and 1.000" in reason
    assert "“detector 'haadf' says no”" in reason
    assert "2 s of processor time, once" in view.picture.caption
    assert view.picture.markup.startswith("<img alt=")


def test_dim_columns_are_pointed_at_not_called() -> None:
    (view,) = measured_views(Measured(images=(image(),)))
    (what,) = [item.what for item in view.refused if item.what.startswith("Whether")]
    count = int(what.split()[1])
    assert what == f"Whether {count} dim W columns hold Mo"
    assert 3 <= count <= 30
    assert f"ringed ({count})" in view.picture.caption


def test_an_open_assignment_is_said_to_be_open() -> None:
    from dataclasses import replace

    values = dict(image().features.values)
    values["orientation_log_likelihood_margin"] = replace(values["orientation_log_likelihood_margin"], value=1.0)
    doubtful = replace(image(), features=replace(image().features, values=values))
    (view,) = measured_views(Measured(images=(doubtful,)))
    assert "open: the better of the two assignments" in view.said[1].why
    assert "odds of 2.7 to 1 only" in view.said[1].why


def test_headline_counts_the_columns() -> None:
    total = len(image().features.arrays["site_x_nm"])
    assert f"on one measured image: {total:,} columns" in Measured(images=(image(),)).headline
    assert Measured(note="none").headline == ""
    assert measured_views(None) == measured_views(Measured(note="none")) == []
