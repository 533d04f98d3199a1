"""All methods by name: those of any equation, those of reversed equations only, and those of other packages."""

from collections.abc import Callable

from circsde.solvers.adams import ADAMS_BASHFORTH2
from circsde.solvers.ancestral import ANCESTRAL
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.multistep import MULTISTEP, MULTISTEP3
from circsde.solvers.third_order import KUTTA3

BACK_IN_TIME = {method.name: method for method in (ANCESTRAL, MULTISTEP, MULTISTEP3)}
"""Methods of reversed equations."""

ON_REQUEST = {method.name: method for method in (ADAMS_BASHFORTH2, KUTTA3)}
"""Methods of any equation that are not among the candidates unless they are named."""

PEERS = ("torchsde", "torchdiffeq", "diffrax", "diffusers", "k-diffusion")
"""Packages whose methods are had as ``"torchsde:srk"``."""


def find_method(method: str | Method) -> Method:
    """One of ``circsde.solvers.METHODS``, of the two groups above, of another package, ``"torchsde:srk"``, or itself.

    Raises:
        ValueError: If there is no method of that name.
        ImportError: If another package is asked for, and is missing or built otherwise than the bridge to it expects.
    """
    if isinstance(method, Method):
        return method
    package, colon, name = method.partition(":")
    if colon and package in PEERS:
        from circsde.solvers.interop import torchsde_method  # only here, so that a solve does not need torchsde
        from circsde.solvers.peers import diffrax_method, torchdiffeq_method
        from circsde.solvers.schedulers import diffusers_method, k_diffusion_method

        makers: dict[str, Callable[[str], Method]] = {
            "torchsde": torchsde_method,
            "torchdiffeq": torchdiffeq_method,
            "diffrax": diffrax_method,
            "diffusers": diffusers_method,
            "k-diffusion": k_diffusion_method,
        }
        return makers[package](name)
    known = METHODS | ON_REQUEST | BACK_IN_TIME
    if method not in known:
        raise ValueError(
            f"unknown method {method!r}; choose one of {', '.join(known)},"
            f" {', '.join(f'{peer}:NAME' for peer in PEERS)}, or a Method"
        )
    return known[method]
