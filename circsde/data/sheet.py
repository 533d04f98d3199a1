"""Many pictures in one."""

import math

import torch
from PIL import Image
from torch import Tensor


def sheet(pictures: Tensor, columns: int | None = None, *, gap: int = 2, zoom: int = 1) -> Image.Image:
    """Pictures side by side, row after row, on white.

    Args:
        pictures: Grey ``(count, rows, columns)`` or colour ``(count, 3, rows, columns)``, in ``[-1, 1]``; values
            beyond become black or white.
        columns: Pictures in a row; by default the sheet is about square.
        gap: Pixels between two pictures.
        zoom: The side of the square that shows one pixel.

    Raises:
        ValueError: If there is no picture, the shape is another, or a value is not a number.

    >>> sheet(torch.zeros(6, 4, 4), columns=3, gap=1).size
    (14, 9)
    """
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[1] != 3) or not pictures.numel():
        raise ValueError(
            f"a sheet needs pictures of shape (count, rows, columns) or (count, 3, rows, columns), got"
            f" {tuple(pictures.shape)}"
        )
    if pictures.isnan().any():
        raise ValueError(f"{int(pictures.flatten(1).isnan().any(1).sum())} of {len(pictures)} pictures have NaN pixels")
    columns = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if min(columns, zoom) < 1 or gap < 0:
        raise ValueError(f"columns and zoom must be positive and gap not negative, got {columns}, {zoom} and {gap}")
    values = ((pictures.detach().float().cpu().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    values = values.repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
    *_, height, width = values.shape
    shape = (math.ceil(len(values) / columns) * (height + gap) - gap, columns * (width + gap) - gap)
    canvas = torch.full((*values.shape[1:-2], *shape), 255, dtype=torch.uint8)
    for i, value in enumerate(values):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[..., top : top + height, left : left + width] = value
    return Image.fromarray((canvas if canvas.ndim == 2 else canvas.permute(1, 2, 0)).contiguous().numpy())
