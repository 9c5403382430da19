"""`stempilot simulate`: files and pictures from a structure, and what is said of wrong input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from instruments import Optics
from orchestrator.catalogue.nexus_reader import decode
from orchestrator.errors import SpecError
from simulation import AnnularDetector, InvalidSpecimen, SegmentedDetector
from workflows.cli import simulate_commands
from workflows.cli.app import app
from workflows.cli.simulation_options import coherence_of, detectors_of, displacements_of, optics_of
from workflows.image_simulation import Simulated, StructureRequest, built, files

OPTICS = "beam_energy_ev=60e3,semi_convergence_angle_mrad=30"
QUICK = ("--sampling-nm", "0.016", "--shape-px", "6,8", "--field-of-view-nm", "0.8")
EVENT = "entry1/measurement/event1"


def ran(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def document(*arguments: object) -> dict[str, Any]:
    done = ran(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_file_with_counts_and_fractions_and_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "mos2.nxs"
    told = document("MoS2", "--optics", OPTICS, *QUICK, "--detector", "haadf=60:100", "--detector", "dpc=10:30:1x2",
                    "--dose-e-per-px", 500, "--coherence", "source_size_nm=0.05", "--out", out)  # fmt: skip
    assert (told["file"], told["picture"]) == (str(out), str(tmp_path / "mos2.png"))
    assert told["shape_px"] == [6, 8]
    assert told["pixel_size_nm"] == pytest.approx(0.1)
    assert told["dose_e_per_a2"] == pytest.approx(500)
    frame = decode(out.read_bytes(), "mos2")
    assert frame.simulated
    assert frame.counts.keys() == {"haadf", "dpc_1_1", "dpc_1_2"}
    assert frame.requested.scan.shape_px == (6, 8)
    assert frame.state.coherence is not None
    assert frame.state.coherence.source_size_nm == 0.05
    exposure_us = frame.requested.scan.dwell_time_us
    assert frame.requested.optics.probe_current_pa * exposure_us * 6.241509 == pytest.approx(500, rel=1e-6)
    with h5py.File(out) as file:
        event = file[EVENT]
        fraction = event["image_dpc_1_1_fraction/image_2d/real"][()]
        assert fraction.dtype == np.float32
        counts = frame.counts["dpc_1_1"]
        np.testing.assert_allclose(counts.mean(), 500 * fraction.mean(), atol=5 * np.sqrt(500 * fraction.mean() / 48))
        assert counts.dtype == np.uint32
        assert event.attrs["default"] == "image_haadf"
        np.testing.assert_allclose(np.diff(event["image_haadf_fraction/image_2d/axis_i"][()]), 0.1)
        assert file["entry1/sampleID/is_simulation"][()]
        assert file["entry1/sampleID/atom_types"].asstr()[()] == "Mo, S"
        context = json.loads(file["entry1/stempilot/documents/context"].asstr()[()])
    assert context["simulation"]["method"] == told["method"]
    assert context["structure"]["repeat"] == told["repeat"]
    assert context["structure"]["unit_cell_extxyz"].startswith("6\nLattice=")
    with Image.open(tmp_path / "mos2.png") as picture:
        assert picture.size[0] > 1500


def test_without_a_dose_there_are_fractions_alone(tmp_path: Path) -> None:
    out = tmp_path / "sto.h5"
    double = ("--set", "precision=double", "--set", "specimen_tilt_mrad=[2, 0]")
    assert ran("SrTiO3", "--optics", OPTICS, *QUICK, *double, "--out", out).exit_code == 0
    frame = decode(out.read_bytes(), "sto")
    assert (frame.counts, frame.electrons) == ({}, 0)
    with h5py.File(out) as file:
        assert file[EVENT].attrs["default"] == "image_haadf_fraction"
        assert {"image_haadf_fraction", "image_abf_fraction"} <= set(file[EVENT])
        assert file[EVENT]["image_abf_fraction/image_2d/real"].dtype == np.float64


def test_a_picture_alone_and_nothing_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "sto.png"
    told = ran("SrTiO3", "--optics", OPTICS, *QUICK, "--out", out)
    assert told.exit_code == 0
    assert f"wrote {out}" in told.stdout
    assert "periodic (as multislice)" in told.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["sto.png"]
    before = out.read_bytes()
    assert ran("SrTiO3", "--optics", OPTICS, *QUICK, "--out", out).exit_code == 2
    assert out.read_bytes() == before


def test_what_the_simulator_warns_of_is_a_note(tmp_path: Path) -> None:
    told = document("SrTiO3", "--optics", OPTICS, *QUICK, "--repeat", "1,1,1", "--optics", "defocus_nm=20",
                    "--out", tmp_path / "sto.png")  # fmt: skip
    assert any("it meets itself round the edge" in note for note in told["notes"])


def test_who_interrupts_it_finds_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_commands, "simulated", interrupted)
    done = ran("SrTiO3", "--optics", OPTICS, "--out", tmp_path / "sto.nxs")
    assert done.exit_code == 130
    assert "nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "picture_bytes", interrupted)
    assert ran("SrTiO3", "--optics", OPTICS, *QUICK, "--out", tmp_path / "sto.nxs").exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # root may write anywhere
    monkeypatch.setattr(simulate_commands, "simulated", pytest.fail)
    done = ran("SrTiO3", "--optics", OPTICS, "--out", tmp_path / "sto.nxs")
    assert done.exit_code == 6
    assert "cannot be written; change its rights" in done.stderr


def test_a_full_disk_is_said_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: few)
    monkeypatch.setattr(simulate_commands, "simulated", pytest.fail)
    done = ran("SrTiO3", "--optics", OPTICS, "--out", tmp_path / "sto.nxs")
    assert done.exit_code == 6
    assert f"--out {tmp_path / 'sto.nxs'}: the disk of {tmp_path} is full, 4096 bytes are free" in done.stderr
    assert "make room, or name a file on another disk" in done.stderr
    assert "resume" not in done.stderr


def test_a_folder_lost_meanwhile_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    drawn = files.picture_bytes

    def drawn_late(made: Simulated) -> bytes:
        folder.rmdir()
        return drawn(made)

    monkeypatch.setattr(files, "picture_bytes", drawn_late)
    done = ran("SrTiO3", "--optics", OPTICS, *QUICK, "--out", folder / "sto.nxs")
    assert done.exit_code == 6
    assert f"{folder} cannot be written (No such file or directory); name a file in another folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "sto.png").mkdir()
    done = ran("SrTiO3", "--optics", OPTICS, "--overwrite", "--out", tmp_path / "sto.nxs")
    assert done.exit_code == 2
    assert "sto.png is a folder; name a file" in done.stderr


def test_every_device_is_in_the_help() -> None:
    told = " ".join(CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "auto, cpu, cuda, cupy, numpy" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "--optics", OPTICS), "nothing: there is no such file, and no structure of this name"),
        (("mos2", "--optics", OPTICS), "no structure of this name; did you mean MoS2?"),
        (("", "--optics", OPTICS), "an empty name: there is no such file"),
        (("SrTiO3", "--optics", OPTICS, "--set", "double"), "--set double: write KEY=VALUE, such as precision=double"),
        (("SrTiO3",), "--optics is missing"),
        (("SrTiO3", "--optics", "beam_energy_ev=-3,angle=1"), "semi_convergence_angle_mrad: missing; add it"),
        (("SrTiO3", "--optics", "nofile.yaml"), "nofile.yaml: cannot be read"),
        (("SrTiO3", "--optics", OPTICS, "--detector", "haadf=80"), "write NAME=INNER:OUTER in mrad"),
        (("SrTiO3", "--optics", OPTICS, "--detector", "haadf=900:990"), "beyond the antialias cutoff"),
        (("SrTiO3", "--optics", OPTICS, "--repeat", "2,2"), "is not 3 numbers"),
        (("SrTiO3", "--optics", OPTICS, "--repeat", "999,999,999"), "above 2000000; repeat it less"),
        (("SrTiO3", "--optics", OPTICS, "--shape-px", "1,1"), "give 2 or more a side"),
        (("SrTiO3", "--optics", OPTICS, "--phonons", "2"), "needs --rms-displacement-nm"),
        (("SrTiO3", "--optics", OPTICS, "--dwell-time-us", "2"), "at 0 pA gives no electrons"),
        (("SrTiO3", "--optics", OPTICS, "--dose-e-per-px", "2", "--dose-e-per-a2", "2"), "give one of them"),
        (("SrTiO3", "--optics", OPTICS, "--dose-e-per-a2", "-5"), "--dose-e-per-a2 -5: give more than 0, up to"),
        (("SrTiO3", "--optics", OPTICS, "--dose-e-per-px", "1e12"), "--dose-e-per-px 1e+12: give more than 0, up to"),
        (("SrTiO3", "--optics", OPTICS, "--method", "magic"), "unknown method 'magic'"),
        (("SrTiO3", "--optics", OPTICS, "--set", "placement=anywhere"), "unknown placement 'anywhere'"),
        (("SrTiO3", "--optics", OPTICS, "--set", "grid_shape_px=4"), "no such setting, or not its kind of value"),
        (("MoS2", "--optics", OPTICS, "--thickness-nm", "3"), "leave --thickness-nm out"),
        (("SrTiO3", "--optics", OPTICS, "--seed", "-1"), "seed"),
    ],
    ids=lambda value: None if isinstance(value, Sequence) and not isinstance(value, str) else str(value)[:20],
)
def test_wrong_input_is_named_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ran(*arguments, "--out", tmp_path / "x.nxs")
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_optics_come_from_files_and_pairs(tmp_path: Path) -> None:
    path = tmp_path / "optics.yaml"
    path.write_text("beam_energy_ev: 8.0e+4\nsemi_convergence_angle_mrad: 30\naberrations: {c30_nm: -500}\n")
    optics = optics_of([str(path), "beam_energy_ev=60e3,aberrations.c12_nm=2"])
    assert optics.beam_energy_ev == 60e3
    assert (optics.aberrations.c30_nm, optics.aberrations.c12_nm) == (-500, 2)
    assert optics_of([str(path), "c30_nm=-7"]).aberrations.c30_nm == -7
    with pytest.raises(SpecError, match=r"aberrations\.c30_nm"):
        optics_of([str(path), "c30_nm=much"])
    assert coherence_of(["source_size_nm=0.08"]).source_size_nm == 0.08
    path.write_text("- 3\n")
    assert optics_of(['{"beam_energy_ev": 2e5, "semi_convergence_angle_mrad": 20}']).beam_energy_ev == 2e5
    with pytest.raises(SpecError, match="holds no mapping"):
        optics_of([str(path)])


def test_detectors_and_displacements_as_people_write_them() -> None:
    assert detectors_of(["haadf=80:160", "dpc=1e1:30:2x8"]) == {
        "haadf": AnnularDetector(80, 160), "dpc": SegmentedDetector(10, 30, 2, 8),
    }  # fmt: skip
    with pytest.raises(SpecError, match="already"):
        detectors_of(["a=1:2", "a=2:3"])
    assert displacements_of("0.008") == 0.008
    assert displacements_of("Sr=0.008, O=0.01") == {"Sr": 0.008, "O": 0.01}


POSCAR = """GaN
1.0
3.189 0 0
-1.5945 2.7617551 0
0 0 5.185
Ga N
2 2
Direct
0.3333333 0.6666667 0
0.6666667 0.3333333 0.5
0.3333333 0.6666667 0.376
0.6666667 0.3333333 0.876
"""


CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Sr 0 0 0 0.5
Ba 0 0 0 0.5
"""


