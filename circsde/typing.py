"""Shapes and units, named once. Checked by beartype in the tests.

``theta`` has shape ``(batch, *event)``: the first axis counts independent samples, the others the phases
(oscillators, pixels, torsion angles) of one sample.
"""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

Angles: TypeAlias = Float[Tensor, "batch *event"]
"""Phases in radians, any real number; equal modulo 2 pi means equal."""

Tangent: TypeAlias = Float[Tensor, "batch *event"]
"""A tangent vector: a velocity in rad/time, a score in 1/rad."""

Winding: TypeAlias = Int[Tensor, "..."]
"""Whole turns: the lifted angle is ``theta + 2 pi winding``."""

PerSample: TypeAlias = Float[Tensor, " batch"]
"""One number per sample, for example a log-density in nats."""

Labels: TypeAlias = Int[Tensor, " batch"]
"""The class of each sample, from 0; -1 where it has none, or where the network is not given it."""

Time: TypeAlias = float | Float[Tensor, ""] | Float[Tensor, " batch"]
"""A time in ``[0, horizon]``, which is a float, a 0-d tensor, or (in training) one time per sample."""

Amplitude: TypeAlias = float | Float[Tensor, "..."]
"""A noise amplitude g at a time, in rad per square-root time, one number or one per oscillator."""

Field: TypeAlias = Callable[[Time, Angles], Tangent]
"""A drift or a score, ``(t, theta) -> tangent``, a 2 pi-periodic vector field on the torus that may depend on time."""
