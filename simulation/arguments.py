"""Arguments of the wrong kind are refused by name, before numpy stumbles over them; others become floats and ints."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, nan
from reprlib import repr as short
from typing import Any

import numpy as np
from pydantic import ValidationError

from instruments.models import Record
from instruments.optics import Coherence, Optics
from instruments.record_faults import fault_words
from simulation.errors import InvalidParameter


def finite(name: str, value: Any, unit: str) -> float:
    """The value as a float; an error for words, lists, nothing, nan and infinities."""
    return _refuse_unless(isfinite(as_float(value)), name, value, f"a finite number of {unit}")


def positive(name: str, value: Any, unit: str = "") -> float:
    """The same above 0; `unit` is empty where there is none."""
    return _refuse_unless(0 < as_float(value) < inf, name, value, f"a positive number{unit and f' of {unit}'}")


def not_negative(name: str, value: Any, unit: str) -> float:
    """The same from 0 on."""
    return _refuse_unless(0 <= as_float(value) < inf, name, value, f"a number of {unit}, zero or positive")


def whole(name: str, value: Any, least: int) -> int:
    """The value as an int; an error for parts, and for fewer than `least`."""
    number = as_float(value)
    is_good = isfinite(number) and number.is_integer() and number >= least
    return int(_refuse_unless(is_good, name, value, f"a whole number, at least {least}"))


def whole_pair(name: str, value: Any) -> tuple[int, int]:
    """(rows, columns) as ints from 1 on; an error for one number, three, parts of pixels or words."""
    is_pair = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and np.shape(value) == (2,)
    counts = [as_float(count) for count in value] if is_pair else []
    if not (is_pair and all(count.is_integer() for count in counts)):
        raise InvalidParameter(f"{name} = {short(value)} must be two whole numbers (rows, columns), such as (512, 512)")
    if min(counts) < 1:
        raise InvalidParameter(f"{name} = {short(value)} must be (rows, columns), at least one each")
    return int(counts[0]), int(counts[1])


def checked_seed(seed: Any) -> int:
    """The seed; an error for what numpy draws nothing from."""
    return whole("seed", seed, 0)


def checked_optics(optics: Any) -> Optics:
    """The optics; an error for anything else, and for copies with numbers that no optics have."""
    if not isinstance(optics, Optics):
        raise InvalidParameter(f"optics is a {type(optics).__name__}; give instruments.Optics")
    _check_again("optics", optics)
    return optics


def checked_coherence(coherence: Any) -> Coherence:
    """The same for coherence."""
    if not isinstance(coherence, Coherence):
        raise InvalidParameter(f"coherence is a {type(coherence).__name__}; give instruments.Coherence")
    _check_again("coherence", coherence)
    return coherence


def _check_again(name: str, record: Record) -> None:
    """By the record's own limits: `model_copy(update=...)` takes any value."""
    try:
        again = type(record).model_validate(record.model_dump(warnings=False))
    except ValidationError as error:
        words = fault_words(error.errors(include_url=False)[0], type(record))
        raise InvalidParameter(
            f"{name}.{words}; model_copy(update=...) checks nothing: make a new {type(record).__name__}"
        ) from None
    if again != record:
        kind = type(record).__name__
        raise InvalidParameter(f"{name} = {short(record)} holds values of other kinds; make a new {kind}")


def as_float(value: Any) -> float:
    """Of a number, also in an array without dimensions; nan for everything else, truth values among it."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return float(value) if is_number else nan


def _refuse_unless(is_good: bool, name: str, value: Any, wanted: str) -> float:
    number = as_float(value)
    if not is_good:
        shown = value if number == number else short(value)
        raise InvalidParameter(f"{name} = {shown} must be {wanted}")
    return number
