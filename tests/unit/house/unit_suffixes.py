"""Which names a number may carry: every public field and argument of the five packages, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {
    # lengths, areas, densities
    "nm", "nm2", "nm3", "per_nm", "per_nm2", "per_nm3", "per_um2", "nm_per_px", "nm_per_s", "nm_per_min",
    "px", "per_px", "g_per_cm3",
    # angles; energies; currents; voltages; detector geometry
    "mrad", "deg", "sr", "ev", "per_100ev", "pa", "ua", "v", "mbar", "mm",
    # time (days: how long a person lets a signature hold)
    "us", "s", "days", "per_s", "hz",
    # dose
    "e_per_a2", "e_per_a2_s", "e_per_px", "electrons", "counts_per_electron", "barn",
    # temperature
    "k",
    # figures on a page
    "inches",
    # computing
    "bytes", "mb", "gib", "flops",
    # counts and numbers without a dimension that say so
    "count", "counts", "sites", "fraction",
}  # fmt: skip

# Textbook units stay inside the kernels of simulation (STYLE.md, section 1).
KERNEL_SUFFIXES = {
    "angstrom", "angstrom2", "angstrom3", "per_angstrom", "per_angstrom2", "rad", "v_angstrom",
    "rad_per_v_angstrom",
}  # fmt: skip

# Plain nouns: numbers without a dimension (or, where said, of the dimension of what they belong to).
NOUNS = {
    "accuracy": "relative error asked for",
    "alpha": "level of a statistical test",
    "amplitude": "column signal in fractions of the beam",
    "background": "in the unit of the image it belongs to",
    "backlash": "of an instrument axis, whose record names the unit",
    "best": "outcome to beat, in the objective's own unit",
    "blanked": "what a device is sent for it, in its own terms",
    "confidence": "probability",
    "contrast": "ratio",
    "coverage": "ratio",
    "decay": "ratio per step",
    "density_sigma": "standard deviation of a logarithm",
    "detectability": "d': difference over standard deviation",
    "deviance": "twice a log-likelihood ratio",
    "dispersion": "variance over mean of counts",
    "efficiency": "ratio",
    "error": "relative or standard error of the value beside it",
    "evidence": "logarithm of a likelihood",
    "exponent": "power",
    "factor": "multiplies",
    "fixed": "value of an instrument axis, whose name carries the unit",
    "floor": "smallest value allowed for what the function names",
    "gain": "of the acquisition function, in the objective's own unit",
    "growth": "ratio per step",
    "high": "bound of a search-space dimension, whose name carries the unit",
    "index": "which of several settings",
    "intensity": "fraction of the incident beam",
    "jitter": "added to a diagonal",
    "level": "of confidence or compression",
    "likelihood": "probability",
    "llr": "logarithm of a likelihood ratio",
    "lognormal_factor": "multiplies",
    "low": "bound of a search-space dimension, whose name carries the unit",
    "magnification": "ratio",
    "margin": "difference of logarithms or of like values",
    "max_step": "of an instrument axis, whose name carries the unit",
    "maximum": "of an instrument axis, whose record names the unit",
    "mean": "in the unit of the outcome it describes",
    "minimum": "of an instrument axis, whose record names the unit",
    "noise": "in the unit of the outcome it describes",
    "occupancy": "ratio",
    "odds": "ratio of probabilities",
    "offset": "of an instrument axis, in the unit of its device",
    "peak": "in standard deviations of what lies around it",
    "power": "exponent or test power",
    "precision": "ratio",
    "prior": "probability",
    "probability": "probability",
    "quantile": "probability",
    "rate": "false discovery rate; a rate in time ends in its unit",
    "ratio": "ratio",
    "recall": "ratio",
    "resolution": "actuator step of a search-space dimension, whose name carries the unit",
    "scale": "multiplies",
    "score": "of the objective, which documents it",
    "share": "ratio",
    "sigma": "standard deviation of a logarithm or in the unit of the value beside it",
    "strength": "of an oscillator: the number of electrons that answer as free ones would",
    "std": "in the unit of the outcome it describes",
    "threshold": "in the unit of what is compared",
    "tolerance": "relative",
    "underestimate": "ratio",
    "unblanked": "what a device is sent for it, in its own terms",
    "value": "in the unit its own record names",
    "values": "in the unit their own record names",
    "variance": "square of the outcome it describes",
    "weight": "ratio",
    "zero": "reading of a device that means zero, in the device's own unit",
}

# No suffix can save these as the whole name or its last word: they have a dimension and do not say which unit.
DIMENSIONAL = {
    "angle", "area", "azimuth", "camera_length", "convergence", "current", "defocus", "delay", "diameter", "distance",
    "dose", "duration", "dwell", "elapsed", "energy", "exposure", "flyback", "height", "length", "period", "position",
    "radius", "rotation", "size", "thickness", "tilt", "time", "timeout", "voltage", "wavelength", "width",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """One public field or argument and where it stands."""

    place: str
    name: str
    annotation: ast.expr
    is_kernel: bool

    @property
    def is_float(self) -> bool:
        """Whether a plain number can stand here, alone or in a sequence; the keys of mappings name their own units."""
        return "float" in _scalars(self.annotation)

    @property
    def is_number(self) -> bool:
        """A float as above, or an int."""
        return bool({"float", "int"} & _scalars(self.annotation))


def _scalars(annotation: ast.expr) -> set[str]:
    """Names of the plain types in an annotation, looking through unions, options, sequences and Annotated."""
    match annotation:
        case ast.Name(id=name):
            return {name}
        case ast.Constant(value=str() as quoted):
            return _scalars(ast.parse(quoted, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _scalars(left) | _scalars(right)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _scalars(first)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=elements)):
            return _of_one_kind(elements)
        case ast.Subscript(value=ast.Name(id="Optional" | "list" | "tuple" | "Sequence" | "Iterable"), slice=inner):
            return _scalars(inner)
    return set()


def _of_one_kind(elements: list[ast.expr]) -> set[str]:
    """The kind of a tuple's elements; one of mixed kinds, or longer than a point in space, is a record of its own."""
    plain = [element for element in elements if not (isinstance(element, ast.Constant) and element.value is Ellipsis)]
    kinds = [_scalars(element) for element in plain]
    return kinds[0] if len(plain) <= 3 and all(kind == kinds[0] for kind in kinds) else set()


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.arg]:
    arguments = function.args
    yield from (a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.annotation)


