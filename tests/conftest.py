"""Shared by every test: reproducible hypothesis profiles, one thread per worker, and the data beside the checkout."""

import os
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("ci", settings.get_profile("default"), max_examples=50, derandomize=False, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


class CheckedUnlessCompiling:
    """The settings of jaxtyping under which torch.compile sees functions without the shape checks around them."""

    jaxtyping_remove_typechecker_stack = False

    @property
    def jaxtyping_disable(self) -> bool:
        return torch.compiler.is_compiling()


def pytest_configure() -> None:
    """One thread per worker, as workers share the cores; shapes and types are checked, but not inside torch.compile."""
    torch.set_num_threads(1)
    jaxtyping._decorator.config = CheckedUnlessCompiling()  # type: ignore[assignment, attr-defined]


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """A path below ``../shared``, beside the checkout; the test skips where that path does not exist."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"needs {Path('..', 'shared', *parts)}, which is not distributed with the project")
        return path

    return find
