"""What every adapter's configuration is: keys of a settings file, all faults told at once, each with key and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from instruments.errors import ConfigurationError
from instruments.models import Record


class AdapterConfig(Record):
    """Base of the configurations; `adapter` is the name that messages say."""

    adapter_name: ClassVar[str]

    @classmethod
    def checked(cls, config: Mapping[str, Any]) -> Self:
        """The configuration. Raises ConfigurationError with every fault at once, each with its key and value."""
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            faults = "; ".join(
                _fault(one["type"], ".".join(map(str, one["loc"])), one.get("input"), one["msg"])
                for one in error.errors()
            )
            raise ConfigurationError(f"{cls.adapter_name} configuration: {faults}") from error


def _fault(kind: str, key: str, value: object, message: str) -> str:
    if kind == "missing":
        return f"{key} is required"
    if kind == "value_error":  # the record's own words, which name the values
        words = message.removeprefix("Value error, ")
        return f"{key}: {words}" if key else words
    return f"{key} = {value!r:.80}: {message}"
