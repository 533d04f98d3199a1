r"""Is a density correct: does it integrate to one, do samples follow it, can data be as likely as it says?"""

import math
from dataclasses import dataclass, replace

import torch
from scipy.stats import norm as normal
from torch import Tensor

from circsde.sampling.entropy import Entropy, entropy, floor_excess
from circsde.solvers.importance import Integral, LogDensity, mean_weight, proposals, values_at
from circsde.torus import TWO_PI, require_finite

TOLERANCE = 1e-3
"""The tolerance of an integral and of a floor, nats, as likelihoods are seldom given to more digits."""

REPEATED, REPEATS_TO = 100, 0.02
"""Points at which a density is asked twice, and to how many nats it must answer alike."""

POINTS, ROWS = 4000, 1000
"""Points at which a density is integrated, and the most samples and rows of data at which it is evaluated."""

_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # shares of the density in regions of the most likely angles
_PAIRED = 12  # angles at most, whose differences and sums are compared in pairs


@dataclass(frozen=True, eq=False)
class Verification:
    """The findings about a density on T^d.

    Attributes:
        integral: The logarithm of its integral, nats, with its interval.
        agreement_p: The probability of such a difference between its samples and its own averages, corrected for the
            number of averages; NaN where there are no samples to compare, or the weights are too heavy-tailed.
        furthest: The average in which they differ most.
        entropy: The entropy of the data; None without data.
        negative_log_likelihood: Mean over the rows of data at which the density was evaluated, nats; NaN without data.
        failures: Claims that cannot hold, in words; none, if all may.
        doubts: What could not be found out, in words.
    """

    integral: Integral
    agreement_p: float = math.nan
    furthest: str = ""
    entropy: Entropy | None = None
    negative_log_likelihood: float = math.nan
    failures: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def verify(
    log_prob: LogDensity,
    samples: Tensor,
    data: Tensor | None = None,
    *,
    points: int = POINTS,
    confidence: float = 0.999,
    generator: torch.Generator,
) -> Verification:
    r"""Test a density on T^d: its integral, its agreement with samples, and whether data are likelier than possible.

    Four claims, each of which is found wrong where it is right with a probability of at most ``1 - confidence``, as
    far as normal laws of averages tell:

    - the density is a function of the angles: asked again, in another order and one turn on, its answers differ by at
      most :data:`REPEATS_TO` (median);
    - the interval of ``log Z`` holds zero, to :data:`TOLERANCE` (:mod:`circsde.solvers.importance`);
    - samples have the averages of the density: of the cosine and sine of every angle, of sums and differences of two,
      and the shares of samples in regions of the most likely angles;
    - the mean of ``-log_prob`` over data, near-duplicates left out, is not below every nearest-neighbour estimate of
      their entropy (:mod:`circsde.sampling.entropy`).

    Args:
        log_prob: Log-densities of angles ``(batch, d)``, float64, with respect to radians, in nats.
        samples: ``(n, d)`` of the model. They also tell where to integrate: a part of the density that they miss is
            found by uniform points only.
        data: Independent rows ``(m, d)`` that the model was not trained on.
        points: The number of points at which the density is integrated.
        confidence: The confidence level of each claim.
        generator: The generator of the points and choices of rows.

    Raises:
        ValueError: If a log-density is NaN or plus infinity, angles are not finite, shapes differ, or there are too few
            samples or rows.

    Source: for the averages, importance sampling with normalised weights, Owen 2013, Monte Carlo theory, section 9.2.

    >>> from circsde.laws.distributions import VonMises
    >>> law, generator = VonMises(torch.zeros(3), 4.0), torch.Generator().manual_seed(0)
    >>> samples = law.sample((500,), generator=generator)
    >>> verify(lambda x: law.log_prob(x).sum(1), samples, generator=generator).failures
    ()
    >>> found = verify(lambda x: law.log_prob(x).sum(1) + 0.2, samples, generator=generator)
    >>> found.failures[0].partition(" (")[0]
    'the density integrates to 1.22'
    """
    if data is not None and data.shape[1:] != samples.shape[1:]:
        raise ValueError(f"samples and data must have the same angles, got {samples.shape[1:]} and {data.shape[1:]}")
    law = proposals(samples.double(), generator)
    theta = law.sample((points,), generator)
    values = values_at(log_prob, theta)
    some = samples[torch.randperm(len(samples), generator=generator)[:ROWS]].double()
    at_samples = values_at(log_prob, some)
    again = theta[:REPEATED].flip(0)
    differs = float((values_at(log_prob, again + TWO_PI).flip(0) - values[:REPEATED]).abs().nanmedian())
    found = examine(theta, values, law.log_prob(theta), some, at_samples, confidence=confidence)
    if differs > REPEATS_TO:
        said = f"the density is no function of the angles: asked again one turn on, it answers {differs:.3g} nats off"
        found = replace(found, failures=(said, *found.failures))
    if data is None:
        return found
    known = entropy(data.double(), generator)
    rows = torch.randperm(len(known.kept), generator=generator)[:ROWS]
    at_data = values_at(log_prob, data[known.kept[rows]].double())
    return with_floor(found, known, at_data, rows, confidence=confidence)


def evaluations(samples: int, data: int = 0, points: int = POINTS) -> int:
    """The largest number of angles at which :func:`verify` evaluates a density."""
    return points + REPEATED + min(samples, ROWS) + min(data, ROWS)


