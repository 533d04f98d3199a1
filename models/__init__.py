"""What approximates a score: exact scores, networks, and how to train them."""

if __name__ != "circsde.models":
    raise ImportError("import circsde.models, not models")

from circsde.models.guidance import Conditioned
from circsde.models.mlp import ScoreMLP
from circsde.models.relative import Relative
from circsde.models.unet import PRESETS, ScoreUNet, UNet
from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
from circsde.models.wiener import Wiener

__all__ = [
    "PRESETS",
    "Conditioned",
    "EpsilonUNet",
    "Relative",
    "ScoreMLP",
    "ScoreUNet",
    "UNet",
    "VariancePreserving",
    "Wiener",
]
