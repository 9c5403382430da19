"""Aberrations in the notation of CEOS and in polar form: the one place that knows both.

CEOS: chi = 2 pi / lambda * Re(1/2 C1 w w* + 1/2 A1 w*^2 + B2 w^2 w* + 1/3 A2 w*^3 + 1/4 C3 (w w*)^2 + S3 w^3 w* + ...),
w the complex angle, coefficients in metres (Uhlemann and Haider, Ultramicroscopy 72 (1998) 109). Polar form: see
`optics.Aberrations`. Neighbour: `ceos` measures and corrects.
"""

from __future__ import annotations

from cmath import phase
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import cos, degrees, isfinite, radians, sin
from typing import Any, Final, cast

_NM_PER_M: Final = 1e9


@dataclass(frozen=True, slots=True)
class Term:
    """One aberration: its polar names, CEOS's name, and what lies between.

    A polar magnitude is `factor` times CEOS's. `turns` is -1 where the complex angle stands unconjugated beside the
    coefficient (B, S, D, R), so that its azimuth is minus the argument; `symmetry` 0 is a round one, of sign.
    """

    name: str
    ceos: str
    factor: float
    symmetry: int
    turns: int = 1

    @property
    def azimuth(self) -> str | None:
        """The polar name of its direction; None for a round one."""
        return f"phi{self.name[1:3]}_deg" if self.symmetry else None


@dataclass(frozen=True, slots=True)
class Frame:
    """How the corrector's axes lie in the scan: turned from +x towards +y, and mirrored before that or not."""

    rotation_deg: float = 0.0
    is_mirrored: bool = False


TERMS: Final[Mapping[str, Term]] = {
    term.name: term
    for term in (
        Term("defocus_nm", "C1", -1.0, 0),
        Term("c12_nm", "A1", 1.0, 2),
        Term("c21_nm", "B2", 3.0, 1, -1),
        Term("c23_nm", "A2", 1.0, 3),
        Term("c30_nm", "C3", 1.0, 0),
        Term("c32_nm", "S3", 4.0, 2, -1),
        Term("c34_nm", "A3", 1.0, 4),
        Term("c41_nm", "B4", 5.0, 1, -1),
        Term("c43_nm", "D4", 5.0, 3, -1),
        Term("c45_nm", "A4", 1.0, 5),
        Term("c50_nm", "C5", 1.0, 0),
        Term("c52_nm", "S5", 6.0, 2, -1),
        Term("c54_nm", "R5", 6.0, 4, -1),
        Term("c56_nm", "A5", 1.0, 6),
    )
}
_BY_CEOS: Final = {term.ceos: term for term in TERMS.values()}


def term_of(axis: str) -> Term | None:
    """The aberration that an axis belongs to, magnitude or azimuth.

    >>> term_of("phi21_deg").ceos
    'B2'
    """
    return TERMS.get(f"c{axis[3:5]}_nm" if axis.startswith("phi") else axis)


def polar(term: Term, coefficient_m: complex, frame: Frame) -> dict[str, float]:
    """A coefficient of CEOS as polar values, by axis.

    >>> {name: round(value, 6) for name, value in polar(TERMS["c21_nm"], 1e-9j, Frame()).items()}
    {'c21_nm': 3.0, 'phi21_deg': -90.0}
    """
    if term.azimuth is None:
        return {term.name: coefficient_m.real * term.factor * _NM_PER_M}
    along_deg = degrees(phase(coefficient_m)) * term.turns / term.symmetry
    seen_deg = frame.rotation_deg + (-along_deg if frame.is_mirrored else along_deg)
    return {
        term.name: abs(coefficient_m) * term.factor * _NM_PER_M,
        term.azimuth: _wrapped(seen_deg, term.symmetry) if coefficient_m else 0.0,
    }


def coefficient_m(term: Term, values: Mapping[str, float], frame: Frame) -> complex:
    """The inverse of `polar`, from the values of one aberration."""
    length_m = values[term.name] / term.factor / _NM_PER_M
    if term.azimuth is None:
        return complex(length_m, 0.0)
    along_deg = values[term.azimuth] - frame.rotation_deg
    angle = radians(-along_deg if frame.is_mirrored else along_deg) * term.turns * term.symmetry
    return length_m * complex(cos(angle), sin(angle))


def read_coefficients(told: Any) -> dict[str, complex]:
    """The aberrations of a reply, in metres, by polar name; what has none here (image shift, tilt) is left out.

    Raises TypeError, ValueError for what is no such table.
    """
    table = _table(told)
    return {_BY_CEOS[name].name: _vector(value) for name, value in table if name in _BY_CEOS}


def read_confidences_nm(told: Any) -> dict[str, float]:
    """How far off each magnitude may be with 95 %, in nm, by polar name. Raises TypeError, ValueError."""
    return {
        _BY_CEOS[name].name: abs(_vector(value)) * abs(_BY_CEOS[name].factor) * _NM_PER_M
        for name, value in _table(told)
        if name in _BY_CEOS
    }


def _table(told: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(told, dict):
        raise TypeError(f"{told!r:.80} is no table of aberrations")
    return cast("dict[Any, Any]", told).items()


def _vector(told: Any) -> complex:
    """One number, or a list of one or two."""
    parts: list[Any] = told if isinstance(told, list) else [told]
    if not 1 <= len(parts) <= 2 or any(isinstance(one, bool) or not isinstance(one, int | float) for one in parts):
        raise TypeError(f"{told!r:.80} is no coefficient")
    numbers = [float(one) for one in parts]
    if not all(map(isfinite, numbers)):
        raise ValueError(f"{told!r:.80} is not finite")
    return complex(*numbers)


def _wrapped(angle_deg: float, symmetry: int) -> float:
    """The same direction within half a period of 0."""
    period_deg = 360.0 / symmetry
    return (angle_deg + period_deg / 2) % period_deg - period_deg / 2
