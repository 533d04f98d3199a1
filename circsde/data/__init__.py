"""Data as phases: images, tables of angles, textures and generated fingerprints."""

from .fingerprint import fingerprints
from .image_reading import image_set
from .image_set import ImageSet
from .sources import Phases, load
from .windows import RandomWindows

__all__ = ["ImageSet", "Phases", "RandomWindows", "fingerprints", "image_set", "load"]
