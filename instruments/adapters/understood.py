"""What an instrument's software told in another shape than expected, as an error of the house.

Around whatever takes replies apart: `driven` does so for every driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ValidationError

from instruments.errors import InstrumentError, InstrumentFault
from instruments.state import unsound

_OF_ANOTHER_SHAPE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@contextmanager
def understood(what: str, kind: type[InstrumentError] = InstrumentFault) -> Iterator[None]:
    """A part that is missing, or of another kind, is an error of `kind` that says so, with the reply's own words."""
    try:
        yield
    except ValidationError as error:
        raise unsound(error) from error
    except _OF_ANOTHER_SHAPE as error:
        raise kind(
            f"{what} cannot be understood: {error!r:.200}; see the instrument, and whether its software is of the "
            "version that is expected"
        ) from error
