r"""A score whose linear part is measured before training, so that a network learns the rest."""

import math
from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor

from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain, pathwise, start, step_with_adjoint
from circsde.models.periodic import Periodic
from circsde.models.transitions import DataSampler, begin
from circsde.models.unet import ScoreUNet
from circsde.typing import Angles, Tangent, Time

FOLLOWED = 2**21
"""Angles, about as many as are followed to measure the linear part."""

MOST, BATCH = 4096, 256
"""The most paths, and how many at a time."""


class LinearResidual(Periodic):
    r"""``(1 - alpha^2) C^T (A C sin(theta - psi) + b) + alpha / sigma network``, C the cosine transform.

    ``A``, a number for each cosine wave, and ``b``, of the constant wave only, are what comes nearest to the score in
    the mean square (eq. 21): what a Wiener filter is to values. Classes, which differ in brightness first of all, have
    a ``b`` each, and the number of their constant wave is that about their own means. At strong noise, where little but
    brightness and shading of an image is left, the score is nearly that. A network alone learns it late, as a few waves
    of many weigh little in the loss, and its samples have too little contrast. At weak noise the network learns all:
    one that starts from the linear score has next to no gradient, and may stay there. Of settled phases without
    coupling ``A`` is minus their concentration, and nothing is left to learn.

    ``sigma^2`` is the variance of the noise of the chain and ``alpha^2`` the product of its discounts: data of variance
    ``s^2`` change the score by about ``s alpha / sigma``. All is interpolated between times of the chain, and constant
    before the first. Before :meth:`fit` the score is the answer of the network.

    Args:
        network: What answers the rest; its own noise level is not read.
        sde: The forward equation; ``psi`` is its reference phase.
        steps: The steps of the chain.

    Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949; for linear scores at
    strong noise, Wang and Vastola 2024, arXiv 2412.09726.
    """

    times: Tensor
    log_alpha: Tensor
    log_sigma: Tensor
    slope: Tensor
    constant: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, network: ScoreUNet, sde: KuramotoSDE, steps: int) -> None:
        super().__init__()
        self.network, self.sde, self.classes = network, sde, network.classes
        self.arguments: dict[str, Any] = {"network": network, "sde": sde, "steps": steps}
        shape = network.event_shape
        self.register_buffer("times", torch.linspace(0.0, sde.horizon, steps + 1, dtype=torch.float64)[1:])
        for name in ("log_alpha", "log_sigma"):
            self.register_buffer(name, torch.zeros(steps, dtype=torch.float64))
        self.register_buffer("slope", torch.zeros(steps, *shape))
        self.register_buffer("constant", torch.zeros(steps, (self.classes or 0) + 1, 2, *shape[:-2]))
        for name, side in zip(("rows", "columns"), shape[-2:], strict=True):
            self.register_buffer(name, cosines(side), persistent=False)

    def forward(self, t: Time, theta: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score at one time or at one time per sample, 1/rad; labels and condition as for the network."""
        t = torch.as_tensor(t, dtype=torch.float64, device=self.times.device).reshape(-1)
        last = torch.searchsorted(self.times, t).clamp(1, len(self.times) - 1)
        first, end = self.times[last - 1], self.times[last]
        share = ((t - first) / (end - first)).clamp(0.0, 1.0)

        def at(values: Tensor, *index: Tensor | int) -> Tensor:
            before, after = values[last - 1, *index], values[last, *index]
            here = share.reshape(-1, *(1 for _ in before.shape[1:])).to(values)
            return torch.lerp(before, after, here).to(theta)

        log_alpha = at(self.log_alpha)
        log_noise = (at(self.log_sigma) - log_alpha).reshape(-1, 1)
        answer: Tangent = self.network.answer(log_noise, theta, labels, condition)
        each = (-1, *(1 for _ in self.network.event_shape))
        with torch.autocast(theta.device.type, enabled=False):  # products in half precision would undo it
            x = self._waves(self._sine(theta))
            waves = at(self.slope) * x
            slope, offset = at(self.constant, -1 if labels is None else labels).unbind(1)  # the last is of all classes
            waves[..., 0, 0] = slope * x[..., 0, 0] + offset
            linear = self.rows.to(theta).mT @ waves @ self.columns.to(theta)
        return answer / log_noise.exp().reshape(each) - torch.expm1(2.0 * log_alpha).reshape(each) * linear

    @property
    def paths(self) -> int:
        """The number of paths that are followed to measure the linear part, in whole batches."""
        return (math.ceil(min(FOLLOWED // math.prod(self.network.event_shape), MOST) / BATCH) or 1) * BATCH

    @torch.no_grad()
    def fit(self, chain: Chain, starts: DataSampler, generator: torch.Generator) -> None:
        """Measure the linear part by least squares on pathwise pairs along a calibrated chain.

        Of 2048 paths at 32 x 32 pixels. Where noise is strong targets hardly vary around it, so that it is known much
        better than to one over the root of that number.

        Raises:
            ValueError: If the chain has another number of steps, or no discounts.
        """
        if len(chain) != len(self.times) or chain.discounts is None:
            raise ValueError(
                f"expected a calibrated chain of {len(self.times)} steps, got {len(chain)} steps and"
                f" discounts={chain.discounts}: see Chain.calibrated"
            )
        shape = self.network.event_shape
        batches = self.paths // BATCH
        all_waves = torch.zeros(len(chain), 5, 1, *shape, dtype=torch.float64)
        by_class = torch.zeros(len(chain), 5, *self.constant.shape[1:2], *shape[:-2], dtype=torch.float64)
        for _ in range(batches):
            followed = start(*begin(starts, BATCH, generator))
            for n in range(len(chain)):
                followed = step_with_adjoint(chain, followed, generator)
                pairs = pathwise(chain, followed)
                x, y = (self._waves(z).double().cpu() for z in (self._sine(pairs.theta), pairs.target))
                terms = torch.stack((torch.ones_like(x), x, y, x * x, x * y))
                all_waves[n] += terms.sum(1, keepdim=True)
                by_class[n].index_add_(1, followed.labels.cpu() % by_class.shape[2], terms[..., 0, 0])
        slope, offset = lines(all_waves)
        self.slope.copy_(slope[:, 0])
        everything = torch.stack((slope, offset), 2)[..., 0, 0]
        seen = (by_class[:, :1] > 0.0).transpose(1, 2)
        self.constant.copy_(torch.where(seen, torch.stack(lines(by_class), 2), everything))
        self.constant[:, -1:].copy_(everything)
        self.times.copy_(torch.tensor(chain.times[1:], dtype=torch.float64))
        self.log_sigma.copy_(0.5 * torch.tensor(chain.variances[1:], dtype=torch.float64).log())
        self.log_alpha.copy_(0.5 * torch.tensor(chain.discounts, dtype=torch.float64).log().cumsum(0))

    def _sine(self, theta: Angles) -> Tensor:
        return (theta - self.sde.reference_phase.to(theta)).sin()

    def _waves(self, x: Tensor) -> Tensor:
        """The cosine transform of rows and columns."""
        return self.rows.to(x) @ x @ self.columns.to(x).mT


def lines(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares: slopes and offsets of y over x, classes having a slope in common and an offset each.

    Args:
        sums: Over samples of 1, x, y, x^2 and x y, ``(batch, 5, classes, ...)``.

    Returns:
        Both of shape ``(batch, classes, ...)``.
    """
    n, x, y, xx, xy = sums.unbind(1)
    n = n.clamp(min=1.0)
    slope = (xy - x * y / n).sum(1, keepdim=True) / (xx - x * x / n).sum(1, keepdim=True)
    return slope.expand_as(x), (y - slope * x) / n


def cosines(n: int) -> Tensor:
    """The orthogonal matrix of the discrete cosine transform of ``n`` values (DCT-II)."""
    return torch.from_numpy(dct(np.eye(n), axis=0, norm="ortho"))
