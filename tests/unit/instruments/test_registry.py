"""Instruments are found by name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from instruments import ConfigurationError, Microscope, known_adapters, registry
from instruments import open as open_instrument

STRUCTURE = Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz"


def test_built_in_names_are_listed() -> None:
    assert {"simulated", "replay"} <= set(known_adapters())


def test_the_simulated_microscope_opens() -> None:
    microscope = open_instrument("simulated", structure=str(STRUCTURE), width_nm=60.0, height_nm=60.0, phonon_count=1)
    assert isinstance(microscope, Microscope)
    assert microscope.capabilities().name == "simulated"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no instrument adapter is called 'titan'; known: .*simulated"):
        open_instrument("titan")


def test_a_stranger_is_found_through_its_entry_point_but_cannot_take_a_built_in_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stranger_adapter.py").write_text("def open_it(**config):\n    return config\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("stranger", "stranger_adapter:open_it", registry.GROUP),
        EntryPoint("simulated", "stranger_adapter:open_it", registry.GROUP),
        EntryPoint("renamed", "stranger_adapter:open_that", registry.GROUP),
        EntryPoint("removed", "no_stranger_adapter:open_it", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    assert known_adapters()["simulated"] == "simulation.microscope:open_simulated"
    assert open_instrument("stranger", port=3) == {"port": 3}
    for name in ("renamed", "removed"):
        with pytest.raises(ConfigurationError, match=rf"adapter '{name}' \(.*\) cannot be loaded: .*stranger_adapter"):
            open_instrument(name)
    sys.modules.pop("stranger_adapter", None)
