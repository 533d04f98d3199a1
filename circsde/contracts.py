"""What the parts of an equation must have in common: functions their arguments, classes what is true of their drift."""

import inspect

COMPANIONS = {
    "drift": (
        *("closed_form", "elementary", "divergence", "impulse", "coupled", "remainder"),
        *("periodic", "attraction", "breakpoints", "terminal_law", "settled_law"),
    ),
    "diffusion": ("variance", "breakpoints", "terminal_law", "settled_law"),
    "terminal_law": ("settled_law",),
    "_field": ("closed_form", "divergence", "impulse", "terminal_law", "settled_law"),
    "_rates": ("closed_form", "divergence", "impulse", "terminal_law", "settled_law"),
}
"""What holds for one drift, for one diffusion, for one law or field, and not for another in its place."""


def drop_companions(cls: type, base: type) -> None:
    """Give a class that overrides a key of :data:`COMPANIONS` the version of ``base`` of what it does not override.

    A companion stays where it is defined by the same class as its key, or by one further down.
    """
    for name, companions in COMPANIONS.items():
        for companion in companions:
            if _definer(cls, companion) > _definer(cls, name):
                setattr(cls, companion, vars(base)[companion])


def _definer(cls: type, name: str) -> int:
    """How far up its line of parents a class finds a name; the class itself is 0."""
    return next((i for i, parent in enumerate(cls.__mro__) if name in vars(parent)), len(cls.__mro__))


def is_periodic(field: object) -> bool:
    """Whether a field says of itself, by its ``periodic``, that it is a 2 pi-periodic function of the angles."""
    return getattr(field, "periodic", False) is True


def check_arguments(name: str, arguments: tuple[str, ...], function: object) -> None:
    """Raise TypeError where ``function`` is no function of so many arguments, as far as its signature says."""
    expected = {
        2: "the time and the angles, f(t, theta)",
        1: "the time alone, g(t), as the noise is additive",
    }[len(arguments)]
    if not callable(function):
        raise TypeError(f"{name} must be a function of {expected}, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: its first call will tell
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} must be a function of {expected}; {function!r} takes {signature}") from error
