"""Contracts of parts: the methods of laws, the arguments of functions, and what a class knows about its drift."""

import functools
import inspect
import warnings
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from torch import Generator, Tensor

P = ParamSpec("P")
R = TypeVar("R")

COMPANIONS = {
    "drift": (
        *("closed_form", "divergence", "impulse", "coupled", "remainder"),
        *("periodic", "attraction", "breakpoints", "terminal_law", "settled_law"),
    ),
    "diffusion": ("variance", "breakpoints", "terminal_law", "settled_law"),
    "terminal_law": ("settled_law",),
    "_field": ("closed_form", "divergence", "impulse", "terminal_law", "settled_law"),
    "_rates": ("closed_form", "divergence", "impulse", "terminal_law", "settled_law"),
}
"""What holds for one drift, diffusion, law or field only, and is dropped where another takes its place."""


def drop_companions(cls: type, base: type) -> None:
    """Give a class that overrides a key of :data:`COMPANIONS` the version of ``base`` of what it does not override.

    A companion stays where it is defined by the same class as its key, or by one further down.
    """
    for name, companions in COMPANIONS.items():
        for companion in companions:
            if _definer(cls, companion) > _definer(cls, name):
                setattr(cls, companion, vars(base)[companion])


def _definer(cls: type, name: str) -> int:
    """The number of parents through which a class finds a name; 0 for the class itself."""
    return next((i for i, parent in enumerate(cls.__mro__) if name in vars(parent)), len(cls.__mro__))


@runtime_checkable
class Law(Protocol):
    """A law that knows its density."""

    def log_prob(self, value: Tensor, /) -> Tensor:
        """The log-density, nats: at each angle for a law on the circle, at each sample for a joint law."""


@runtime_checkable
class Sampled(Protocol):
    """A law that can be drawn from."""

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``, rad."""


@runtime_checkable
class SampledLaw(Law, Sampled, Protocol):
    """A law that knows its density and can be drawn from."""


def takes_old_name(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the argument ``new`` may be given by its name of before, with a DeprecationWarning, for one version.

    >>> @takes_old_name("kind", "metric")
    ... def study(metric):
    ...     return metric
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     study(kind="weak")
    'weak'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                warnings.warn(f"{old}= of {function.__name__} is now {new}=", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return called

    return decorate


def first_few(items: Collection[object], separator: str = ", ", most: int = 5) -> str:
    """A list for a message, cut after ``most`` items.

    >>> first_few((0, 3)), first_few(range(7))
    ('0, 3', '0, 1, 2, 3, 4, and 2 more')
    """
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, list(items)[:most])) + more


def is_periodic(field: object) -> bool:
    """Whether a field says of itself, by its ``periodic``, that it is a 2 pi-periodic function of the angles."""
    return getattr(field, "periodic", False) is True


def check_arguments(name: str, arguments: tuple[str, ...], function: object) -> Callable[..., Any]:
    """Return the function itself if it takes so many arguments.

    Raises:
        TypeError: If it is no function of so many arguments, as far as its signature says.
    """
    expected = {
        2: "the time and the angles, f(t, theta)",
        1: 'the time alone, g(t), as the noise is additive; if it depends on the angles, give noise="diagonal" or'
        " another kind",
    }[len(arguments)]
    if not callable(function):
        raise TypeError(f"{name} must be a function of {expected}, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: its first call will tell
        return function
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} must be a function of {expected}; {function!r} takes {signature}") from error
    return function
