"""Approximations of a score: exact scores, networks, and how to train them."""

import warnings
from typing import Any

import lazy_loader

if __name__ != "circsde.models":
    raise ImportError("import circsde.models, not models")

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # Lightning is imported for training only


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it; one of an earlier version with a warning."""
    if name in ("Relative", "Wiener"):
        from circsde.models.checkpoint import RENAMED

        name, old = RENAMED[name], name
        warnings.warn(f"circsde.models.{old} is now circsde.models.{name}", DeprecationWarning, stacklevel=2)
    return _named(name)
