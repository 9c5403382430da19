"""`stempilot simulate`: from a structure and optics to a file with its context and a picture."""

from workflows.image_simulation.files import Written, write
from workflows.image_simulation.imaging import Request, Simulated, simulated
from workflows.image_simulation.structures import Built, StructureRequest, built

__all__ = ["Built", "Request", "Simulated", "StructureRequest", "Written", "built", "simulated", "write"]
