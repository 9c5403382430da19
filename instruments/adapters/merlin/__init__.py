"""A Quantum Detectors Merlin as the pixelated detector of a scan; `open_merlin` opens it. The client is our own."""

from instruments.adapters.merlin.microscope import MerlinMicroscope, open_merlin

__all__ = ["MerlinMicroscope", "open_merlin"]
