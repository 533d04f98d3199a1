"""Shared by every test: hypothesis profiles, one thread per worker, checked types, the data beside the checkout."""

import inspect
import os
import signal
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"

# what judges a change draws the same examples every time and finds nothing new in them: few will do; nights draw others
settings.register_profile("default", deadline=None, derandomize=True, print_blob=True, max_examples=25)
settings.register_profile("ci", settings.get_profile("default"), max_examples=50)
settings.register_profile(
    "explore", settings.get_profile("default"), max_examples=200, derandomize=False, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; tests interrupt themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)

ALWAYS, ONE_IN = 5, 50
calls: dict[CodeType, list[int]] = {}  # calls of each function of circsde in the present test
check_every_call = jaxtyping.jaxtyped


def checked(function: Any = None, *, typechecker: Any) -> Any:
    """Check types as ``jaxtyping.jaxtyped``, but only in the first 5 calls of a function in a test, then in one of 50.

    A check takes longer than the work of most functions, and a loop repeats the same types. What is checked depends on
    the test alone. The checks of a function are made at its first call; torch.compile sees it without them.
    """
    if function is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isclass(function):
        return check_every_call(function, typechecker=typechecker)
    count = calls.setdefault(function.__code__, [0])
    with_checks: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal with_checks
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        count[0] += 1
        if count[0] > ALWAYS and count[0] % ONE_IN:
            return function(*args, **kwargs)
        if with_checks is None:
            with_checks = check_every_call(function, typechecker=typechecker)
        return with_checks(*args, **kwargs)

    return call


class CheckedUnlessCompiling:
    """The settings of jaxtyping under which torch.compile sees classes, too, without their checks."""

    jaxtyping_remove_typechecker_stack = False

    @property
    def jaxtyping_disable(self) -> bool:
        return torch.compiler.is_compiling()


jaxtyping.jaxtyped = checked  # type: ignore[assignment]


def pytest_configure(config: pytest.Config) -> None:
    """One thread per worker, as workers share the cores."""
    torch.set_num_threads(1)
    jaxtyping._decorator.config = CheckedUnlessCompiling()  # type: ignore[assignment, attr-defined]
    if hasattr(config, "workerinput"):
        # what circsde imports in any run of all tests: first here, as below a checked module it would be compiled anew
        for package in ("lightning", "netCDF4", "scipy.stats", "torchdiffeq", "torchsde", "xarray"):
            import_module(package)


def pytest_runtest_setup() -> None:
    """Each test counts its calls from zero."""
    for count in calls.values():
        count[0] = 0


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every figure as one pixel, as drawing takes longer than most commands; other tests look at pictures."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **options: Image.new("L", (1, 1)).save(path))


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """A path below ``../shared``, beside the checkout; the test skips where that path does not exist."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"needs {Path('..', 'shared', *parts)}, which is not distributed with the project")
        return path

    return find
