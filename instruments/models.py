"""The one base of every value that crosses a process or is stored."""

from __future__ import annotations

from inspect import signature
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from instruments.record_faults import InvalidRecord


class Record(BaseModel):
    """Frozen, refuses unknown keys and numbers that are not finite, in words for people."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, *unnamed: Any, **values: Any) -> None:
        """Raise `InvalidRecord`, a `ValidationError`, with every field that cannot be, its value, limits and unit."""
        if unnamed:
            names = ", ".join(f"{name}=..." for name in list(type(self).model_fields)[: len(unnamed)])
            raise TypeError(f"{type(self).__name__} takes its values by name: {type(self).__name__}({names})")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidRecord.of(error, type(self)) from None

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """The record of a mapping. Raises `InvalidRecord`, as making one does."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise InvalidRecord.of(error, cls) from None

    # What signatures show, and what lets records within records be made without going through here.
    __init__.__signature__ = signature(BaseModel.__init__)
    __init__.__pydantic_base_init__ = True  # pyright: ignore[reportFunctionMemberAccess]
