"""A set of images from which windows are drawn: at random for training, fixed for evaluation."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from circsde.contracts import first_few
from circsde.data.images import Colour, Size, paged
from circsde.encoding import Encoding
from circsde.streams import numpy_stream, torch_stream
from circsde.typing import Angles


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one or many sizes, each with a name and a group, and how windows are cut out of them.

    Pixels are 8-bit, of one image after the other in one flat array, often mapped from a file; parts of a set share
    them. A pickled set that is mapped from a file opens that file again instead of copying it.

    Attributes:
        pixels: All pixels, flat: of each image its rows, columns and channels, the last index running fastest.
        offsets: The place in ``pixels`` at which each image begins, ``(images,)``.
        shapes: Rows and columns of each image, ``(images, 2)``.
        names: A name per image.
        groups: A group per image, for example the person whose finger it shows: no split parts a group.
        labels: The class of each image, for example a material; none where images have no classes.
        colour: "grey" for one channel, "rgb" for three.
        crop: Rows and columns of the windows; whole images by default, which must be of one size.
        size: Rows and columns that windows are resized to (bicubic, antialiased); by default they are not.
        mirror: Mirror every second window, left to right.
        turn: Turn windows by random quarter turns; by half turns where they are not square.
        skipped: What was left out of the set when it was read, each with its name and the reason.
        constant: Names of images that have one colour everywhere.

    Raises:
        ValueError: If the set is empty, or no window fits into an image, or whole images differ in size.

    >>> images = ImageSet(np.arange(64, dtype=np.uint8), np.array([0]), np.array([[8, 8]]), ("a",), ("a",), crop=(4, 4))
    >>> images.windows(3).shape
    torch.Size([3, 4, 4])
    """

    pixels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    colour: Colour = "grey"
    crop: Size | None = None
    size: Size | None = None
    mirror: bool = False
    turn: bool = False
    skipped: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an empty set and windows that do not fit."""
        if not self.names:
            raise ValueError("there is no image in the set")
        if self.crop is None and (self.shapes != self.shapes[0]).any():
            i = int((self.shapes != self.shapes[0]).any(1).argmax())
            (a, b), (c, d) = self.shapes[0].tolist(), self.shapes[i].tolist()
            raise ValueError(
                f"the images differ in size: {self.names[0]} has {a}x{b} pixels, {self.names[i]} {c}x{d}; give size to"
                " resize them all, or crop to cut windows of one size"
            )
        if (self._spare(np.arange(len(self)), 0) < 0).any():
            i = int(self._spare(np.arange(len(self)), 0).min(1).argmin())
            (a, b), (c, d) = self.shapes[i].tolist(), self.window
            raise ValueError(f"{self.names[i]} has {a}x{b} pixels, fewer than the crop of {c}x{d}: take a smaller crop")

    def __len__(self) -> int:
        """How many images."""
        return len(self.names)

    @property
    def window(self) -> Size:
        """Rows and columns that are cut out."""
        rows, columns = self.shapes[0].tolist() if self.crop is None else self.crop
        return rows, columns

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one drawn window, ``(rows, columns)`` grey or ``(3, rows, columns)`` in colour."""
        return (*((3,) if self.colour == "rgb" else ()), *(self.size or self.window))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks for a training on this set, such as images that were left out or have no content."""
        remarks: list[str] = []
        if self.skipped:
            remarks.append(f"{len(self.skipped)} images are left out: {first_few(self.skipped, '; ')}")
        remarks += paged(self.names)
        if self.constant:
            remarks.append(f"{len(self.constant)} of {len(self)} images have one colour: {first_few(self.constant)}")
        return tuple(remarks)

    def draw(self, count: int, generator: torch.Generator, margin: int = 0) -> Tensor:
        """Windows of images drawn with replacement, at uniform places.

        Args:
            count: How many.
            generator: Source of all randomness; the windows are on its device.
            margin: Pixels more on every side; not where windows are resized.

        Returns:
            Shape ``(count, *event_shape)``, with margin ``2 margin`` more rows and columns, float32 in ``[-1, 1]``.
        """
        return self.drawn(count, generator, margin)[0]

    def drawn(self, count: int, generator: torch.Generator, margin: int = 0) -> tuple[Tensor, NDArray[np.int64]]:
        """Draw windows as :meth:`draw` does, and say from which image each is."""
        uniform = torch.rand(5, count, dtype=torch.float64, generator=generator, device=generator.device)
        which = np.minimum((uniform[0].cpu().numpy() * len(self)).astype(np.int64), len(self) - 1)
        return self._windows(uniform, generator, which, margin), which

    def windows(self, count: int, seed: int = 0, margin: int = 0) -> Tensor:
        """A fixed sample of the law of :meth:`draw`, which uses the images evenly, for evaluation.

        Raises:
            ValueError: If the images have fewer different windows than ``count``.
        """
        places = (self._spare(np.arange(len(self)), margin) + 1).prod(1).sum()
        if count > places:
            raise ValueError(f"the {len(self)} images have {places} different windows, {count} are asked for")
        generator = torch_stream(seed, "windows")
        which = evenly(count, len(self), generator)
        uniform = torch.rand(5, count, dtype=torch.float64, generator=generator)
        return self._windows(uniform, generator, which.numpy(), margin)

    def margin(self, encoding: Encoding) -> int:
        """The margin around a window: as many pixels as the encoding wants and the smallest image has."""
        most = int(self._spare(np.arange(len(self)), 0).min()) // 2
        return 0 if self.size is not None else min(encoding.reach, most)

    def phases(self, count: int, encoding: Encoding, seed: int = 0) -> Angles:
        """Phases of :meth:`windows`."""
        margin = self.margin(encoding)
        return inner(encoding.encode(self.windows(count, seed, margin)), margin)

    def split(self, fraction: float = 0.8, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Two sets without a common group; the first has this fraction of the groups, at least one, not all.

        Raises:
            ValueError: If there is only one group, or the fraction is not between 0 and 1.
        """
        groups = sorted(set(self.groups))
        if len(groups) < 2 or not 0 < fraction < 1:
            raise ValueError(
                f"a split needs at least two groups and a fraction in (0, 1), got {len(groups)} and {fraction:g};"
                " split_rows cuts each image in two"
            )
        first = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
        order = numpy_stream(seed, "split").permutation(len(groups))
        chosen = [groups[i] for i in order[:first]]
        return self.of(chosen), self.without(chosen)

    def of(self, groups: Collection[str]) -> "ImageSet":
        """The images of these groups.

        Raises:
            ValueError: If a group has no image.
        """
        wanted = set(groups)
        missing = sorted(wanted - set(self.groups))
        if missing or not wanted:
            raise ValueError(f"there is no image of the groups {first_few(missing) or 'asked for, which are none'}")
        return self.where([group in wanted for group in self.groups])

    def without(self, groups: Collection[str]) -> "ImageSet":
        """The images of all other groups."""
        unwanted = set(groups)
        return self.where([group not in unwanted for group in self.groups])

    def where(self, mask: list[bool]) -> "ImageSet":
        """The images whose place in ``mask`` is true."""
        kept = np.flatnonzero(np.asarray(mask, dtype=bool))
        names = tuple(self.names[i] for i in kept)
        return replace(
            self,
            offsets=self.offsets[kept],
            shapes=self.shapes[kept],
            names=names,
            groups=tuple(self.groups[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept) if self.labels else (),
            constant=tuple(sorted(set(self.constant) & set(names))),
        )

    def split_rows(self, fraction: float = 0.8) -> tuple["ImageSet", "ImageSet"]:
        """The upper rows of every image, this fraction of them, and the lower rows: sets without a common pixel.

        The fraction is changed as little as need be, so that a window fits into either part.

        Raises:
            ValueError: If an image has not the rows of two windows.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"the fraction of rows must be in (0, 1), got {fraction:g}")
        rows, columns = self.shapes.T
        upper = np.rint(fraction * rows).astype(np.int64)
        if self.crop is not None:
            least = self.crop[0]
            if (rows < 2 * least).any():
                i = int(rows.argmin())
                raise ValueError(
                    f"{self.names[i]} has {rows[i]}x{columns[i]} pixels, and its upper and its lower rows, which are"
                    f" to be two parts of the data, cannot both hold a window of {least} rows: take a crop of at most"
                    f" {rows[i] // 2} rows, or a larger image"
                )
            upper = upper.clip(least, rows - least)
        below = self.offsets + upper * columns * self._channels
        return (
            replace(self, shapes=np.stack([upper, columns], axis=1)),
            replace(self, shapes=np.stack([rows - upper, columns], axis=1), offsets=below),
        )

    def __getstate__(self) -> dict[str, Any]:
        """All attributes; a mapped file is replaced by its path."""
        state = dict(self.__dict__)
        if isinstance(self.pixels, np.memmap) and self.pixels.filename is not None:
            state["pixels"] = Path(self.pixels.filename)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a mapped file again."""
        if isinstance(state["pixels"], Path):
            state = state | {"pixels": np.load(state["pixels"], mmap_mode="r", allow_pickle=False)}
        self.__dict__.update(state)

    @property
    def _channels(self) -> int:
        return 3 if self.colour == "rgb" else 1

    def _spare(self, which: NDArray[np.int64], margin: int) -> NDArray[np.int64]:
        """The rows and columns by which these images exceed a window."""
        spare: NDArray[np.int64] = self.shapes[which] - (np.array(self.window) + 2 * margin)
        return spare

    def _windows(self, uniform: Tensor, generator: torch.Generator, which: NDArray[np.int64], margin: int) -> Tensor:
        """Windows of these images, decided by ``uniform[1:]``, ``(4, count)``: row, column, mirroring, turn."""
        u = uniform.cpu().numpy()
        rows, columns = (n + 2 * margin for n in self.window)
        spare = self._spare(which, margin)
        place = np.minimum((u[1:3].T * (spare + 1)).astype(np.int64), spare)
        stride = self.shapes[which, 1] * self._channels
        first = self.offsets[which] + place[:, 0] * stride + place[:, 1] * self._channels
        strips = np.lib.stride_tricks.sliding_window_view(self.pixels, columns * self._channels)
        cut = torch.from_numpy(strips[first[:, None] + np.arange(rows) * stride[:, None]])
        windows = cut.view(len(which), rows, columns, self._channels).permute(0, 3, 1, 2)
        windows = self._moved(windows, torch.from_numpy(u[3:])).to(generator.device)
        x = windows.float().div_(127.5).sub_(1.0)
        if self.size is not None and self.size != self.window:
            x = functional.interpolate(x, self.size, mode="bicubic", antialias=True).clamp_(-1.0, 1.0)
        return x if self.colour == "rgb" else x[:, 0]

    def _moved(self, windows: Tensor, uniform: Tensor) -> Tensor:
        """``windows`` mirrored and turned as ``uniform``, ``(2, count)``, decides."""
        if self.mirror:
            windows = torch.where((uniform[0] < 0.5)[:, None, None, None], windows.flip(-1), windows)
        if self.turn:
            is_square = windows.shape[-2] == windows.shape[-1]
            quarters = (4 * uniform[1]).long() if is_square else 2 * (2 * uniform[1]).long()
            windows = windows.clone()
            for k in (1, 2, 3) if is_square else (2,):
                windows[quarters == k] = windows[quarters == k].rot90(k, (-2, -1))
        return windows


def evenly(count: int, items: int, generator: torch.Generator) -> Tensor:
    """``count`` places among so many items, each of them used as often as any other to one."""
    rounds = [torch.randperm(items, generator=generator) for _ in range(math.ceil(count / items))]
    return torch.cat(rounds)[:count]


def inner(theta: Tensor, margin: int) -> Tensor:
    """Without ``margin`` pixels on every side."""
    return theta[..., margin : theta.shape[-2] - margin, margin : theta.shape[-1] - margin]
