"""Instrument errors, named by what may happen next.

InstrumentError
  CommandRefused      nothing moved; the loop may choose another point
  InstrumentBusy      nothing moved; try again
  AcquisitionFailed   the dose was spent, the frame is lost; record it, then go on
  InstrumentFault     state unknown; stop, blank the beam, wait for a person
    LinkLost          nobody answers at the other end: assume the beam on, send nothing but a blank
    LookNeeded        nothing is issued until a person has looked at the instrument and acknowledged
  ResultUnknown       sent, no answer: the dose counts as spent, never repeat alone
  Unsupported         this instrument cannot; the policy must do without
  ConfigurationError  the instrument's configuration is wrong; nothing was opened
"""

from __future__ import annotations


class InstrumentError(Exception):
    """Anything an instrument says no with."""


class CommandRefused(InstrumentError):
    """Nothing moved; the loop may choose another point."""


class InstrumentBusy(InstrumentError):
    """Nothing moved; try again."""


class AcquisitionFailed(InstrumentError):
    """The dose was spent and the frame is lost; record it, then go on."""


class InstrumentFault(InstrumentError):
    """State unknown: stop, blank the beam, wait for a person."""


class LinkLost(InstrumentFault):
    """Nobody answers at the other end: assume that the beam is on; blank it first when the link is back."""


class LookNeeded(InstrumentFault):
    """Nothing is issued until a person has looked at the instrument and acknowledged."""


class ResultUnknown(InstrumentError):
    """Sent, no answer: the dose counts as spent; never repeat alone."""


class Unsupported(InstrumentError):
    """This instrument cannot; the policy must do without."""


class ConfigurationError(InstrumentError):
    """The instrument's configuration is wrong; nothing was opened."""
