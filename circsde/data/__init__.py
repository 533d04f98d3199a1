"""Data as phases: images, tables of angles, textures and generated fingerprints."""

from .fingerprint import fingerprints
from .sources import Phases, load

__all__ = ["Phases", "fingerprints", "load"]
