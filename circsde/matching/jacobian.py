r"""A drift step ``F(theta) = theta + h f(t, theta)`` with its Jacobian, for pathwise score matching (eq. 10).

With ``M = dF/dtheta``: ``M^T v``, the solution of ``M^T x = v``, ``grad log|det M|``. A Kuramoto equation has closed
forms, a few means each and no matrices; for any other drift M is built from vector-Jacobian products.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, Structure
from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.noise import evaluate
from circsde.sde import SDE
from circsde.typing import Angles, Tangent, Time

DENSE = 256
"""The most angles per sample for which M is built."""


class DriftStep(NamedTuple):
    """A drift step and its Jacobian M.

    Attributes:
        moved: ``F(theta)`` on the lift, radians.
        apply: ``v -> M^T v``.
        solve: ``v -> M^{-T} v``.
        log_det_gradient: ``grad log|det M|``, 1/rad.
    """

    moved: Angles
    apply: Callable[[Tangent], Tangent]
    solve: Callable[[Tangent], Tangent]
    log_det_gradient: Tangent


def drift_step(sde: SDE, t: Time, h: Time, theta: Angles) -> DriftStep:
    """The drift step of ``sde`` from ``theta``, at one time and step or at one per sample.

    Args:
        sde: The equation.
        t: The time at which its rates are evaluated.
        h: The step, of either sign, so short that F is invertible: ``|h| (K + K_ref) < 1`` for a Kuramoto equation.
        theta: Angles in radians.

    Raises:
        ValueError: If there are no closed forms and more than :data:`DENSE` angles.
    """
    if has_closed_form(sde) and sde.coupling.structure is not Structure.DENSE:
        return _kuramoto(sde, t, h, theta)
    return _dense(sde, t, h, theta)


def spread(x: Time, theta: Angles) -> float | Tensor:
    """``x``, one number or one per sample, ready to multiply ``theta``."""
    return evaluate(lambda x: x, x, theta)


def _kuramoto(sde: KuramotoSDE, t: Time, h: Time, theta: Angles) -> DriftStep:
    r"""``M_ij = (1 - h a_i) delta_ij + h K C_ij cos(theta_j - phi_i)`` with the weights C and ``phi = theta + alpha``.

    ``a_i = K Re(z_i e^{-i phi_i}) + K_ref cos(psi - theta_i)``. Global coupling is exact: M is diagonal plus rank two
    (Woodbury). A local window takes two sweeps of Jacobi's iteration, and the product of the diagonal for the
    determinant: exact but for ``O((h K)^3)`` and for ``O((h K)^2)`` over the size of the window.
    """
    h, K = spread(h, theta), evaluate(sde.schedule.coupling, t, theta)
    mean = sde.coupling.fast_mean(theta)
    cos, sin, along, across = _field(sde, t, theta)
    lead_sin, lead_cos = sde.coupling.turned(sin, cos)  # the sine and cosine of phi
    moved = theta + h * (across + sde.natural_frequency.to(theta.dtype) if sde.rotates else across)

    def gather(v: Tensor) -> Tensor:
        return (cos * mean(v * lead_cos)).addcmul_(sin, mean(v * lead_sin))  # Re(mean(v e^{-i phi}) e^{i theta})

    def turn(v: Tensor) -> Tensor:
        return (cos * mean(v * lead_sin)).addcmul_(sin, mean(v * lead_cos), value=-1.0)  # Im(mean(v e^{i phi}) ...)

    def apply(v: Tangent) -> Tangent:
        return v - h * (along * v - K * gather(v) if sde.coupled else along * v)

    if sde.coupling.structure is Structure.RANK_TWO:
        diagonal, lead = 1.0 - h * along, (lead_cos, lead_sin)
        solve, inverse = _woodbury(diagonal, h * K, (cos, sin), lead)
        heard = lead_sin * solve(cos) - lead_cos * solve(sin)
        said = heard
        if sde.coupling.lagged:
            forward, _ = _woodbury(diagonal, h * K, lead, (cos, sin))
            said = sin * forward(lead_cos) - cos * forward(lead_sin)
        pairs: float | Tensor = K / theta[0].numel() * (heard + said)
    else:
        own = sde.coupling.self_response(cos, sin)
        inverse, pairs = (1.0 - h * (along - K * own)).reciprocal_(), 0.0
        others = -h * K * inverse

        def solve(v: Tangent) -> Tangent:
            start = v * inverse
            x = start
            for _ in range(2 * sde.coupled):
                x = torch.addcmul(start, others, gather(x) - own * x)
            return x

    gradient = inverse * across
    if sde.coupled:
        gradient = gradient + K * turn(inverse) + pairs
    return DriftStep(moved, apply, solve, -h * gradient)


def kuramoto_drift(sde: KuramotoSDE, t: Time, theta: Angles) -> Tangent:
    """The drift of ``sde``, with the coupling's fast mean, rad/time."""
    *_, across = _field(sde, t, theta)
    return across + sde.natural_frequency.to(theta.dtype) if sde.rotates else across


