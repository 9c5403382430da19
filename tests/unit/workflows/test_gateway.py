"""How a gateway serves: encrypted where others can reach it; the specimen's dose goes into the journal of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from instruments import Calibration, CalibrationRegistry, ConfigurationError, SafetyEnvelope
from instruments.dose_file import SpecimenDose
from instruments.remote import Listening
from orchestrator.catalogue import Catalogue
from orchestrator.events import INSTRUMENT_DESCRIBED, SPECIMEN_DOSE
from orchestrator.settings import InstrumentSettings
from tests.integration.bench_microscope import BenchMicroscope
from workflows.described import looking_back, note_instrument, note_specimen
from workflows.gateway import Gateway, Specimen, encrypted, within_limits


def gateway(host: str, *, is_plain: bool = False, certificate: Path | None = None) -> Gateway:
    listening = Listening(host=host, certificate=certificate, certificate_key=certificate)
    return Gateway(listening=listening, address="titan.example", specimen="a", is_plain=is_plain)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_what_only_this_machine_can_reach_is_not_encrypted(host: str, tmp_path: Path) -> None:
    assert encrypted(gateway(host), tmp_path, "titan").certificate is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "titan.example"])
def test_what_others_can_reach_is_unless_somebody_says_otherwise(host: str, tmp_path: Path) -> None:
    made = encrypted(gateway(host), tmp_path, "titan")
    assert made.tls() is not None
    kept = made.certificate.read_bytes() if made.certificate is not None else b""
    again = encrypted(gateway(host), tmp_path, "titan").certificate
    assert again is not None
    assert again.read_bytes() == kept, "a restart voids no ticket"
    assert encrypted(gateway(host, is_plain=True), tmp_path, "titan").tls() is None
    theirs = tmp_path / "facility.pem"
    assert encrypted(gateway(host, certificate=theirs), tmp_path, "titan").certificate == theirs


def test_the_books_belong_to_the_specimen(tmp_path: Path) -> None:
    entry = InstrumentSettings(adapter="bench", safety=SafetyEnvelope())
    with pytest.raises(ConfigurationError, match="send neither"):
        within_limits(entry, Specimen.opened(tmp_path, "titan", "a").ledger)("gateway", {"host": "elsewhere"})
    Specimen.opened(tmp_path, "titan", "a").ledger.add_point(0.0, 0.0, 1e5)
    assert Specimen.opened(tmp_path, "titan", "a").specimen_dose() == SpecimenDose(
        specimen="a", electrons=1e5, dose_max_e_per_a2=1e3
    )
    assert Specimen.opened(tmp_path, "titan", "b").specimen_dose().electrons == 0.0


class Counting(BenchMicroscope):
    """A bench that knows its specimen."""

    def specimen_dose(self) -> SpecimenDose:
        return SpecimenDose(specimen="a", electrons=7.0, dose_max_e_per_a2=0.5)


def test_a_run_notes_what_the_specimen_got_before(catalogue_folder: Path) -> None:
    with Catalogue.open(catalogue_folder) as catalogue:
        own = catalogue.create_experiment(name="a", spec={}, seed=1, engine="local", options={})
        note_specimen(catalogue, own, BenchMicroscope("works"))
        note_specimen(catalogue, own, Counting("works"))
        [event] = catalogue.events(own, kinds=(SPECIMEN_DOSE,))
    assert event.payload == {"specimen": "a", "electrons": 7.0, "dose_max_e_per_a2": 0.5}


def test_a_run_notes_what_its_calibrations_say_once(catalogue_folder: Path) -> None:
    """A frame has their ids alone; standard, date, uncertainty and expiry have to be found somewhere."""
    known = CalibrationRegistry([
        Calibration.model_validate({
            "id": "grating-7", "quantity": "pixel_size_nm", "values": {"scale": 1.01}, "uncertainties": {"scale": 0.01},
            "standard": "gold", "measured_at": "2026-01-01T00:00:00Z", "expires_at": "2026-06-01T00:00:00Z",
        })
    ])  # fmt: skip
    bench = BenchMicroscope("works")
    with Catalogue.open(catalogue_folder) as catalogue:
        own = catalogue.create_experiment(name="a", spec={}, seed=1, engine="local", options={})
        for _ in range(2):
            note_instrument(catalogue, own, bench.capabilities(), known)
        [event] = catalogue.events(own, kinds=(INSTRUMENT_DESCRIBED,))
        assert looking_back(catalogue, own)("bench", {}).capabilities() == bench.capabilities()
    [kept] = event.payload["calibrations"]
    assert Calibration.model_validate(kept) == next(iter(known))
