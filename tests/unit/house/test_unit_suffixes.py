"""A number carries its unit in its name (STYLE: one unit per quantity)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.house import unit_suffixes as suffixes

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("instruments", "simulation", "policies", "orchestrator", "workflows")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_number_names_its_unit(package: str) -> None:
    names = suffixes.names_of(ROOT, (package,))
    assert any(name.is_float for name in names), f"no number found in {package}: is the walk broken?"
    complaints = [wrong for name in names if (wrong := suffixes.complaint(name))]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "source",
    [
        "class Scan:\n    dwell: float = 1.0",
        "class Scan:\n    size: tuple[float, float]",
        "class Scan:\n    timeout: int | None = None",
        "def move(x: float) -> None: ...",
        "def move(*, speed: 'float | None' = None) -> None: ...",
        "class Stage:\n    def move(self, x: Annotated[float, Field(ge=0)]) -> None: ...",
        "class Stage:\n    def __init__(self, step: list[float]) -> None: ...",
        "class Stage:\n    corners: list[tuple[float, float]]",
        "def sweep(steps: tuple[float, ...]) -> None: ...",
        "async def wait(seconds: float) -> None: ...",
        "def potential(r_angstrom: float) -> None: ...",
    ],
)
def test_a_bare_number_is_found(source: str) -> None:
    assert [name for name in suffixes.names_in(source, "instruments.planted") if suffixes.complaint(name)]


@pytest.mark.parametrize(
    "source",
    [
        "class Scan:\n    dwell_time_us: float = 1.0\n    shape_px: tuple[int, int]\n    _size: float",
        "def score(probability: float, false_discovery_rate: float, outcomes: dict[str, float]) -> None: ...",
        "def _inner(x: float) -> None: ...",
        "def plot(rows: list[tuple[str, float]], corners_nm: list[tuple[float, float]]) -> None: ...",
        "def fit(x_nm_std: float, std_nm: float) -> None: ...",
    ],
)
def test_a_good_name_passes(source: str) -> None:
    names = suffixes.names_in(source, "instruments.planted")
    assert not [wrong for name in names if (wrong := suffixes.complaint(name))]


def test_textbook_units_stay_in_the_kernels() -> None:
    source = "def potential(r_angstrom: float) -> None: ..."
    (kernel,) = suffixes.names_in(source, "simulation.potential")
    (elsewhere,) = suffixes.names_in(source, "orchestrator.features")
    assert suffixes.complaint(kernel) is None
    assert suffixes.complaint(elsewhere) is not None
