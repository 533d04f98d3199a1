r"""Schedulers of diffusers and samplers of k-diffusion as a :class:`Method`: stepped on our grids, from our noise.

They step a state from one noise level sigma to the next, towards the prediction x of the data that they are given, and
know of no time. So each has here the levels of our grid, ``sigma^2 = int_0^t g^2``, and the prediction of
:mod:`circsde.solvers.multistep`; one that knows a signal rate is given ``theta / (1 + sigma^2)^(1/2)``, as of the
standard diffusion. Their own spacings of levels are left out, and so is what a scheduler does because it knows how many
steps are left: it learns that a step is the last from its end at no noise.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from circsde.sde import SDE, ReverseSDE
from circsde.solvers.ancestral import backwards, noise_variances
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step
from circsde.solvers.multistep import prediction
from circsde.torus import TWO_PI
from circsde.typing import Angles

DIFFUSERS: dict[str, tuple[str, dict[str, Any], bool]] = {  # the scheduler, its options, and whether it draws noise
    "dpmsolver++1": ("DPMSolverMultistepScheduler", {"solver_order": 1}, False),
    "dpmsolver++2": ("DPMSolverMultistepScheduler", {"solver_order": 2}, False),
    "dpmsolver++3": ("DPMSolverMultistepScheduler", {"solver_order": 3}, False),
    "sde-dpmsolver++1": ("DPMSolverMultistepScheduler", {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}, True),
    "sde-dpmsolver++2": ("DPMSolverMultistepScheduler", {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}, True),
    "sde-dpmsolver++3": ("DPMSolverMultistepScheduler", {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, True),
    "unipc2": ("UniPCMultistepScheduler", {"solver_order": 2}, False),
    "unipc3": ("UniPCMultistepScheduler", {"solver_order": 3}, False),
    "unipc2-bh1": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh1"}, False),
}
"""Schedulers of diffusers that step through any noise levels, at one evaluation a step."""

K_DIFFUSION = {  # evaluations a step, whether it remembers steps, and whether it draws noise
    "euler": (1, False, False),
    "heun": (2, False, False),
    "dpm_2": (2, False, False),
    "lms": (1, True, False),
    "dpmpp_2m": (1, True, False),
    "euler_ancestral": (1, False, True),
    "dpmpp_2s_ancestral": (2, False, True),
    "dpmpp_2m_sde": (1, True, True),
    "dpmpp_3m_sde": (1, True, True),
}
"""Samplers of k-diffusion through given noise levels; those with two evaluations take one in a step to no noise."""

_Advance = Callable[[Tensor, Tensor, list[float], Callable[[Tensor, float], Tensor]], Tensor]
"""``(state, normals, levels so far, prediction at a level) -> state at the last level``, of one solution."""


def diffusers_method(name: str) -> Method:
    """One of the schedulers of diffusers, which needs the extra ``samplers``; they compute in float32.

    Args:
        name: One of :data:`DIFFUSERS`.

    Raises:
        ValueError: If it is another.
        ImportError: If diffusers is not installed.
    """
    if name not in DIFFUSERS:
        raise ValueError(f"diffusers has no scheduler {name!r} for any levels; choose one of {', '.join(DIFFUSERS)}")
    import diffusers  # only here, so that a solve does not need it

    scheduler, options, noisy = DIFFUSERS[name]

    def begin() -> _Advance:
        made = getattr(diffusers, scheduler)(prediction_type="sample", **options)
        made.set_begin_index(0)
        made.set_timesteps(1)

        def advance(
            theta: Tensor, xi: Tensor, levels: list[float], predict: Callable[[Tensor, float], Tensor]
        ) -> Tensor:
            sigma, end, taken = levels[-2], levels[-1], len(levels) - 2
            made.sigmas = torch.tensor(levels, dtype=torch.float64)
            made.timesteps = torch.arange(taken + (1 if end == 0.0 else 1000))
            given = {"variance_noise": xi} if noisy else {}
            moved = made.step(predict(theta, sigma), taken, theta / (1.0 + sigma**2) ** 0.5, **given).prev_sample
            end_state: Tensor = moved.to(theta.dtype) * (1.0 + end**2) ** 0.5
            return end_state

        return advance

    return _method(f"diffusers:{name}", begin, noisy, 1, remembers=True)


def k_diffusion_method(name: str) -> Method:
    """One of the samplers of k-diffusion, which needs the extra ``samplers``.

    Each step of those that remember begins at the first level again, with the predictions and the noise that were.

    Args:
        name: One of :data:`K_DIFFUSION`, the name of its function without ``sample_``.

    Raises:
        ValueError: If it is another.
        ImportError: If k-diffusion is not installed.
    """
    if name not in K_DIFFUSION:
        raise ValueError(
            f"k-diffusion has no sampler {name!r} that is known here; choose one of {', '.join(K_DIFFUSION)}"
        )
    from k_diffusion import sampling  # only here, so that a solve does not need it

    nfe, remembers, noisy = K_DIFFUSION[name]
    function = getattr(sampling, f"sample_{name}")

    def begin() -> _Advance:
        known, normals, first = dict[float, Tensor](), list[Tensor](), list[Tensor]()

        def advance(
            theta: Tensor, xi: Tensor, levels: list[float], predict: Callable[[Tensor, float], Tensor]
        ) -> Tensor:
            if not remembers:
                levels = levels[-2:]
                for kept in (known, normals, first):
                    kept.clear()
            first.append(theta)
            normals.append(xi)

            def model(x: Tensor, sigma: Tensor) -> Tensor:
                level = float(sigma[0])
                if not remembers:
                    return predict(x, level)
                if level not in known:
                    known[level] = predict(x, level)
                return known[level]

            draws = iter(normals)
            given = {"noise_sampler": lambda *_: next(draws)} if noisy else {}
            through = torch.tensor(levels, dtype=torch.float64)
            moved: Tensor = function(model, first[0].double(), through, disable=True, **given)
            return moved.to(theta.dtype)

        return advance

    return _method(f"k-diffusion:{name}", begin, noisy, nfe, remembers)


def _method(name: str, begin: Callable[[], _Advance], noisy: bool, nfe: int, remembers: bool) -> Method:
    """Make a method from a stepper through noise levels, with the weak order that the last step leaves."""

    def started() -> Step:
        advance, levels, ended = begin(), list[float](), list[Angles]()

        def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
            sde, later, earlier = backwards(sde, t, h, f"{name} needs")
            if sde.stochasticity != float(noisy):
                raise ValueError(
                    f"{name} has stochasticity {noisy:d}, got {sde.stochasticity:g}: choose that, or multistep"
                )
            forward = sde.forward_sde
            sigma, end = (_level(variance) for variance in noise_variances(forward, later, earlier))
            levels[:] = [*levels[:-1], sigma, end]

            def predict(x: Tensor, level: float) -> Tensor:
                time = later if level == sigma else earlier if level == end else _time(sde, level, later)
                return x + prediction(sde, time, level, x)

            turns = TWO_PI * ((theta - ended[0]) / TWO_PI).round() if ended else torch.zeros_like(theta)
            ended[:] = [advance(theta - turns, noise.dW * h**-0.5, levels, predict)]
            return ended[0] + turns

        return step

    return Method(
        name,
        step=lambda *given: started()(*given),
        strong_order=None,
        weak_order=1.0,
        invariant_order=0.0,
        nfe=nfe,
        note=f"reversed equations of stochasticity {noisy:d} only",
        begin=started if remembers else None,
    )


def _level(variance: float | Tensor) -> float:
    """Convert a noise level to one number.

    Raises:
        ValueError: If noise levels differ from angle to angle.
    """
    if isinstance(variance, Tensor) and variance.numel() != 1:
        raise ValueError("other packages know one noise level for all angles: take multistep")
    return math.sqrt(float(variance))


def _time(sde: ReverseSDE, level: float, later: float) -> float:
    """The forward time before ``later`` at which the noise level is ``level``."""
    return float(brentq(lambda t: _level(sde.forward_sde.variance(0.0, t)) - level, 0.0, later, xtol=1e-15))
