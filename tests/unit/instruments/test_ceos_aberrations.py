"""CEOS's notation against the polar one: the same phase in every direction, there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instruments.adapters.ceos_aberrations import (
    TERMS,
    Frame,
    coefficient_m,
    polar,
    read_coefficients,
    read_confidences_nm,
    term_of,
)

# chi of each coefficient (Uhlemann and Haider 1998): prefactor, powers of w and of its conjugate
WAVES = {
    "C1": (1 / 2, 1, 1), "A1": (1 / 2, 0, 2), "B2": (1, 2, 1), "A2": (1 / 3, 0, 3), "C3": (1 / 4, 2, 2),
    "S3": (1, 3, 1), "A3": (1 / 4, 0, 4), "B4": (1, 3, 2), "D4": (1, 4, 1), "A4": (1 / 5, 0, 5), "C5": (1 / 6, 3, 3),
    "S5": (1, 4, 2), "R5": (1, 5, 1), "A5": (1 / 6, 0, 6),
}  # fmt: skip


def test_both_notations_give_the_same_phase() -> None:
    """chi / (2 pi / lambda), by both formulas, over directions and angles."""
    rng = np.random.default_rng(4)
    angle, azimuth = rng.uniform(0.001, 0.03, 50), rng.uniform(-math.pi, math.pi, 50)
    w = angle * np.exp(1j * azimuth)
    for term in TERMS.values():
        value_m = complex(*rng.normal(0, 1e-7, 2)) if term.symmetry else complex(rng.normal(0, 1e-7))
        prefactor, power, conjugate_power = WAVES[term.ceos]
        ceos = prefactor * (value_m * w**power * w.conj() ** conjugate_power).real
        values = polar(term, value_m, Frame())
        length_m = values[term.name] * 1e-9 * (-1 if term.name == "defocus_nm" else 1)  # C10 is minus defocus
        order = 1 if term.name == "defocus_nm" else int(term.name[1])
        phi = math.radians(values[term.azimuth]) if term.azimuth else 0.0
        ours = length_m * angle ** (order + 1) / (order + 1) * np.cos(term.symmetry * (azimuth - phi))
        assert np.allclose(ours, ceos, rtol=1e-12, atol=0), term


@pytest.mark.parametrize("frame", [Frame(), Frame(37.0), Frame(-110.0, is_mirrored=True)])
def test_there_and_back(frame: Frame) -> None:
    rng = np.random.default_rng(5)
    for term in TERMS.values():
        value_m = complex(*rng.normal(0, 1e-7, 2)) if term.symmetry else complex(rng.normal(0, 1e-7))
        assert coefficient_m(term, polar(term, value_m, frame), frame) == pytest.approx(value_m, rel=1e-12)


def test_a_turned_corrector_turns_every_azimuth_alike() -> None:
    """The lobe of A1 and that of B2 turn by the same angle, whatever their symmetry; a mirror reverses both."""
    for name in ("c12_nm", "c21_nm"):
        term = TERMS[name]
        assert term.azimuth is not None
        plain = polar(term, 1e-8 * complex(math.cos(0.4), math.sin(0.4)), Frame())[term.azimuth]
        turned = polar(term, 1e-8 * complex(math.cos(0.4), math.sin(0.4)), Frame(20.0))[term.azimuth]
        mirrored = polar(term, 1e-8 * complex(math.cos(0.4), math.sin(0.4)), Frame(is_mirrored=True))[term.azimuth]
        assert turned - plain == pytest.approx(20.0)
        assert mirrored == pytest.approx(-plain)


def test_what_a_reply_holds() -> None:
    told = {"C1": [-3e-8], "A1": [3e-9, 4e-9], "C3": 1e-6, "WD": [1e-3, 0.0]}
    assert read_coefficients(told) == {"defocus_nm": -3e-8, "c12_nm": 3e-9 + 4e-9j, "c30_nm": 1e-6}
    assert read_confidences_nm({"B2": [1e-9], "C1": 2e-9}) == pytest.approx({"c21_nm": 3.0, "defocus_nm": 2.0})
    for wrong in ([1.0], {"A1": [1, 2, 3]}, {"A1": []}, {"A1": ["1"]}, {"A1": [True]}, {"A1": None}):
        with pytest.raises(TypeError):
            read_coefficients(wrong)
    with pytest.raises(ValueError, match="not finite"):
        read_coefficients({"A1": [float("nan"), 0.0]})


def test_axes_find_their_aberration() -> None:
    assert [term.ceos for axis in ("c12_nm", "phi12_deg", "phi54_deg") if (term := term_of(axis))] == ["A1", "A1", "R5"]
    assert term_of("x_nm") is None
    assert term_of("corrector.c12_within_nm") is None
