"""Arguments checked against the kinds that a function's own annotations name, before any of its lines runs.

`@kinds_checked` refuses by name what is no number, word, pair or object of the kind wanted; limits are the function's
affair. The neighbour `arguments` has the checks of single values with their limits.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite
from reprlib import repr as short
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from numpy.typing import ArrayLike

from instruments.optics import Coherence, Optics
from instruments.units import unit_of
from simulation.arguments import as_float, checked_coherence, checked_optics, checked_seed
from simulation.errors import InvalidParameter, InvalidSpecimen

_P = ParamSpec("_P")
_R = TypeVar("_R")
_STRUCTURES = {"atoms": False, "before": False, "after": False, "oxide": False, "particle": False, "material": True}
"""Names of `ase.Atoms`, which has no types, and whether a word will do instead."""
_ARRAYS = frozenset({"patterns", "signals", "gradient_x_per_nm", "gradient_y_per_nm"})
"""Names of arrays of numpy, torch or CuPy."""
_DIRECTIONS = frozenset({"axis", "plane"})
_LARGEST_INDEX, _MOST_REPEATS = 1000, 20


def kinds_checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, refusing arguments of the wrong kind; numbers of numpy become Python's."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def refusing(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__qualname__}(): {error}") from None
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = of_kind(name, value, hints[name])
        return function(*bound.args, **bound.kwargs)

    return refusing


def check_fields(instance: Any) -> None:
    """The same for the fields of a frozen dataclass, in its `__post_init__`."""
    hints = _hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        object.__setattr__(instance, field.name, of_kind(field.name, value, hints[field.name]))


def of_kind(name: str, value: Any, kind: Any) -> Any:
    """The value, if it is of that kind; `InvalidParameter` otherwise."""
    check = _BY_NAME.get(name) or _CHECKS.get(kind)
    if check is not None:
        return check(name, value)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _of_union(name, value, get_args(kind))
    if origin is not None:
        return _of_collection(name, value, origin, get_args(kind))
    if not isinstance(kind, type) or isinstance(value, kind):
        return value
    raise InvalidParameter(f"{name} is a {type(value).__name__}; give {_article(kind.__name__)}")


@lru_cache(maxsize=512)
def _hints(owner: Any) -> dict[str, Any]:
    if inspect.isclass(owner):
        return get_type_hints(owner)
    taken = {name: hint for name, hint in owner.__annotations__.items() if name != "return"}
    return get_type_hints(SimpleNamespace(__annotations__=taken), globalns=owner.__globals__)


def _of_union(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    if value is None and NoneType in kinds:
        return None
    if set(get_args(ArrayLike)) <= set(kinds):
        return _numbers(name, value)
    rest = [kind for kind in kinds if kind is not NoneType]
    if len(rest) == 1:
        return of_kind(name, value, rest[0])
    classes = tuple(get_origin(kind) or kind for kind in rest)
    if not all(inspect.isclass(each) for each in classes) or isinstance(value, classes):
        return value
    if int in classes and isinstance(value, np.integer):
        return int(value)
    if float in classes and isfinite(as_float(value)):
        return as_float(value)
    wanted = " or ".join(_article(each.__name__) for each in classes)
    raise InvalidParameter(f"{name} is a {type(value).__name__}; give {wanted}")


def _of_collection(name: str, value: Any, origin: Any, kinds: tuple[Any, ...]) -> Any:
    if origin is np.ndarray:
        return _numbers(name, value)
    if origin is tuple and kinds in ((float, float), (int, int)):
        return _pair(name, value)
    wanted = {tuple: Sequence, list: Sequence}.get(origin, origin)
    is_word = isinstance(value, str | bytes)
    is_like_it = isinstance(value, wanted) or (wanted is Sequence and isinstance(value, np.ndarray))
    if not inspect.isclass(wanted) or (is_like_it and not is_word):
        is_of_one_kind = wanted is Sequence and (len(kinds) == 1 or kinds[1:] == (...,))
        if not (is_of_one_kind and isinstance(kinds[0], type)):
            return value
        members = [of_kind(f"{name}[{index}]", each, kinds[0]) for index, each in enumerate(value)]
        return tuple(members) if origin is tuple else members
    raise InvalidParameter(f"{name} is a {type(value).__name__}; give {_article(wanted.__name__.lower())}")


def _untyped(name: str, value: Any) -> Any:
    check = _WITHOUT_TYPES.get(name)
    return value if check is None else check(name, value)


def _structure(name: str, value: Any) -> Any:
    from ase import Atoms

    if not (isinstance(value, Atoms) or (isinstance(value, str) and _STRUCTURES[name])):
        raise InvalidSpecimen(f"{name} is a {type(value).__name__}; give ase.Atoms{' or a name' * _STRUCTURES[name]}")
    return value


def _array(name: str, value: Any) -> Any:
    """An array of numbers with a point: whole ones, such as raw counts, would round angles and weights."""
    from xarray import DataArray

    if isinstance(value, DataArray):
        value = value.values
    if not is_array_api_obj(value) or len(getattr(value, "shape", ())) < 2:
        raise InvalidParameter(f"{name} = {short(value)} must be an array of numpy, torch or CuPy, two axes at least")
    array: Any = value
    xp = array_namespace(array)
    return xp.astype(array, xp.float32) if xp.isdtype(array.dtype, ("integral", "bool")) else array


def _direction(name: str, value: Any) -> Any:
    """Three (or four) indices of a direction or plane."""
    indices = [as_float(each) for each in value] if isinstance(value, Sequence | np.ndarray) else []
    if len(indices) not in (3, 4) or not all(abs(index) <= _LARGEST_INDEX for index in indices) or not any(indices):
        raise InvalidParameter(
            f"{name} = {short(value)} must be three indices of at most {_LARGEST_INDEX}, such as (1, 1, 0)"
        )
    return value


def _repeats(name: str, value: Any) -> int:
    if not 1 <= as_float(value) <= _MOST_REPEATS:
        raise InvalidParameter(f"{name} = {short(value)} must be a whole number, 1 to {_MOST_REPEATS}")
    return _whole(name, value)


def _number(name: str, value: Any) -> float:
    number = as_float(value)
    if not isfinite(number):
        raise InvalidParameter(f"{name} = {_shown(value)} must be a finite number{_unit(name)}")
    return value if isinstance(value, int | float) else number


def _whole(name: str, value: Any) -> int:
    number = as_float(value)
    if not (isfinite(number) and number.is_integer()):
        raise InvalidParameter(f"{name} = {_shown(value)} must be a whole number{_unit(name)}")
    return int(value)


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidParameter(f"{name} = {_shown(value)} must be a text")
    return value


def _pair(name: str, value: Any) -> Any:
    is_row = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    if not (is_row and np.shape(value) == (2,) and all(isfinite(as_float(each)) for each in list(value))):
        raise InvalidParameter(f"{name} = {_shown(value)} must be two finite numbers{_unit(name)}")
    return value[0], value[1]


def _numbers(name: str, value: Any) -> Any:
    """Something like an array of real or complex numbers, as it is."""
    try:
        kind = np.asarray(value).dtype.kind
    except (TypeError, ValueError):
        kind = "O"
    if kind not in "iufc":
        raise InvalidParameter(f"{name} = {_shown(value)} must be numbers{_unit(name)}, one or an array of them")
    if _unit(name) and not np.isfinite(np.asarray(value)).all():
        raise InvalidParameter(f"{name} holds a number that is not finite; give finite ones{_unit(name)}")
    return value


def _shown(value: Any) -> Any:
    number = as_float(value)
    return value if number == number else short(value)


def _unit(name: str) -> str:
    unit = unit_of(name)
    return f" of {unit}" if unit else ""


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOaeio' else 'a'} {noun}"


_CHECKS: dict[Any, Callable[[str, Any], Any]] = {
    float: _number, int: _whole, str: _word, np.ndarray: _numbers, ArrayLike: _numbers, Any: _untyped,
    Optics: lambda _, value: checked_optics(value), Coherence: lambda _, value: checked_coherence(value),
}  # fmt: skip
_BY_NAME: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_DIRECTIONS, _direction), "phase_rad": _array, "repeat_limit": _repeats,
    "seed": lambda _, value: checked_seed(value),
}  # fmt: skip
_WITHOUT_TYPES = dict.fromkeys(_STRUCTURES, _structure) | dict.fromkeys(_ARRAYS, _array)
