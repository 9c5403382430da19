"""Readers of measured files: a file in, arrays with units out; `adapters` replay what they return."""

from instruments.readers.spectrum_maps import SpectrumMaps, read_spectrum_maps

__all__ = ["SpectrumMaps", "read_spectrum_maps"]