def _field(sde: KuramotoSDE, t: Time, theta: Angles) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``cos theta``, ``sin theta``, and the field ``H = K z + K_ref e^{i psi}`` as ``Re, Im (H e^{-i theta})``."""
    cos, sin, psi = theta.cos(), theta.sin(), sde.reference_phase
    reference = evaluate(sde.schedule.reference, t, theta)
    real, imaginary = reference * psi.cos().to(theta.dtype), reference * psi.sin().to(theta.dtype)
    if sde.coupled:
        K = evaluate(sde.schedule.coupling, t, theta)
        heard_cos, heard_sin = sde.coupling.fast_field(theta)(cos, sin)
        real, imaginary = real + K * heard_cos, imaginary + K * heard_sin
    return cos, sin, (cos * real).addcmul_(sin, imaginary), (cos * imaginary).addcmul_(sin, real, value=-1.0)


def _woodbury(
    diagonal: Tensor, weight: float | Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]
) -> tuple[Callable[[Tangent], Tangent], Tensor]:
    """The inverse of ``diag(diagonal) + (weight / N) (l_1 r_1^T + l_2 r_2^T)``, as a map, and its diagonal."""
    mean = GlobalCoupling().mean
    (r, s), (x, y) = right, (vector / diagonal for vector in left)
    rx, ry, sx, sy = (weight * mean(a * b) for a in right for b in (x, y))
    rx, sy = 1.0 + rx, 1.0 + sy
    weight = weight / (rx * sy - ry * sx)

    def solve(v: Tangent) -> Tangent:
        v = v / diagonal
        p, q = mean(r * v), mean(s * v)
        return v - weight * (x * (sy * p - ry * q) + y * (rx * q - sx * p))

    own = x * (sy * r - ry * s) + y * (rx * s - sx * r)
    return solve, (1.0 - weight / r[0].numel() * own) / diagonal


def _dense(sde: SDE, t: Time, h: Time, theta: Angles) -> DriftStep:
    """Exact for any drift: one vector-Jacobian product per angle, then dense linear algebra per sample."""
    angles = theta[0].numel()
    if angles > DENSE:
        raise ValueError(
            f"the Jacobian of this drift has no closed form, so there may be at most {DENSE} angles, got {angles};"
            " use a Kuramoto equation with no, global or local coupling, or match one step only"
        )
    with torch.enable_grad():
        x = theta.detach().requires_grad_()
        moved = x + spread(h, theta) * sde.drift(t, x)
        columns = moved.flatten(1).unbind(1)
        rows = [torch.autograd.grad(column.sum(), x, create_graph=True)[0].flatten(1) for column in columns]
        jacobian = torch.stack(rows, 1)
        log_det = torch.linalg.slogdet(jacobian).logabsdet.sum()
        constant = not log_det.requires_grad
        gradient = torch.zeros_like(theta) if constant else torch.autograd.grad(log_det, x)[0]
    transposed = jacobian.detach().mT

    def apply(v: Tangent) -> Tangent:
        return (transposed @ v.flatten(1)[..., None]).reshape(v.shape)

    def solve(v: Tangent) -> Tangent:
        x: Tensor = torch.linalg.solve(transposed, v.flatten(1))
        return x.reshape(v.shape)

    return DriftStep(moved.detach(), apply, solve, gradient)
