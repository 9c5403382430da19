"""`stempilot simulate`: images of a structure, without a spec, a catalogue or an instrument."""

from __future__ import annotations

import json
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.errors import SpecError
from simulation import DebyeWaller, FrozenPhonons, SimulationError, reporting
from simulation.backend import DEVICES
from simulation.errors import ProbeOutgrowsCell, SourceUnresolved
from simulation.method_choice import METHODS
from workflows.cli.app import app
from workflows.cli.fail import INTERRUPTED, explained
from workflows.cli.options import JsonOption
from workflows.cli.simulation_options import (
    coherence_of,
    detectors_of,
    displacements_of,
    numbers_of,
    optics_of,
    settings_of,
)
from workflows.cli.simulation_view import RichBar
from workflows.image_simulation import Built, Request, Simulated, StructureRequest, Written, built, simulated, write
from workflows.image_simulation.files import targets
from workflows.interrupting import terminable

_WORDS = "KEY=VALUE,..."


@app.command()
@explained
def simulate(
    structure: Annotated[
        str, typer.Argument(help="file (CIF, extended XYZ, POSCAR, others of ase), or a name: SrTiO3, MoS2")
    ],
    out: Annotated[Path, typer.Option("--out", help="FILE.nxs, .h5 (and a PNG beside it), or FILE.png alone")],
    optics: Annotated[
        list[str] | None,
        typer.Option(
            "--optics",
            metavar=f"FILE.yaml|{_WORDS}",
            help="beam_energy_ev, semi_convergence_angle_mrad, c30_nm, ...",
        ),
    ] = None,
    coherence: Annotated[
        list[str] | None, typer.Option("--coherence", metavar=_WORDS, help="source_size_nm (FWHM), focal_spread_nm")
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            "--detector",
            metavar="NAME=INNER:OUTER[:RINGSxSEGMENTS]",
            help="mrad; default haadf and abf by the aperture",
        ),
    ] = None,
    zone_axis: Annotated[
        str | None, typer.Option("--zone-axis", metavar="U,V,W", help="lattice direction along the beam")
    ] = None,
    repeat: Annotated[
        str | None, typer.Option("--repeat", metavar="X,Y,Z", help="default: 2 nm or the probe wide, once deep")
    ] = None,
    thickness_nm: Annotated[
        float | None, typer.Option("--thickness-nm", help="instead of Z: nearest whole cells")
    ] = None,
    vacuum_nm: Annotated[float, typer.Option("--vacuum-nm", help="before and after the specimen")] = 0.0,
    field_of_view_nm: Annotated[
        float | None, typer.Option("--field-of-view-nm", help="width; default: the cell")
    ] = None,
    shape_px: Annotated[
        str | None, typer.Option("--shape-px", metavar="ROWS,COLUMNS", help="square pixels; default 0.02 nm")
    ] = None,
    centre_nm: Annotated[
        str | None, typer.Option("--centre-nm", metavar="X,Y", help="default: middle of the cell")
    ] = None,
    dose_e_per_a2: Annotated[float | None, typer.Option("--dose-e-per-a2", help="raw counts with shot noise")] = None,
    dose_e_per_px: Annotated[
        float | None, typer.Option("--dose-e-per-px", help="the same, by electrons on a pixel")
    ] = None,
    dwell_time_us: Annotated[
        float | None, typer.Option("--dwell-time-us", help="the same, with probe_current_pa")
    ] = None,
    phonons: Annotated[
        int, typer.Option("--phonons", min=0, help="frozen-phonon configurations; 0: atoms at rest")
    ] = 0,
    rms_displacement_nm: Annotated[
        str | None, typer.Option("--rms-displacement-nm", metavar="NM|EL=NM,...", help="per axis")
    ] = None,
    debye_waller: Annotated[
        bool, typer.Option("--debye-waller", help="instead of --phonons: the potential smeared, no diffuse background")
    ] = False,
    method: Annotated[str, typer.Option("--method", help=", ".join(METHODS))] = "auto",
    accuracy: Annotated[float, typer.Option("--accuracy", help="rms error over the image's spread, for auto")] = 0.01,
    interpolation: Annotated[int, typer.Option("--interpolation", help="of PRISM")] = 1,
    sampling_nm: Annotated[float, typer.Option("--sampling-nm", help="pixel of the waves")] = 0.005,
    slice_thickness_nm: Annotated[float, typer.Option("--slice-thickness-nm")] = 0.2,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="placement, precision, specimen_tilt_mrad, ..."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help=", ".join(DEVICES))] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="on a CPU; default OMP_NUM_THREADS or half of the processors")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option("--memory-gib", help="what an image may take; default: 1 kept, more in passing")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of phonons, shot noise and check probes")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there")] = False,
    as_json: JsonOption = False,
) -> None:
    """Image a structure: an NXem file with the complete context, and a picture with a scale bar.

    Example: stempilot simulate SrTiO3 --optics beam_energy_ev=2e5,semi_convergence_angle_mrad=25 --out sto.nxs
    """  # fmt: skip
    places, begun = targets(out, overwrite=overwrite), datetime.now(UTC)
    commanded = optics_of(optics or [])
    asked = StructureRequest(
        name=structure,
        zone_axis=_whole(zone_axis, "--zone-axis U,V,W", 3),
        repeat=_whole(repeat, "--repeat X,Y,Z", 3),
        thickness_nm=thickness_nm,
        vacuum_nm=vacuum_nm,
        optics=commanded,
    )
    request = Request(
        optics=commanded,
        coherence=coherence_of(coherence or []),
        detectors=detectors_of(detector or []),
        field_of_view_nm=field_of_view_nm,
        shape_px=_whole(shape_px, "--shape-px ROWS,COLUMNS", 2),
        centre_nm=_pair(centre_nm),
        dose_e_per_px=dose_e_per_px,
        dose_e_per_a2=dose_e_per_a2,
        dwell_time_us=dwell_time_us,
        phonons=_phonons(phonons, rms_displacement_nm, is_smeared=debye_waller),
        seed=seed,
        settings={
            "method": method, "accuracy": accuracy, "interpolation": interpolation, "sampling_nm": sampling_nm,
            "slice_thickness_nm": slice_thickness_nm, "device": device, "threads": threads,
            "memory_gib": memory_gib, **settings_of(set_ or []),
        },
    )  # fmt: skip
    try:
        with terminable(), reporting(RichBar.if_seen()), warnings.catch_warnings(record=True) as warned:
            for kind in (ProbeOutgrowsCell, SourceUnresolved):
                warnings.simplefilter("always", kind)
            atoms = built(asked)
            made = simulated(atoms, request)
            written = write(places, atoms, made, begun, {"command": sys.argv[1:]})
    except SimulationError as error:
        raise SpecError(str(error)) from error
    except KeyboardInterrupt:
        print("stempilot: interrupted; nothing was written", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    document = _document(atoms, made, written, [str(warning.message) for warning in warned])
    print(json.dumps(document) if as_json else _told(document, atoms))


def _whole(text: str | None, option: str, count: int) -> Any:
    """So many whole numbers."""
    if text is None:
        return None
    found = numbers_of(text, option, count)
    if any(value != int(value) for value in found):
        raise SpecError(f"{option}: {text!r} are not whole numbers")
    return tuple(int(value) for value in found)


def _pair(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    x_nm, y_nm = numbers_of(text, "--centre-nm X,Y", 2)
    return x_nm, y_nm


def _phonons(count: int, displacements: str | None, *, is_smeared: bool) -> FrozenPhonons | DebyeWaller | None:
    if count == 0 and displacements is None and not is_smeared:
        return None
    if displacements is None or is_smeared is (count > 0):
        raise SpecError(
            "thermal vibration needs --rms-displacement-nm (per axis) and one of --phonons COUNT and --debye-waller"
        )
    try:
        sigmas_nm = displacements_of(displacements)
        return DebyeWaller(sigmas_nm) if is_smeared else FrozenPhonons(count, sigmas_nm)
    except SimulationError as error:
        raise SpecError(str(error)) from error


def _document(atoms: Built, made: Simulated, written: Written, warned: list[str]) -> dict[str, Any]:
    attributes = made.images.attrs
    estimate = attributes["error_estimate"]
    images = {
        str(name): {
            "mean_fraction": float(made.images[name].mean()),
            "lowest_fraction": float(made.images[name].min()),
            "highest_fraction": float(made.images[name].max()),
        }
        for name in made.images.data_vars
    }
    return {
        "file": None if written.nexus is None else str(written.nexus),
        "sha256": written.sha256,
        "picture": str(written.picture),
        "atom_count": len(atoms.atoms),
        "cell_nm": list(atoms.cell_nm),
        "repeat": list(atoms.repeat),
        "shape_px": list(made.scan.shape_px),
        "pixel_size_nm": made.pixel_nm,
        "electrons_e_per_px": made.electrons_e_per_px,
        "dose_e_per_a2": made.electrons_e_per_px / (made.pixel_nm**2 * 100),
        "method": attributes["method"],
        "error_estimate": None if estimate != estimate else estimate,
        "clipped_outer_mrad": json.loads(attributes["clipped_outer_mrad"]),
        "notes": [*atoms.notes, *warned, *_assumed(made)],
        "images": images,
    }


def _assumed(made: Simulated) -> list[str]:
    """What the file says of an exposure that nobody gave; without a dose there is no exposure to be wrong about."""
    if not made.assumed or made.electrons_e_per_px == 0:
        return []
    current = f" and {made.optics.probe_current_pa:.4g} pA" if "probe_current_pa" in made.assumed else ""
    return [f"the dose is written as {made.dwell_time_us:g} us{current} a pixel, which is assumed"]


def _told(document: dict[str, Any], atoms: Built) -> str:
    """The document in a few lines."""
    width, height, depth = document["cell_nm"]
    rows, columns = document["shape_px"]
    repeated = " x ".join(map(str, document["repeat"]))
    error = document["error_estimate"]
    known = (
        "states no error"
        if error is None
        else "as multislice"
        if error == 0
        else f"error about {error:.1%} of the spread"
    )
    lines = [
        *document["notes"],
        f"{atoms.source}; repeated {repeated}",
        f"{document['atom_count']} atoms in {width:.3f} x {height:.3f} x {depth:.3f} nm",
        f"{rows} x {columns} pixels of {document['pixel_size_nm']:.4g} nm by {document['method']} ({known})",
        *(
            f"detector {name} ends at the antialias cutoff, {mrad:.1f} mrad; a finer --sampling-nm takes it further"
            for name, mrad in document["clipped_outer_mrad"].items()
        ),
        *(
            f"{name}: {shown['lowest_fraction']:.4g} to {shown['highest_fraction']:.4g} of the beam,"
            f" mean {shown['mean_fraction']:.4g}"
            for name, shown in document["images"].items()
        ),
        f"wrote {' and '.join(filter(None, (document['file'], document['picture'])))}",
    ]
    return "\n".join(lines)
