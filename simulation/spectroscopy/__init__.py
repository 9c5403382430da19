"""Energy losses and X-rays: core-loss and low-loss spectra, plural scattering, EDS counts, maps with channelling.

Cross-sections in barn of one atom, spectra in electrons, energies in eV.
"""

from simulation.spectroscopy.background import PowerLaw, fit_power_law
from simulation.spectroscopy.channelling import atoms_seen_per_nm2
from simulation.spectroscopy.core_loss import cross_section_barn, cross_section_barn_per_ev, ionisation_barn
from simulation.spectroscopy.edges import Edge, edge
from simulation.spectroscopy.kinematics import characteristic_angle_mrad, delocalisation_nm
from simulation.spectroscopy.low_loss import DrudePlasmon, plasmon_energy_ev
from simulation.spectroscopy.plural import (
    plural_spectrum,
    single_scattering,
    thickness_over_mean_free_path,
    with_plural_losses,
    zero_loss_peak,
)
from simulation.spectroscopy.xrays import casnati_k_barn, counted_xrays, fluorescence_yield, solid_angle_sr

__all__ = [
    "DrudePlasmon",
    "Edge",
    "PowerLaw",
    "atoms_seen_per_nm2",
    "casnati_k_barn",
    "characteristic_angle_mrad",
    "counted_xrays",
    "cross_section_barn",
    "cross_section_barn_per_ev",
    "delocalisation_nm",
    "edge",
    "fit_power_law",
    "fluorescence_yield",
    "ionisation_barn",
    "plasmon_energy_ev",
    "plural_spectrum",
    "single_scattering",
    "solid_angle_sr",
    "thickness_over_mean_free_path",
    "with_plural_losses",
    "zero_loss_peak",
]
