"""The conformance kit on the adapter."""

import pytest

from instruments.conformance import AdapterTarget, Conditions


@pytest.fixture(scope="module")
def conformance_target():
    """What is tried: the adapter by the name of its entry point, and its configuration."""
    return AdapterTarget("dotted_film", {"reach_nm": 400.0})


@pytest.fixture(scope="module")
def conformance_conditions():
    """Where and how it may expose; the margin is for a computer that is busy with other things."""
    return Conditions(field_of_view_nm=200.0, stop_exposure_s=40.0, stop_margin_s=15.0)


def test_conformance(conformance_finding):
    """One test for each check."""
    conformance_finding.assert_conforms()