def _walk(body: list[ast.stmt], place: str, is_kernel: bool, is_class: bool) -> Iterator[Name]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) if _is_public(name):
                yield from _walk(node.body, f"{place}.{name}", is_kernel, True)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if _is_public(name) or name == "__init__":
                for argument in _arguments(node):
                    assert argument.annotation is not None
                    yield Name(f"{place}.{name}", argument.arg, argument.annotation, is_kernel)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if is_class and _is_public(name):
                yield Name(place, name, annotation, is_kernel)


def names_in(source: str, module: str) -> list[Name]:
    """Public fields of classes and arguments of functions of one module."""
    return list(_walk(ast.parse(source).body, module, module.split(".")[0] == "simulation", False))


def names_of(root: Path, packages: tuple[str, ...]) -> list[Name]:
    """All of them, in the order of the files; generated migrations are left out."""
    found: list[Name] = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            if "migrations" not in path.parts:
                module = ".".join(path.relative_to(root).with_suffix("").parts)
                found += names_in(path.read_text(encoding="utf-8"), module)
    return found


def _ends_in(name: str, endings: Container[str]) -> bool:
    """Whether the whole name, or what stands behind one of its underscores, is an ending."""
    words = name.split("_")
    return any("_".join(words[first:]) in endings for first in range(len(words)))


def complaint(name: Name) -> str | None:
    """What is wrong with a name, or None."""
    if not name.is_number:
        return None
    allowed = SUFFIXES | KERNEL_SUFFIXES if name.is_kernel else SUFFIXES
    # `std_nm`, `sigma_x_nm` and `x_nm_std`: a statistical word may follow the unit.
    if _ends_in(name.name, allowed) or any(_ends_in(name.name.removesuffix(f"_{noun}"), allowed) for noun in NOUNS):
        return None
    if _ends_in(name.name, DIMENSIONAL):
        return f"{name.place}: {name.name} has a dimension but no unit in its name"
    if name.is_float and not _ends_in(name.name, NOUNS):
        return f"{name.place}: {name.name} is a number: end it in a unit, or list it as a noun without dimension"
    return None
