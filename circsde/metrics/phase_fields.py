r"""How far fields of phases are from real ones: singularities, correlation, order, splay and bend.

For phases that are data themselves, such as doubled orientations: nothing is decoded to a picture. All but splay and
bend are the same after a common shift of all phases.
"""

from typing import TypeAlias

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from circsde.metrics.comparison import Measure, tabulated, wasserstein
from circsde.metrics.singularities import Fields, check_fields, singularities, steps
from circsde.torus import order_parameter, require_finite

Plaquettes: TypeAlias = Float[Tensor, "n r c"]
"""A number at the centre of each plaquette, ``(n, rows - 1, columns - 1)``."""

_BLOCK = 2**18  # phases that are transformed at once


def circular_correlation(theta: Fields) -> Float[Tensor, "n distance"]:
    r"""The mean of ``cos(theta_i - theta_j)`` over pairs of pixels by their distance, rounded to whole pixels.

    Distances are ``0 .. side / 2`` with the smaller side, in all directions; no pair crosses the border. At distance 0
    it is 1, between independent phases 0 on average; far apart it is about ``R^2``, the square of the order parameter.

    Returns:
        Float64.

    Raises:
        ValueError: If a phase is not finite.

    >>> stripes = torch.tensor([0.0, torch.pi]).repeat(4).expand(1, 2, 8)
    >>> circular_correlation(stripes).round(decimals=4).tolist()  # at 1: 8 pairs down, 14 across, 14 aslant
    [[1.0, -0.5556]]
    """
    require_finite(theta, "the fields of phases")
    rows, columns = theta.shape[1:]
    dy, dx = (torch.fft.fftfreq(2 * n, 1 / (2 * n), dtype=torch.float64, device=theta.device) for n in (rows, columns))
    reach = torch.arange(min(rows, columns) // 2 + 1, device=theta.device)
    member = (torch.hypot(dy[:, None], dx).round().flatten()[:, None] == reach).double()
    pairs = torch.outer(rows - dy.abs(), columns - dx.abs()).flatten() @ member
    parts = []
    for part in torch.split(theta.double(), max(1, _BLOCK // (rows * columns))):
        wave = torch.fft.fft2(torch.polar(torch.ones_like(part), part), s=(2 * rows, 2 * columns))
        parts.append(torch.fft.ifft2(wave.abs().square()).real.flatten(1) @ member / pairs)
    return torch.cat(parts)


def splay_and_bend(theta: Fields) -> tuple[Plaquettes, Plaquettes]:
    r"""How fast lines with the doubled orientations ``theta`` run apart, and how fast they turn, in rad/pixel.

    A line field ``n = (cos phi, sin phi)``, ``phi = theta / 2``, is the same as ``-n``. So its divergence and its curl
    have no sign, only a size: the splay ``|div n| = |cos phi phi_y - sin phi phi_x|``, which is 0 where lines are
    parallel curves, and the bend ``|curl n| = |cos phi phi_x + sin phi phi_y|``, the curvature of the lines. Their
    squares add up to ``|grad phi|^2``, and a quarter turn of all lines on the spot exchanges them. They are the two
    terms of the elastic energy of a nematic in the plane.

    Derivatives are differences in ``[-pi, pi)`` along the edges of a plaquette, ``phi`` in its centre is half the mean
    direction of its corners. Where a plaquette is charged both depend on the grid.

    Raises:
        ValueError: If a field has one row or column, or a phase is not finite.

    Source: Frank 1958, On the theory of liquid crystals, doi:10.1039/DF9582500019.
    """
    check_fields(theta)
    right, down = steps(theta)
    along = 0.25 * (right[:, :-1] + right[:, 1:])  # phi_x; y is upwards
    up = -0.25 * (down[:, :, :-1] + down[:, :, 1:])
    wave = torch.polar(torch.ones_like(theta), theta)
    phi = 0.5 * (wave[:, :-1, :-1] + wave[:, :-1, 1:] + wave[:, 1:, :-1] + wave[:, 1:, 1:]).angle()
    return (phi.cos() * up - phi.sin() * along).abs(), (phi.cos() * along + phi.sin() * up).abs()


MEASURES: dict[str, Measure] = {
    "positive": Measure(lambda theta: singularities(theta)[:, 0], wasserstein, "1"),
    "negative": Measure(lambda theta: singularities(theta)[:, 1], wasserstein, "1"),
    "correlation": Measure(lambda theta: circular_correlation(theta)[:, -1], wasserstein, "1"),
    "order": Measure(lambda theta: order_parameter(theta, (1, 2))[0], wasserstein, "1"),
    "splay": Measure(lambda theta: splay_and_bend(theta)[0].mean((1, 2)), wasserstein, "rad/pixel"),
    "bend": Measure(lambda theta: splay_and_bend(theta)[1].mean((1, 2)), wasserstein, "rad/pixel"),
}
"""The measures by name, each a description of a field and the Wasserstein distance of the descriptions of two sets.

The number of singularities of either sign, the circular correlation at half the smaller side, the order parameter, and
the means of splay and bend.
"""


def compare(
    real: Float[Tensor, "_ _ _"],
    samples: Float[Tensor, "_ _ _"],
    *,
    train: Float[Tensor, "_ _ _"] | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> xr.Dataset:
    """Every measure between real fields and samples, with intervals and floors.

    A distance of two finite samples is never 0. Training fields are cut to as many as there are samples, so that their
    distance, the floor, is what samples of the true law would have; a model may be nearer by chance, but is no better.

    Args:
        real: Fields held out from training, however many.
        samples: Fields to judge, of the same size.
        train: The training fields, for the floor, at least as many as samples.
        resamples: The number of resamples of the bootstrap.
        confidence: The confidence of the intervals, each for itself.
        generator: Draws the resamples, and which training fields are kept.

    Returns:
        ``value``, ``low``, ``high`` and, with ``train``, ``floor``, ``floor_low``, ``floor_high`` along ``measure``,
        those of :data:`MEASURES`; the ``mean`` of what each describes along ``set`` and ``measure``. Attributes ``n``
        and ``n_real``: samples and real fields.

    Raises:
        ValueError: If the sizes differ, there are fewer than 2 fields of a kind, or fewer training fields than samples.
    """
    return tabulated(MEASURES, real, samples, train, resamples=resamples, confidence=confidence, generator=generator)
