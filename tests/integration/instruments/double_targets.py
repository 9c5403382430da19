"""Doubles in this process as `Served` targets of the conformance kit: lines are cut, servers end and return."""

from __future__ import annotations

from typing import Any

from instruments import Microscope, registry
from instruments.conformance.target import Address
from instruments.microscope import Closable
from tests.integration.instruments.ceos_double import CeosDouble
from tests.integration.instruments.serialem_double import SerialEMDouble


class DoubleTarget:
    """A column, or a corrector's gateway beside one; `config` is the adapter's, ports as in its nested parts."""

    def __init__(self, name: str, config: dict[str, Any], column: SerialEMDouble, gateway: CeosDouble | None) -> None:
        self.name = name
        self._config = config
        self._column = column
        self._doubles = [column] if gateway is None else [column, gateway]

    def addresses(self) -> tuple[Address, ...]:
        return tuple(("127.0.0.1", double.port) for double in self._doubles)

    def open(self) -> Microscope:
        return self.open_at(self.addresses())

    def open_at(self, addresses: tuple[Address, ...], **more: Any) -> Microscope:
        column, *gateway = (port for _, port in addresses)
        config = {**self._config, **more, "port": column}
        if gateway:
            beside = self._config["beside"]
            config |= {
                "port": gateway[0],
                "beside": {**beside, "config": {**beside["config"], "port": column, **more}},
            }
        return registry.open(self.name, **config)

    def close(self, microscope: Microscope) -> None:
        assert isinstance(microscope, Closable)
        microscope.close()

    def exposure_count(self) -> int:
        return self._column.lit_count

    def kill(self) -> None:
        for double in self._doubles:
            double.__exit__(None, None, None)

    def revive(self) -> None:
        for double in self._doubles:
            double.__enter__()
