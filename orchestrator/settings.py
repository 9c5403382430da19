"""Settings of this installation: where data go, which instruments there are. What lies below takes arguments."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self, cast

from pydantic import Field, ValidationError, model_validator

from instruments import Calibration, CalibrationRegistry, SafetyEnvelope
from instruments.models import Record
from orchestrator.errors import NotFound, SpecError
from orchestrator.signature import check_signature, public_key_path
from orchestrator.signature_age import check_age
from orchestrator.spec_file import fault_lines

FILE_NAME: Final = "stempilot.toml"
DEFAULT_FOLDER: Final = "stempilot-data"
DATA_VARIABLE: Final = "STEMPILOT_DATA"
DATABASE_VARIABLE: Final = "STEMPILOT_DATABASE_URL"
REAL_DATA_VARIABLE: Final = "STEMPILOT_REAL_DATA"
PREFECT_VARIABLE: Final = "STEMPILOT_PREFECT_URL"
BUILT_IN: Final = ("simulated", "replay")


class InstrumentSettings(Record):
    """One configured instrument: its adapter, what that is opened with, what the facility allows and calibrated."""

    adapter: str = Field(min_length=1)
    config: dict[str, Any] = Field(default_factory=dict)
    safety: SafetyEnvelope = SafetyEnvelope()
    calibrations: tuple[Calibration, ...] = ()

    @model_validator(mode="after")
    def _calibration_ids_are_unique(self) -> Self:
        CalibrationRegistry(self.calibrations)
        return self


class ServeSettings(Record):
    """What `stempilot serve` and its workers need to know."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8765, ge=0, le=65535, description="of API and page; 0: any free one")
    instruments: list[str] | None = Field(default=None, description="which to serve; None: every configured one")
    tokens: bool = Field(default=True, description="ask for tokens; without, only this machine may reach it")
    writes_per_s: float = Field(
        default=20.0, ge=0.0, le=1e6, description="of one token in the long run, 400 at once; 0: as many as it likes"
    )
    prefect: bool = Field(default=True, description="show runs at a Prefect server")
    prefect_url: str | None = Field(
        default=None, description="http://.../api of one that runs already; none is started"
    )
    prefect_ui: bool = Field(default=True, description="Prefect's own pages, on loopback as its API")


class Settings(Record):
    """What `stempilot.toml`, the environment and the command line say together.

    `instruments` always holds `simulated` and `replay`; a section of that name in the file replaces what is built in.
    """

    data_folder: Path
    database_url: str | None = Field(default=None, description="postgresql://...; None: SQLite in the data folder")
    real_data_folder: Path | None = Field(default=None, description="measured files that reports show beside a run")
    instruments: dict[str, InstrumentSettings] = Field(default_factory=dict)
    serve: ServeSettings = ServeSettings()
    lease_s: float = Field(
        default=10.0, ge=1.0, le=600.0, description="a worker unheard of for so long, in s, has lost its instrument"
    )

    @model_validator(mode="before")
    @classmethod
    def _built_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = values.get("instruments", {})
        if not isinstance(given, Mapping):
            return values
        sections: dict[str, Any] = {name: {"adapter": name} for name in BUILT_IN}
        for name, section in given.items():
            is_bare = isinstance(section, Mapping) and name in BUILT_IN
            sections[name] = {"adapter": name, **section} if is_bare else section
        return {**values, "instruments": sections}

    @classmethod
    def load(
        cls,
        data: Path | None = None,
        settings: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """The settings: `--data`, else STEMPILOT_DATA, else ./stempilot-data; `--settings`, else its stempilot.toml.

        Raises SpecError listing every fault with its path, or where a file named by `settings` cannot be read; Refused
        where this computer has the facility's key and the instruments are not as the facility signed them last.
        """
        folder = _folder(data, environment)
        path = cls.path_of(data, settings, environment)
        document = read_document(path, must_exist=settings is not None)
        key = public_key_path(environment)
        if key is not None and (signature := check_signature(path, document, key)) is not None:
            check_age(signature, key, folder)
        if "data_folder" in document:
            raise SpecError(f"{path}: data_folder: not a setting of the file; give --data or set {DATA_VARIABLE}")
        document["data_folder"] = folder
        if environment.get(DATABASE_VARIABLE):
            document["database_url"] = environment[DATABASE_VARIABLE]
        if environment.get(REAL_DATA_VARIABLE):
            document["real_data_folder"] = environment[REAL_DATA_VARIABLE]
        if environment.get(PREFECT_VARIABLE) and isinstance(document.get("serve", {}), Mapping):
            document["serve"] = {**document.get("serve", {}), "prefect_url": environment[PREFECT_VARIABLE]}
        return cls.checked(path, document)._with_files_in(path.absolute().parent)

    @classmethod
    def path_of(cls, data: Path | None, settings: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
        """The settings file that `load` reads."""
        return settings if settings is not None else _folder(data, environment) / FILE_NAME

    @classmethod
    def folder_of(cls, data: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
        """The data folder that `load` chooses."""
        return _folder(data, environment)

    @classmethod
    def checked(cls, path: Path, document: Mapping[str, Any]) -> Self:
        """The settings of a document. Raises SpecError listing every fault with its path."""
        try:
            return cls.model_validate({"data_folder": Path(), **document})
        except ValidationError as error:
            lines = fault_lines(error, cls.model_json_schema())
            raise SpecError(f"{path}: {len(lines)} fault(s)\n  " + "\n  ".join(lines)) from error

    @property
    def served(self) -> list[str]:
        """Names of the instruments that get a host and a worker. Raises NotFound for one that is not configured."""
        names = sorted(self.instruments) if self.serve.instruments is None else self.serve.instruments
        return [name for name in names if self.instrument(name)]

    def instrument(self, name: str) -> InstrumentSettings:
        """The configured instrument of that name. Raises NotFound listing those there are."""
        if name not in self.instruments:
            known = ", ".join(sorted(self.instruments))
            raise NotFound(
                f"no instrument {name!r} is configured; there are {known}; add [instruments.{name}] to {FILE_NAME}"
            )
        return self.instruments[name]

    def _with_files_in(self, folder: Path) -> Self:
        """The same, where files named by a relative path lie in this folder, wherever a process is started."""
        instruments = {
            name: one.model_copy(update={"config": _with_files_in(folder, one.config, one.adapter)})
            for name, one in self.instruments.items()
        }
        return self.model_copy(update={"instruments": instruments})

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.settings_card(self)


def _with_files_in(folder: Path, config: Mapping[str, Any], adapter: str) -> dict[str, Any]:
    """A configuration with `ticket` as a whole path, also in its sections, such as `device_server`.

    So is the record of a replay, where it lies there.
    """
    whole = dict(config)
    for key, value in config.items():
        if isinstance(value, Mapping):
            whole[key] = _with_files_in(folder, cast("Mapping[str, Any]", value), adapter)
        elif isinstance(value, str):
            named = folder / Path(value).expanduser()
            if key == "ticket" or (adapter == "replay" and key in ("file", "folder") and named.exists()):
                whole[key] = str(named)
    return whole


def _folder(data: Path | None, environment: Mapping[str, str]) -> Path:
    return (data or Path(environment.get(DATA_VARIABLE) or DEFAULT_FOLDER)).expanduser().resolve()


def read_document(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """The settings file as it is written; empty where there is none. Raises SpecError for one that cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin a file with a mark
    except FileNotFoundError as error:
        if must_exist:
            raise SpecError(f"{path}: no such file; --settings names a {FILE_NAME}") from error
        return {}
    except NotADirectoryError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
