"""Windows of images as training data: drawn at random, encoded as phases, with their classes."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from circsde.contracts import first_few
from circsde.data.image_set import ImageSet, inner
from circsde.encoding import Encoding
from circsde.typing import Angles, Labels


@dataclass(frozen=True, eq=False)
class RandomWindows:
    """Draws random windows as phases, ``(count, generator) -> theta``; as pictures where there is no encoding.

    Attributes:
        images: What windows are cut out of.
        encoding: The encoding of windows as phases.
        classes: Names of classes, whose places in it are the labels; by default windows have none.

    Raises:
        ValueError: If there are classes and an image of none of them.
    """

    images: ImageSet
    encoding: Encoding | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse images of no class."""
        strangers = sorted(set(self.images.labels) - set(self.classes))
        if self.classes and (strangers or not self.images.labels):
            raise ValueError(
                f"the classes are {first_few(self.classes)}, and there are images of"
                f" {first_few(strangers) or 'no class'}"
            )

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        """``count`` windows, on the device of the generator."""
        return self.labelled(count, generator)[0]

    def labelled(self, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
        """Windows and their classes, -1 where there are none."""
        margin = 0 if self.encoding is None else self.images.margin(self.encoding)
        windows, which = self.images.drawn(count, generator, margin)
        theta = windows if self.encoding is None else inner(self.encoding.encode(windows), margin)
        return theta, torch.from_numpy(self._labels[which]).to(theta.device)

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        """The label of each image."""
        if not self.classes:
            return np.full(len(self.images), -1)
        return np.array([self.classes.index(label) for label in self.images.labels])

    @cached_property
    def digest(self) -> str:
        """A hash of all pixels and of how windows are cut and encoded, which identifies these data."""
        images, total = self.images, hashlib.sha256()
        for array in (images.pixels, images.offsets, images.shapes):
            total.update(np.ascontiguousarray(array).data)
        cut = (images.colour, images.crop, images.size, images.mirror, images.turn)
        told = (self.classes, self.images.labels) if self.classes else ()
        total.update(repr((*cut, self.encoding, *told)).encode())
        return total.hexdigest()
