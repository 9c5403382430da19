"""Enumerations of the double."""


class RegionCoordinateSystem:
    RELATIVE = "Relative"
