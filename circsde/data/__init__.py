"""Data as phases: images, tables of angles, textures and generated fingerprints."""

from .fingerprint import fingerprints
from .image_set import ImageSet
from .image_source import image_set
from .sources import Phases, load

__all__ = ["ImageSet", "Phases", "fingerprints", "image_set", "load"]
