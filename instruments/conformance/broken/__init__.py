"""Microscopes broken on purpose, one fault each: what the kit must find, shown on any good one wrapped in them."""

from instruments.conformance.broken.faults import FAULTS, Fault, fault_named

__all__ = ["FAULTS", "Fault", "fault_named"]
