r"""The law that oscillators settle to when the rates of eq. (1) freeze: exact where it is known, refused elsewhere.

With the potential U of eq. (3) the stationary law is ``exp(-U / D) / Z``. It is known where the oscillators are
independent, and where every pair of them is coupled alike, as by global coupling: whatever the number of oscillators.
"""

import torch
from torch import Tensor

from circsde.coupling import Coupling
from circsde.laws.distributions import VonMises, self_consistent_concentration
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.tilted import TiltedVonMises
from circsde.schedule import Rates

SettledLaw = VonMises | TiltedVonMises | MeanFieldGibbs

_PRIOR = "give prior=, a law of the angles at the horizon"


def settled_law(
    event_shape: torch.Size, coupling: Coupling, rates: Rates, phase: Tensor, frequency: Tensor
) -> SettledLaw:
    """The stationary law of one sample at constant rates, exact for every number of oscillators (eq. 3).

    * Independent oscillators (no coupling, ``K = 0``, a graph without edges, or one oscillator): uniform without
      attraction, else von Mises of concentration ``K_ref / D`` about each reference phase, or tilted by a natural
      frequency.
    * All pairs coupled alike, one reference phase, no natural frequency: :class:`circsde.MeanFieldGibbs`. That is
      global coupling, but also a graph or a window in which each listens to each other with one weight.
    * Without attraction a natural frequency that all share turns the whole law, which does not change by it.

    Args:
        event_shape: The shape of a sample.
        coupling: Who listens to whom.
        rates: K, K_ref and D.
        phase: psi, rad, one or of ``event_shape``.
        frequency: w, rad/time, one or of ``event_shape``.

    Raises:
        ValueError: If there is no noise, or the law is not known: windows and graphs that join some pairs more than
            others, coupled oscillators with natural frequencies or with reference phases of their own, those that
            repel one another, and those with a lag, whose drift is no gradient, so that there is no Gibbs law.

    >>> from circsde.coupling import GlobalCoupling
    >>> none = torch.zeros(())
    >>> settled_law(torch.Size((5,)), GlobalCoupling(), Rates(4.0, 1.0, 1.0), none, none).event_shape
    torch.Size([5])
    """
    K, K_ref, D = _noisy(rates)
    _refuse_lag(K, coupling)
    weight = coupling.pair_weight(event_shape) if K > 0 else 0.0
    if weight is not None and weight < 0:
        raise ValueError(
            f"the law of oscillators that repel one another, by weights {weight:g}, is not known; {_PRIOR}"
        )
    if weight is None:
        raise ValueError(
            f"the law that {coupling} settles to is not known for {event_shape.numel()} oscillators, as it joins some"
            f" pairs more than others; {_PRIOR}, or by name the mean-field approximation terminal_law()"
        )
    if weight == 0.0:
        loc = phase.expand(event_shape)
        kappa = torch.full(event_shape, K_ref / D, dtype=torch.float64, device=phase.device)
        if K_ref > 0 and bool(frequency.any()):
            return TiltedVonMises(loc, kappa, (frequency / D).expand(event_shape))
        return VonMises(loc, kappa)
    shared = _shared_frame(K_ref, phase, frequency)
    return MeanFieldGibbs(event_shape, K * weight * event_shape.numel(), K_ref, D, shared)


def mean_field_law(
    event_shape: torch.Size, coupling: Coupling, rates: Rates, phase: Tensor, frequency: Tensor
) -> VonMises:
    """The law of each of very many oscillators in one mean field, self-consistent: an approximation (eq. 3).

    Its concentration is ``kappa = (K s r + K_ref) / D`` with ``r = I1(kappa) / I0(kappa)``, where s is the sum of the
    weights in a mean. It errs by the order of one over the number of oscillators that are heard. For instance at K = 4,
    K_ref = D = 1 it says 0.881 for ``E cos(theta - psi)``. Of N globally coupled oscillators that is about 0.33 / N too
    much. In windows of radius 1, 2 and 5 on 32 x 32 oscillators it is 0.850, 0.871 and 0.879 (simulated, standard error
    0.0005), on a ring of 8 with radius 1 it is 0.755.

    Args:
        event_shape: The shape of a sample.
        coupling: Who listens to whom.
        rates: K, K_ref and D.
        phase: psi, rad.
        frequency: w, rad/time.

    Raises:
        ValueError: If there is no noise, or the oscillators are not alike: other sums of weights, other reference
            phases though coupled, natural frequencies.
    """
    K, K_ref, D = _noisy(rates)
    _refuse_lag(K, coupling)
    sums = torch.as_tensor(coupling.mean(torch.ones(1, *event_shape, dtype=torch.float64))).detach()
    if K > 0 and not torch.allclose(sums, sums.flatten()[0], rtol=1e-12, atol=0.0):
        raise ValueError(
            f"the sums of the weights of {coupling} go from {sums.min().item():g} to {sums.max().item():g}, so that its"
            f" oscillators have no one mean field; {_PRIOR}"
        )
    coupled = K * sums.flatten()[0].item()
    if coupled > 0:
        _shared_frame(K_ref, phase, frequency)
    elif K_ref > 0 and bool(frequency.any()):
        raise ValueError("with a natural frequency the law is not von Mises: take settled_law()")
    return VonMises(phase, self_consistent_concentration(coupled, K_ref, D))


def _noisy(rates: Rates) -> Rates:
    if not rates.diffusion > 0:
        raise ValueError(f"the terminal law needs a positive diffusion rate, got D = {rates.diffusion:g}")
    return rates


def _refuse_lag(K: float, coupling: Coupling) -> None:
    if K > 0 and coupling.couples and coupling.lagged:
        raise ValueError(
            "with a phase lag the drift is no gradient and the law that the oscillators settle to is no Gibbs law;"
            f" {_PRIOR}"
        )


def _shared_frame(K_ref: float, phase: Tensor, frequency: Tensor) -> Tensor:
    """The one reference phase of coupled oscillators."""
    psi, w = phase.flatten(), frequency.flatten()
    if bool((w != w[0]).any()) or (K_ref > 0 and bool(w.any())):
        raise ValueError(f"the law that coupled oscillators with natural frequencies settle to is not known; {_PRIOR}")
    if K_ref > 0 and bool((psi != psi[0]).any()):
        raise ValueError(f"the law of coupled oscillators with reference phases of their own is not known; {_PRIOR}")
    return psi[0]
