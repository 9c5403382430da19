"""What this installation can do, and what to do about what it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

from orchestrator.catalogue import Catalogue
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from orchestrator.versions import versions

OUR_PACKAGES = ("instruments", "simulation", "policies", "orchestrator", "workflows")
EXTRAS = {
    "gpu": "cupy", "nion": "nion.instrumentation", "temscript": "temscript", "merlin": "libertem_live",
    "epics": "caproto", "notebook": "jupyterlab", "fftw": "pyfftw",
}  # fmt: skip
_FREE_BYTES = 2e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `level` is ok, note or fault."""

    level: str
    what: str
    found: str

    def to_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Everything, in reading order."""
    checks: list[Callable[[Settings], list[Finding]]] = [_python, _packages, _prefect, _devices, _extras, _data_folder]
    return [finding for check in checks for finding in check(settings)]


def _python(settings: Settings) -> list[Finding]:
    del settings
    good = sys.version_info >= (3, 11)
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    return [Finding("ok" if good else "fault", "versions", found)]


def _packages(settings: Settings) -> list[Finding]:
    """Other distributions ship packages called `instruments` and `workflows`; ours must be the ones imported."""
    del settings
    findings: list[Finding] = []
    roots: set[Path] = set()
    for name in OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            findings.append(Finding("fault", f"package {name}", "cannot be imported; install stempilot again"))
            continue
        roots.add(Path(spec.origin).parent.parent)
        others = [owner for owner in packages_distributions().get(name, []) if owner != "stempilot"]
        if others:
            findings.append(
                Finding(
                    "fault", f"package {name}", f"also shipped by {', '.join(others)}; use an environment without it"
                )
            )
    if len(roots) > 1:
        findings.append(Finding("fault", "packages", f"imported from {len(roots)} places; use a fresh environment"))
    return findings or [Finding("ok", "packages", "the five packages imported are ours")]


def _prefect(settings: Settings) -> list[Finding]:
    del settings
    found = versions()
    good = found.get("prefect", "").startswith("3.8.") and (0, 139) <= _minor(found.get("fastapi", "0.0")) < (0, 155)
    words = f"prefect {found.get('prefect', 'missing')}, fastapi {found.get('fastapi', 'missing')}"
    if good:
        return [Finding("ok", "prefect engine", words)]
    return [
        Finding(
            "fault",
            "prefect engine",
            f"{words}; tested together: prefect>=3.8.8,<3.9 and fastapi>=0.139,<0.155; or --engine local",
        )
    ]


def _minor(text: str) -> tuple[int, int]:
    parts = [*text.split("."), "0", "0"][:2]
    return (int(parts[0]), int(parts[1])) if all(part.isdigit() for part in parts) else (0, 0)


def _devices(settings: Settings) -> list[Finding]:
    del settings
    import torch

    if torch.cuda.is_available():
        return [Finding("ok", "GPU", torch.cuda.get_device_name(0))]
    return [Finding("note", "GPU", f"none; the CPU is used ({os.cpu_count()} cores)")]


def _extras(settings: Settings) -> list[Finding]:
    del settings
    missing = [extra for extra, module in EXTRAS.items() if importlib.util.find_spec(module.partition(".")[0]) is None]
    present = [extra for extra in EXTRAS if extra not in missing]
    words = f"installed: {', '.join(present) or 'none'}; not installed: {', '.join(missing) or 'none'}"
    return [Finding("note", "extras", f"{words} (pip install 'stempilot[NAME]')")]


def _data_folder(settings: Settings) -> list[Finding]:
    folder = settings.data_folder
    if not folder.exists():
        return [Finding("note", "data folder", f"{folder} does not exist yet; the first run makes it")]
    free = shutil.disk_usage(folder).free
    level = "ok" if free > _FREE_BYTES else "fault"
    findings = [
        Finding(level, "disk", f"{free / 1e9:.1f} GB free at {folder}" + ("" if level == "ok" else "; make room"))
    ]
    try:
        with Catalogue.open(folder, url=settings.database_url, read_only=True) as catalogue:
            count = len(catalogue.experiments(include_children=False))
        findings.append(Finding("ok", "catalogue", f"{count} experiments in {folder}"))
    except OrchestratorError as error:
        findings.append(Finding("fault", "catalogue", str(error)))
    return findings