def examine(
    theta: Tensor,
    values: Tensor,
    log_proposal: Tensor,
    samples: Tensor | None = None,
    at_samples: Tensor | None = None,
    *,
    confidence: float = 0.999,
) -> Verification:
    """The claims of a density that is known at points of a proposal law, as another program may have evaluated it.

    Args:
        theta: Independent points of the proposal law, ``(points, d)``.
        values: Log-densities there, nats.
        log_proposal: The log-densities of the proposal law.
        samples: The samples of the model, ``(n, d)``; without, agreement is not examined.
        at_samples: Log-densities there, if they are known.
        confidence: The confidence level of each claim.
    """
    weights = values.double() - log_proposal.double()
    total = mean_weight(weights, confidence)
    failures, doubts = list[str](), list[str]()
    if not total.low - TOLERANCE <= 0.0 <= total.high + TOLERANCE:
        z, low, high = (_short(math.exp(x)) for x in (total.log_value, total.low, total.high))
        failures.append(f"the density integrates to {z} ({low} to {high}), not to 1{_unit(total, theta.shape[1])}")
    if not total.known:
        doubts.append(
            f"the integral is not known: of {len(theta)} points {total.effective:.0f} count, and the largest weights"
            f" have a tail of shape {total.tail:.2f}; give more samples, or more points"
        )
        return Verification(total, failures=tuple(failures), doubts=tuple(doubts))
    p, furthest = math.nan, ""
    if samples is not None:
        p, furthest = _agreement(theta, values, weights, samples, at_samples)
        if p < 1.0 - confidence:
            failures.append(f"samples are not those of the density: {furthest} (p = {p:.1g})")
    return Verification(total, p, furthest, failures=tuple(failures), doubts=tuple(doubts))


def with_floor(
    found: Verification, known: Entropy, at_data: Tensor, rows: Tensor, *, confidence: float = 0.999
) -> Verification:
    """``found``, with the claim that a density makes of data: see :func:`circsde.sampling.entropy.floor_excess`."""
    mean, failures = -float(at_data.mean()), list(found.failures)
    excess = floor_excess(known, -at_data, rows, float(normal.ppf(confidence)))
    if excess > TOLERANCE:
        least = float((known.value - known.bias).min())
        failures.append(
            f"the negative log-likelihood of the data, {mean:.3f} nats, lies below their entropy, which is about"
            f" {least:.3f} or more by their nearest neighbours: no model can have it on new data"
        )
    return replace(found, entropy=known, negative_log_likelihood=mean, failures=tuple(failures))


def _agreement(
    theta: Tensor, values: Tensor, log_weights: Tensor, samples: Tensor, at_samples: Tensor | None
) -> tuple[float, str]:
    """The p-value of the average in which samples differ most from the density, and which that is."""
    require_finite(samples, "the samples")
    w = (log_weights - log_weights.max()).exp()
    w = w / w.sum()
    there, here = _averaged(theta), _averaged(samples)
    names = _names(theta.shape[1])
    if at_samples is not None:
        order = values.argsort(descending=True)
        share = w[order].cumsum(0)
        for part in _SHARES:
            level = values[order[min(int((share < part).sum()), len(order) - 1)]]
            there = torch.cat((there, (values >= level).double()[:, None]), 1)
            here = torch.cat((here, (at_samples >= level).double()[:, None]), 1)
            names.append(f"the share in the most likely {100 * part:g} %")
    expected = w @ there
    variance = w.square() @ (there - expected).square() + here.var(0) / len(here)
    deviation = (here.mean(0) - expected) / variance.clamp(min=1e-12).sqrt()
    worst = int(deviation.abs().argmax())
    p = min(1.0, len(names) * 2.0 * float(normal.sf(float(deviation[worst].abs()))))
    return p, f"{names[worst]} is {float(here[:, worst].mean()):.4f}, by the density {float(expected[worst]):.4f}"


def _averaged(theta: Tensor) -> Tensor:
    """The quantities that are averaged, a column each, in the order of :func:`_names`."""
    theta = theta.double()
    angles = [theta]
    if theta.shape[1] <= _PAIRED:
        first, second = torch.triu_indices(theta.shape[1], theta.shape[1], 1)
        angles += [theta[:, first] - theta[:, second], theta[:, first] + theta[:, second]]
    every = torch.cat(angles, 1)
    return torch.cat((every.cos(), every.sin()), 1)


def _names(dim: int) -> list[str]:
    names = [f"theta_{i + 1}" for i in range(dim)]
    if dim <= _PAIRED:
        pairs = [(i + 1, j + 1) for i in range(dim) for j in range(i + 1, dim)]
        names += [f"(theta_{i} {sign} theta_{j})" for sign in "-+" for i, j in pairs]
    return [f"the mean of {function} {name}" for function in ("cos", "sin") for name in names]


def _unit(total: Integral, dim: int) -> str:
    """Say so where an integral is off by the Jacobian between degrees and radians."""
    if not total.known:
        return ""
    jacobian = dim * math.log(180.0 / math.pi)
    for sign, said in ((-1.0, "is one of degrees, to which it lacks"), (1.0, "has twice, or for nothing,")):
        if total.low - TOLERANCE <= sign * jacobian <= total.high + TOLERANCE:
            return f": it {said} the Jacobian of radians, {dim} log(180 / pi) = {jacobian:.3f} nats"
    return ""


def _short(number: float) -> str:
    if math.isinf(number):
        return "any number"
    return f"{number:.3g}" if abs(number - 1.0) > 0.02 else f"{number:.4f}"
