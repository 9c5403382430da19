"""What `stempilot conform` runs on: the instrument's configuration, the facility's envelope, nobody else meanwhile.

A real instrument is held as a run holds it: its lock is taken, and `stempilot estop` reaches it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, ValidationError

from instruments import (
    AcquireFrame,
    Capabilities,
    Command,
    Frame,
    InstrumentFault,
    MicroscopeState,
    Outcome,
    SafetyEnvelope,
    known_adapters,
)
from instruments.conformance import AdapterTarget, Bench, Conditions
from instruments.models import Record
from instruments.remote import InstrumentHost
from orchestrator.errors import NotFound, Refused, SpecError
from orchestrator.settings import FILE_NAME, Settings
from orchestrator.signature import public_key_path
from orchestrator.spec_file import fault_lines
from workflows.roles import RoleLock, run_folder

# What a rehearsal needs that a run takes from its spec: a specimen, exposures that take their time.
_REHEARSED: Final = {"seed": 3, "width_nm": 400.0, "height_nm": 400.0, "phonon_count": 1, "time_scale": 1.0}
_HARMLESS: Final = ("simulated", "replay")


class ConformanceFile(Record):
    """The file of `--config`: what the adapter is opened with, and what the kit may ask of it."""

    config: dict[str, Any] = Field(default_factory=dict)
    conditions: Conditions = Conditions()


@dataclass(frozen=True, slots=True)
class Plan:
    """One instrument as it will be tried."""

    settings: Settings
    name: str
    adapter: str
    config: Mapping[str, Any]
    conditions: Conditions
    envelope: SafetyEnvelope
    unfit_because: str | None = None

    @property
    def is_harmless(self) -> bool:
        """Whether nothing real can be exposed."""
        return self.adapter in _HARMLESS

    def refuse_unfit(self) -> None:
        """Raise Refused where a real instrument may not be tried like this: outside what the facility signed for it."""
        if self.unfit_because is not None:
            raise Refused(f"instrument {self.name!r} is real, and {self.unfit_because}; nothing was moved or exposed")

    @contextmanager
    def bench(self) -> Iterator[Bench]:
        """The instrument on the bench. Raises DataFolderBusy (another process has it), InstrumentFault (locked)."""
        target = AdapterTarget(self.name, self.config, self.adapter)
        with Bench(target, self.conditions, self.envelope) as bench:
            if self.is_harmless:
                yield bench
                return
            with RoleLock(self.settings.data_folder, f"instrument-{self.name}"):
                host = InstrumentHost(
                    self.name, run_folder(self.settings.data_folder), on_stop=lambda: bench.halt("stopped from outside")
                )
                _refuse_locked(host)
                try:
                    host.adopt(self.adapter, self.config, _OnTheBench(bench))
                    bench.put_away()  # so that the stop line is not taken for something the adapter left behind
                    yield bench
                finally:
                    host.leave()


def _refuse_locked(host: InstrumentHost) -> None:
    lock = host.status().lock
    if lock is not None:
        raise InstrumentFault(
            f"instrument {host.name!r} is locked by {lock.by}: {lock.reason}; after a look at the instrument: "
            f"stempilot estop {host.name} --clear"
        )


@dataclass(frozen=True, slots=True)
class _OnTheBench:
    """Whatever microscope the bench has open, for the stop line."""

    bench: Bench

    def capabilities(self) -> Capabilities:
        return self.bench.capabilities

    def read_state(self) -> MicroscopeState:
        return self.bench.read_state()

    def execute(self, command: Command) -> MicroscopeState:
        return self.bench.call(lambda microscope: microscope.execute(command), command.kind)

    def acquire(self, command: AcquireFrame) -> Frame:
        return self.bench.acquire(command)

    def outcome(self, action_id: str) -> Outcome:
        return self.bench.call(lambda microscope: microscope.outcome(action_id), "outcome")

    def stop(self) -> None:
        self.bench.stop()


def planned(settings: Settings, name: str, file: Path | None) -> Plan:
    """How the instrument `name` is tried: configured, or an adapter by its name. Raises NotFound, SpecError."""
    given = _read(file) if file is not None else ConformanceFile()
    unfit_because = _unfit_because(settings, name, given)
    if name in settings.instruments:
        entry = settings.instrument(name)
        adapter, configured, envelope = entry.adapter, entry.config, entry.safety
    elif name in known_adapters():
        adapter, configured, envelope = name, {}, SafetyEnvelope()
    else:
        known = ", ".join(sorted({*settings.instruments, *known_adapters()}))
        raise NotFound(f"no instrument and no adapter is called {name!r}; there are {known}")
    config = {**configured, **given.config}
    if adapter == "simulated":
        structure = str(files("workflows") / "templates" / "WSe2.extxyz")
        cache = settings.data_folder / "cache"
        config = (
            {"structure": structure, **({"cache_folder": str(cache)} if cache.is_dir() else {})} | _REHEARSED | config
        )
    return Plan(settings, name, adapter, config, given.conditions, envelope, unfit_because)


def _unfit_because(settings: Settings, name: str, given: ConformanceFile) -> str | None:
    """Why this may not be tried on a real instrument, and what to do; None: it may."""
    if name not in settings.instruments:
        return f"its adapter alone has no limits: configure it and its limits in {FILE_NAME}, and give that name"
    if given.config:
        keys = ", ".join(given.config)
        return f"its configuration is the facility's: take {keys} out of the file of --config"
    if public_key_path(os.environ) is None:
        return (
            "nobody signed its limits: `stempilot safety keygen` and `stempilot safety sign` do, and facility.pub goes "
            "to /etc/stempilot"
        )
    return None


def _read(path: Path) -> ConformanceFile:
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path}: not valid: {' '.join(str(error).split())}") from error
    try:
        return ConformanceFile.model_validate(document or {})
    except ValidationError as error:
        lines = fault_lines(error, ConformanceFile.model_json_schema())
        raise SpecError(f"{path}: {len(lines)} fault(s)\n  " + "\n  ".join(lines)) from error
