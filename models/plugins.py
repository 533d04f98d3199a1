"""What of Lightning is replaced and silenced: its checkpoint files, and what it says."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO

from circsde.models import checkpoint


class SafetensorsIO(CheckpointIO):
    """Lightning's states as :mod:`circsde.models.checkpoint` writes them."""

    def save_checkpoint(self, state: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write the state."""
        checkpoint.save(state, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Read it."""
        return checkpoint.load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete it."""
        Path(path).unlink()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about hardware and data loaders."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