def test_what_a_file_leaves_open_is_not_settled_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "mixed.cif"
    path.write_text(CIF)
    with pytest.raises(InvalidSpecimen, match=r"partly occupied \(Sr 0.5 \+ Ba 0.5\); atoms are simulated whole"):
        built(StructureRequest(name=str(path)))
    path.write_text(CIF.replace("Sr 0 0 0 0.5\n", "").replace("0.5\n", "0.7\n"))
    with pytest.raises(InvalidSpecimen, match=r"partly occupied \(Ba 0.7\)"):
        built(StructureRequest(name=str(path)))
    below = tmp_path / "below.xyz"
    below.write_text('2\nLattice="4 0 0 0 4 0 0 0 4"\nSr 0 0 -1\nBa 2 2 2\n')
    with pytest.raises(InvalidSpecimen, match=r"atom 0, at z = -1 angstrom.*--zone-axis 0,0,1;.*--vacuum-nm"):
        built(StructureRequest(name=str(below)))
    assert built(StructureRequest(name=str(below), zone_axis=(0, 0, 1))).atoms.positions[:, 2].max() < 4
    assert built(StructureRequest(name=str(below), vacuum_nm=0.2)).atoms.positions[:, 2].min() > 0
    path.write_text(CIF.replace("Sr 0 0 0 0.5", "Sr 0 0 0 1").replace("Ba 0 0 0 0.5", "Ba 0.01 0 0 1"))
    made = built(StructureRequest(name=str(path)))
    assert made.notes == ("atoms 0 and 1 are nearer than 0.05 nm (pairs like this: 1): are they in the file twice?",)
    with pytest.raises(SpecError, match="is a folder; give a structure file in it"):
        built(StructureRequest(name=str(tmp_path)))
    far = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=1e6)
    with pytest.raises(SpecError, match="reduce defocus"):
        built(StructureRequest(name="SrTiO3", optics=far))


def test_structures_are_made_orthogonal_turned_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "POSCAR"
    path.write_text(POSCAR)
    made = built(StructureRequest(name=str(path), thickness_nm=1.1, vacuum_nm=0.5))
    assert (made.repeat, len(made.unit), len(made.atoms)) == ((7, 4, 2), 8, 8 * 56)
    assert made.cell_nm == pytest.approx((2.2323, 2.2094, 2 * 0.5185 + 1.0), abs=1e-4)
    assert made.notes == ("cell not orthogonal: replaced by its orthogonal supercell of 8 atoms",)
    wide = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=50)
    assert built(StructureRequest(name=str(path), optics=wide)).repeat == (10, 6, 1)
    turned = built(StructureRequest(name=str(path), zone_axis=(1, 0, 0), repeat=(1, 1, 1)))
    assert turned.cell_nm[2] == pytest.approx(0.3189)
    leaning = POSCAR.replace("0 0 5.185", "1 0 5.185")
    path.write_text(leaning)
    with pytest.raises(ValueError, match="with --zone-axis 0,0,1"):
        built(StructureRequest(name=str(path)))
