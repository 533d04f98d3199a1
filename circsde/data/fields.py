"""Fields of phases to train on: arrays of angles over rows and columns, cut into windows; nothing is encoded."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circsde.data.image_set import evenly
from circsde.data.images import Size
from circsde.streams import torch_stream
from circsde.torus import require_finite
from circsde.typing import Angles


@dataclass(frozen=True)
class FieldEncoding:
    """Phases as they are. The picture of a field is its cosine, which has no seam where phases wrap."""

    @property
    def reach(self) -> int:
        """Zero, since the phase of a pixel depends on that pixel alone."""
        return 0

    def encode(self, x: Tensor) -> Angles:
        """The phases themselves, radians."""
        return x

    def decode(self, theta: Angles) -> Tensor:
        """``cos theta``, in ``[-1, 1]``."""
        return theta.cos()


@dataclass(frozen=True, eq=False)
class PhaseFields:
    """Fields of phases, and how windows are cut out of them. It draws data: ``(count, generator) -> theta``.

    Attributes:
        theta: Phases, ``(fields, rows, columns)``, radians.
        crop: Rows and columns of the windows; whole fields by default.
        remarks: What whoever trains on them should know.
        labels: Empty, as fields have no classes.

    Raises:
        ValueError: If there is no field, a phase is not finite, or a window does not fit.

    >>> fields = PhaseFields(torch.zeros(3, 8, 10), crop=(4, 4))
    >>> fields(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 4, 4])
    """

    theta: Angles
    crop: Size | None = None
    remarks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if self.theta.ndim != 3 or not self.theta.numel():
            raise ValueError(f"fields of phases have the shape (fields, rows, columns), got {tuple(self.theta.shape)}")
        require_finite(self.theta, "the phases of fields")
        if self.crop is not None and not all(0 < a <= b for a, b in zip(self.crop, self.theta.shape[1:], strict=True)):
            rows, columns = self.theta.shape[1:]
            raise ValueError(
                f"a field has {rows}x{columns} phases, fewer than the crop of {self.crop[0]}x{self.crop[1]}: take a"
                " smaller crop"
            )

    def __len__(self) -> int:
        """How many fields."""
        return len(self.theta)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a window, ``(rows, columns)``."""
        return tuple(self.theta.shape[1:]) if self.crop is None else self.crop

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        """``count`` windows of fields drawn with replacement, at uniform places, on the device of the generator."""
        uniform = torch.rand(3, count, dtype=torch.float64, generator=generator, device=generator.device).cpu()
        which = (uniform[0] * len(self)).long().clamp(max=len(self) - 1)
        return self._windows(which, uniform[1:]).to(generator.device)

    def phases(self, count: int, _: object = None, seed: int = 0) -> Angles:
        """A fixed sample of windows, which uses the fields evenly, for evaluation.

        Raises:
            ValueError: If the fields have fewer different windows than ``count``.
        """
        places = len(self) * math.prod(n + 1 for n in self._spare)
        if count > places:
            raise ValueError(f"the {len(self)} fields have {places} different windows, {count} are asked for")
        generator = torch_stream(seed, "windows")
        which = evenly(count, len(self), generator)
        return self._windows(which, torch.rand(2, count, dtype=torch.float64, generator=generator))

    def split(self, fraction: float = 0.8, seed: int = 0) -> tuple["PhaseFields", "PhaseFields"]:
        """Two sets without a common phase: of several fields some each, of one its upper and its lower rows.

        Raises:
            ValueError: If the fraction is not between 0 and 1, or the only field has not the rows of two windows.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"the fraction of fields must be in (0, 1), got {fraction:g}")
        if len(self) > 1:
            first = min(max(round(fraction * len(self)), 1), len(self) - 1)
            order = torch.randperm(len(self), generator=torch_stream(seed, "split"))
            return replace(self, theta=self.theta[order[:first]]), replace(self, theta=self.theta[order[first:]])
        rows, least = self.theta.shape[1], self.event_shape[0]
        if self.crop is None or rows < 2 * least:
            raise ValueError(
                f"there is one field of {rows} rows, whose upper and lower rows are to be two parts of the data, and"
                f" both must hold a window of {least} rows: take a crop of at most {rows // 2} rows, or more fields"
            )
        cut = min(max(round(fraction * rows), least), rows - least)
        return replace(self, theta=self.theta[:, :cut]), replace(self, theta=self.theta[:, cut:])

    @property
    def digest(self) -> str:
        """A hash of all phases and of how windows are cut, which identifies these data."""
        total = hashlib.sha256(self.theta.contiguous().numpy().tobytes())
        total.update(repr((tuple(self.theta.shape), self.crop)).encode())
        return total.hexdigest()

    @property
    def _spare(self) -> Sequence[int]:
        """The rows and columns by which a field exceeds a window."""
        return [whole - part for whole, part in zip(self.theta.shape[1:], self.event_shape, strict=True)]

    def _windows(self, which: Tensor, uniform: Tensor) -> Angles:
        """Windows of these fields, at the places that ``uniform``, ``(2, count)``, decides."""
        (spare_rows, spare_columns), (rows, columns) = self._spare, self.event_shape
        top = (uniform[0] * (spare_rows + 1)).long().clamp(max=spare_rows)
        left = (uniform[1] * (spare_columns + 1)).long().clamp(max=spare_columns)
        at = (
            which[:, None, None],
            top[:, None, None] + torch.arange(rows)[:, None],
            left[:, None, None] + torch.arange(columns),
        )
        return self.theta[at]
