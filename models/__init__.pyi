from .guidance import Conditioned
from .hollow import HollowMLP
from .linear_residual import LinearResidual
from .mlp import ScoreMLP
from .processes import Process, angle_process, image_process
from .settings import Settings
from .settled_residual import SettledResidual
from .training import Trained, train, trained
from .transitions import Objective, TensorSampler
from .unet import PRESETS, ScoreUNet, UNet
from .variance_preserving import EpsilonUNet, VariancePreserving

Relative = SettledResidual
Wiener = LinearResidual

__all__ = [
    "PRESETS",
    "Conditioned",
    "EpsilonUNet",
    "HollowMLP",
    "LinearResidual",
    "Objective",
    "Process",
    "ScoreMLP",
    "ScoreUNet",
    "Settings",
    "SettledResidual",
    "TensorSampler",
    "Trained",
    "UNet",
    "VariancePreserving",
    "angle_process",
    "image_process",
    "train",
    "trained",
]
