"""Log-densities of many rows, in pieces that are computed in any order with the same result: cells of a ``Runner``."""

import hashlib
from dataclasses import dataclass
from functools import partial

import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import Law
from circsde.encoding import PhaseEncoding
from circsde.models.training import Trained
from circsde.models.variance_preserving import ARC, OnArc, VariancePreserving
from circsde.sampling.diagnose import log_likelihood
from circsde.sampling.start_laws import Gibbs, Independent, stationary
from circsde.sde import SDE
from circsde.solvers.dequantisation import bits_per_dim
from circsde.solvers.likelihood import LogProb, log_prob
from circsde.streams import key, torch_stream
from circsde.typing import Angles, Field

NATS = {"units": "nats"}


@dataclass(frozen=True, eq=False)
class OfAngles:
    """Log-densities of some rows of angles, with the exact divergence.

    Attributes:
        model: A trained model of angles.
        digest: Text that identifies the model, such as a hash of its checkpoint.
        theta: The rows, ``(n, d)``, radians.
        atol: The tolerance of the flow.
    """

    model: Trained
    digest: str
    theta: Tensor
    atol: float

    def key(self) -> str:
        """All that determines the result."""
        return f"log-densities {self.digest} {fingerprint(self.theta)} {self.atol!r}"

    def compute(self) -> xr.Dataset:
        """``log_prob``, ``error``, ``nfe``, ``status`` of every row, and the ``message`` of the first that failed."""
        return _table(log_likelihood(self.model, self.theta, atol=self.atol))


@dataclass(frozen=True)
class Estimate:
    """Settings for estimates of log-densities of images.

    Attributes:
        probes: The number of probes per draw; if there are as many as phases or more, the divergence is exact.
        draws: The number of draws of the noise that makes grey levels continuous, each with probes of its own.
        atol: The tolerance of the flow.
        seed: The seed of the draws and of the probes.
    """

    probes: int = 16
    draws: int = 4
    atol: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class OfImages:
    """Log-densities of some images, or of some fields of phases.

    Attributes:
        model: A trained model of images.
        prior: The law at the horizon; see :func:`prior_of`.
        digest: Text that identifies the model and the prior.
        images: Grey levels from 0 to 255, ``(n, *event)``, integers; or phases, radians.
        first: The index of the first of them, on which their noise and probes depend.
        how: How.
    """

    model: Trained
    prior: Law
    digest: str
    images: Tensor
    first: int
    how: Estimate

    def key(self) -> str:
        """All that determines the result."""
        return f"images {self.digest} {fingerprint(self.images)} {self.first} {self.how!r}"

    def compute(self) -> xr.Dataset:
        """For phases the same as :class:`OfAngles`, for grey levels ``bits_per_dim``; both with ``stderr``."""
        sde, score, scale = flow_of(self.model)
        ask = partial(
            log_prob,
            sde,
            score,
            prior=self.prior,
            divergence="probing",
            probes=self.how.probes,
            atol=self.how.atol,
            first_sample=self.first,
        )
        seeds = (key(self.how.seed, "probes", draw) for draw in range(self.how.draws))
        if self.images.is_floating_point():
            return _table(ask(self.images, generator=next(seeds)))
        encoding = PhaseEncoding(scale, low=0, high=256)
        found = bits_per_dim(
            lambda theta: ask(theta, generator=next(seeds)),
            self.images,
            encoding,
            draws=self.how.draws,
            generator=torch_stream(self.how.seed, "dequantisation", self.first),
        )
        units = {"units": "bits per pixel and channel"}
        return xr.Dataset(
            {
                "bits_per_dim": ("row", found.value.numpy(), units),
                "stderr": ("row", found.stderr.numpy(), units),
                "status": ("row", ["success" if known else "failed" for known in found.value.isfinite().tolist()]),
            },
            attrs={"message": ""},
        )


def flow_of(model: Trained) -> tuple[SDE, Field, float]:
    """The equation of a model of images, its score, and the phase of white, rad; values are put on a short arc."""
    if isinstance(model.process, VariancePreserving):
        arc = OnArc(model.process)
        return arc, arc.score(model.network), ARC
    return model.sde, model.network, float(model.about["encoding_scale"])


def prior_of(model: Trained, start: object) -> tuple[Law, str]:
    """The law at the horizon that a likelihood starts from, and its name: ``start`` where its density is known.

    That is the law that sampling starts from, if its phases are independent or it is the exact Gibbs law; else the
    settled law, or its mean-field approximation where the coupling joins some pairs more than others. In each case the
    likelihood is that of the flow from this law. For a model of values the law is standard normal.
    """
    if isinstance(model.process, VariancePreserving):
        return OnArc(model.process).settled_law(), "standard normal"
    if isinstance(start, Independent | Gibbs):
        return start, type(start).__name__.lower()
    return stationary(model.sde), "settled"


def fingerprint(theta: Tensor) -> str:
    """A hash of the numbers and the shape of a tensor."""
    values = theta.detach().cpu().contiguous()
    return hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()


def levels(windows: Angles) -> Tensor:
    """Values in ``[-1, 1]`` as grey levels from 0 to 255, to which windows that were resized are rounded.

    >>> levels(torch.tensor([-1.0, 1.0])).tolist()
    [0, 255]
    """
    return ((windows.double() + 1.0) * 127.5).round().to(torch.int64)


def _table(found: LogProb) -> xr.Dataset:
    return xr.Dataset(
        {
            "log_prob": ("row", found.value.numpy(), NATS),
            "stderr": ("row", found.stderr.numpy(), {**NATS, "long_name": "standard error of the divergence"}),
            "error": ("row", found.error.numpy(), {**NATS, "long_name": "estimated discretisation error"}),
            "nfe": ("row", found.nfe.numpy()),
            "status": ("row", list(found.status)),
        },
        attrs={"message": found.message},
    )
