"""Values that a record cannot hold are named with their limits, unit and cure, wherever records are made."""

import copy
import pickle
from math import inf, nan

import pytest
from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from instruments import Aberrations, Coherence, Optics, ScanPattern
from instruments.models import Record

BEAM = {"beam_energy_ev": 2e5, "semi_convergence_angle_mrad": 20}


class Inner(Record):
    """A record within another."""

    names: tuple[str, ...] = Field(default=(), max_length=2)
    sizes_nm: dict[str, float] = Field(default_factory=dict)

    @field_validator("sizes_nm")
    @classmethod
    def _not_full(cls, sizes: dict[str, float]) -> dict[str, float]:
        if len(sizes) > 1:
            raise PydanticCustomError("full", "holds more than {most}", {"most": 1})
        if "bad" in sizes:
            raise ValueError("bad is no name; take another")
        return sizes


class Outer(Record):
    """What holds it."""

    count: int = Field(ge=1)
    is_on: bool = False
    inner: Inner | None = None


RANGE = r"a number of eV, above 0 and at most 5e\+06"
WRONG = {
    "zero": (lambda: Optics(**BEAM | {"beam_energy_ev": 0}), f"^Optics: beam_energy_ev = 0 must be {RANGE}$"),
    "infinite": (lambda: Coherence(source_size_nm=inf), "^Coherence: source_size_nm = inf .* of nm, at least 0$"),
    "no number": (lambda: Aberrations(c30_nm=nan), "c30_nm = nan must be a finite number of nm$"),
    "a word": (lambda: Optics(**BEAM | {"beam_energy_ev": "much"}), f"beam_energy_ev = 'much' must be {RANGE}$"),
    "missing": (lambda: Optics(beam_energy_ev=2e5), "semi_convergence_angle_mrad is missing; give a number of mrad"),
    "misspelt": (lambda: Optics(**BEAM, defocus=3), r"defocus is unknown; did you mean defocus_nm\?$"),
    "unknown": (lambda: Outer(count=1, colour=3), "colour is unknown; there are count, is_on, inner$"),
    "within another": (lambda: Optics(**BEAM, c30_nm=3), "c30_nm is unknown here; it is a value of aberrations$"),
    "of another's kind": (lambda: Optics(**BEAM, aberrations=3), "aberrations = 3 must be an Aberrations$"),
    "wrong within": (
        lambda: Optics(**BEAM, aberrations={"c30_nm": inf}), "aberrations.c30_nm = inf must be a finite number of nm$"
    ),
    "a part": (lambda: Outer(count=1.5), "count = 1.5 must be a whole number, at least 1$"),
    "no row": (lambda: ScanPattern(field_of_view_nm=1, shape_px=3, dwell_time_us=1), "shape_px = 3 must be a row of"),
    "too many": (lambda: Outer(count=1, inner={"names": ["abc"] * 3}), "names .* have at most 2 items, not 3$"),
    "neither": (lambda: Outer(count=1, is_on="perhaps"), "is_on = 'perhaps' must be a valid boolean"),
    "by name": (lambda: Inner(sizes_nm={"a": -inf}), "sizes_nm.a = -inf must be a finite number of nm$"),
    "own words": (lambda: Inner(sizes_nm={"bad": 1}), "^Inner: sizes_nm: bad is no name; take another$"),
    "own kind": (lambda: Inner(sizes_nm={"a": 1, "b": 2}), "^Inner: sizes_nm: holds more than 1$"),
    "a mapping": (lambda: Optics.model_validate({"beam_energy_ev": -1}), f"beam_energy_ev = -1 must be {RANGE}; semi_"),
    "a long one": (lambda: Inner(**{f"key_{i}": i for i in range(9)}), "key_5 is unknown.*; and 3 more$"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_value_that_cannot_be_is_named_with_what_can(what):
    call, words = WRONG[what]
    with pytest.raises(ValidationError, match=words) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))).startswith(f"{caught.value.title}: ")


def test_what_was_wrong_can_be_asked_for_as_before():
    with pytest.raises(ValidationError) as caught:
        Optics(**BEAM | {"beam_energy_ev": 0})
    (fault,) = caught.value.errors()
    assert (fault["type"], fault["loc"], fault["input"], fault["ctx"]) == (
        "greater_than",
        ("beam_energy_ev",),
        0,
        {"gt": 0},
    )


def test_values_without_names_are_refused_with_the_names():
    with pytest.raises(TypeError, match=r"^Coherence takes its values by name: Coherence\(source_size_nm=\.\.\.\)$"):
        Coherence(0.1)


def test_records_are_copied_pickled_and_made_of_mappings_as_ever():
    optics = Optics(**BEAM, aberrations={"c30_nm": 5})
    assert optics == copy.deepcopy(optics) == pickle.loads(pickle.dumps(optics)) == optics.model_copy()
    assert Optics.model_validate_json(optics.model_dump_json()) == optics
