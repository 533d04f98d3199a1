"""All methods by name: for any equation, for reversed equations only, and methods of other packages."""

from collections.abc import Callable

from circsde.sde import SDE
from circsde.solvers.adams import ADAMS_BASHFORTH2
from circsde.solvers.ancestral import ANCESTRAL
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.multiplicative import FORMS, MULTIPLICATIVE
from circsde.solvers.multistep import DPMPP_2M, MULTISTEP, MULTISTEP3
from circsde.solvers.third_order import KUTTA3

BACK_IN_TIME = {method.name: method for method in (ANCESTRAL, MULTISTEP, DPMPP_2M, MULTISTEP3)}
"""Methods of reversed equations."""

ON_REQUEST = {method.name: method for method in (ADAMS_BASHFORTH2, KUTTA3)}
"""Methods of any equation that are not among the candidates unless they are named."""

PEERS = ("torchsde", "torchdiffeq", "diffrax", "diffusers", "k-diffusion")
"""Packages whose methods have names such as ``"torchsde:srk"``."""


def find_method(method: str | Method, sde: SDE | None = None) -> Method:
    """One of ``circsde.solvers.METHODS``, of the groups above, of another package, ``"torchsde:srk"``, or itself.

    Args:
        method: Its name, or a method.
        sde: An equation: then the method is the one of that name for its noise and its reading.

    Raises:
        ValueError: If there is no method of that name, or none for that equation.
        ImportError: If another package is asked for, and is missing or built otherwise than the bridge to it expects.
    """
    found = method if isinstance(method, Method) else _named(method)
    return found if sde is None else _fitted(found, sde)


def _fitted(method: Method, sde: SDE) -> Method:
    """The form of a method for the noise and the reading of an equation."""
    name, noise, reading = method.name, sde.noise, sde.sde_type
    ours = method is METHODS.get(name) or method in FORMS
    same = (method, *(form for form in FORMS if ours and form.name == name))
    form = next((form for form in same if noise in form.noises), None)
    if form is not None and form.calculus in (None, reading):
        return form
    if noise == "additive":
        raise ValueError(f"{name} is for noise that depends on the angles, and this is additive: take heun or sra1")
    advice = f"take {', '.join(form.name for form in forms(sde))}"
    if form is None:
        kinds = " or ".join(method.noises)
        raise ValueError(
            f"{name} is for {kinds} noise, and that of this equation, read as {reading}, is {noise}: {advice}"
        )
    raise ValueError(
        f"{name} converges to the solution of the {form.calculus} equation, and this one is read as {reading}:"
        f" {advice}; or convert the equation with circsde.as_{form.calculus}"
    )


def forms(sde: SDE) -> list[Method]:
    """The methods for an equation whose noise depends on the angles, in their forms for it."""
    return [form for form in FORMS if sde.noise in form.noises and form.calculus in (None, sde.sde_type)]


def _named(method: str) -> Method:
    """The method of that name."""
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
    known |= {name: form for name, form in MULTIPLICATIVE.items() if name not in known}
    if method not in known:
        raise ValueError(
            f"unknown method {method!r}; choose one of {', '.join(known)},"
            f" {', '.join(f'{peer}:NAME' for peer in PEERS)}, or a Method"
        )
    return known[method]
