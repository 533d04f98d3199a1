"""Samples of a trained model, of angles or of images: the one way from the horizon to data.

:func:`sample` chooses what a model needs, and calls :func:`circsde.sampling.generate.generate` for phases or
:func:`circsde.models.values.sample` for values of the standard diffusion.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import Sampled, first_few
from circsde.data.fields import FieldEncoding
from circsde.data.orientation import OrientationEncoding
from circsde.encoding import Encoding, PhaseEncoding
from circsde.models import values
from circsde.models.guidance import Conditioned
from circsde.models.training import Trained
from circsde.models.variance_preserving import VariancePreserving
from circsde.sampling.generate import generate, shifted
from circsde.sampling.reverse import Recipe
from circsde.sampling.start_laws import stationary
from circsde.solvers.solution import OnFailure, Status, event_axes
from circsde.torus import wrap
from circsde.typing import Labels

GOLDEN = 0.6180339887498949
"""The golden section, whose multiples are spread evenly over [0, 1), however many there are."""

AT_ONCE = 2**16
"""About the number of angles in a batch; 64 images of 32 x 32."""

ENCODING = ("encoding", "encoding_scale")
"""Attributes of a model of images and of its samples that say how phases stand for grey levels."""


def sample(
    model: Trained,
    count: int,
    recipe: Recipe | None = None,
    *,
    start: Sampled | None = None,
    classes: Sequence[str] = (),
    guidance: float = 1.0,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int | None = None,
    frames: int = 0,
    device: str | torch.device = "cpu",
    on_failure: OnFailure = "raise",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Draw samples of a model of angles, of images, or of values along the standard diffusion.

    Args:
        model: A trained model.
        count: How many samples.
        recipe: How to go back in time; by default :func:`default_recipe`. A model of values takes its number of steps,
            and as ``flow`` one of :data:`circsde.models.values.METHODS` instead of multistep.
        start: The law to start from; by default the law that the forward equation settles to.
        classes: Names of classes for the samples, in turn; by default each as often as it was learned.
        guidance: How far to lead samples to their classes; see :class:`circsde.models.guidance.Conditioned`.
        seed: Seed of everything random.
        first_sample: The index of the first sample. A sample depends on the seed and its index only.
        batch_size: Samples at a time; by default :func:`samples_at_once`.
        frames: States on the way to keep as well.
        device: The device on which the network runs.
        on_failure: Whether a batch that fails raises, or ends the result: look at its attribute ``status`` then.
        progress: Called with the number of finished steps, of ``count / batch_size`` (rounded up) times ``n_steps``.

    Returns:
        ``theta``, rad, over ``(sample, angle)``, in the directions of the data, with the names of the angles, or over
        ``(sample, [channel,] row, column)``; of a model of values ``value`` instead. With ``frames`` also ``path``.
        Where there are classes, the coordinate ``class``.

    Raises:
        SolveError: If the score or an angle is not finite.
        ValueError: If a class is unknown, the recipe does not fit the model, or no law is known to start from.
    """
    recipe = default_recipe(model) if recipe is None else recipe
    known: Mapping[str, int] = model.about.get("classes") or {}
    labels = class_labels(known, count, classes, guidance, first_sample)
    batch_size = samples_at_once(model) if batch_size is None else batch_size
    if isinstance(model.process, VariancePreserving):
        if frames:
            raise ValueError(
                "states on the way are phases, and this is a model of the standard diffusion: leave out frames (video)"
            )
        drawn = _values(model, count, recipe, labels, guidance, seed, first_sample, batch_size, device, progress)
    else:
        model.sde.to(device)
        drawn = generate(
            model.chain,
            model.network.to(device),
            stationary(model.sde) if start is None else start,
            count,
            recipe,
            labels=labels,
            guidance=guidance,
            seed=seed,
            first_sample=first_sample,
            batch_size=batch_size,
            frames=frames,
            device=device,
            on_failure=on_failure,
            progress=progress,
        )
        if "oscillator" in drawn.dims:
            drawn = _in_directions_of_data(drawn, model)
        drawn = drawn.assign_attrs({name: model.about[name] for name in ENCODING if name in model.about})
    if labels is None:
        return drawn
    names = np.array(list(known))[labels[: drawn.sizes["sample"]].numpy()]
    return drawn.assign_coords({"class": ("sample", names)})


def default_recipe(model: Trained) -> Recipe:
    """How a model is sampled by default.

    Images take 25 steps of multistep, the last without noise. A few angles take 100 steps of Heun's method, the last
    with noise, as their details may be as fine as the noise of that step.
    """
    return Recipe("multistep", 25) if len(event_shape(model)) > 1 else Recipe(denoise=False)


def samples_at_once(model: Trained) -> int:
    """The number of samples that hold about :data:`AT_ONCE` angles."""
    return max(1, AT_ONCE // math.prod(event_shape(model)))


def event_shape(model: Trained) -> tuple[int, ...]:
    """The shape of a sample."""
    process = model.process
    return tuple(process.event_shape if isinstance(process, VariancePreserving) else model.sde.event_shape)


def encoding_of(about: Mapping[str, Any]) -> Encoding:
    """The encoding that a model or its samples state; by default grey values on the whole circle."""
    if about.get("encoding") == "orientation":
        return OrientationEncoding()
    if about.get("encoding") == "phase":
        return FieldEncoding()
    return PhaseEncoding(float(about.get("encoding_scale") or math.pi))


def centre(model: Trained) -> Tensor:
    """The directions from which the model counts its angles, rad: those of its training data, or zero."""
    return torch.tensor(model.about.get("centre", 0.0), dtype=torch.float64)


def class_labels(
    known: Mapping[str, int], count: int, classes: Sequence[str] = (), guidance: float = 1.0, first_sample: int = 0
) -> Labels | None:
    """The class of each sample.

    Args:
        known: The classes that a model knows, each with the number of samples that it learned it from.
        count: How many samples.
        classes: Names of classes, which samples have in turn; by default each as often as it was learned.
        guidance: How far samples are to be led to them.
        first_sample: The index of the first sample.

    Raises:
        ValueError: If one is unknown, or guidance has no classes to lead to.

    >>> class_labels({"cat": 3, "dog": 1}, 8).tolist()
    [0, 1, 0, 0, 1, 0, 0, 0]
    """
    unknown = [name for name in classes if name not in known]
    if unknown or (guidance != 1.0 and not known):
        asked = f"the classes {', '.join(unknown)}" if unknown else f"guidance={guidance:g}"
        has = f"knows the classes {first_few(list(known), most=12)}" if known else "was trained without classes"
        raise ValueError(f"got {asked}, and the model {has}")
    if not known:
        return None
    index = range(first_sample, first_sample + count)
    if classes:
        names = list(known)
        return torch.tensor([names.index(classes[i % len(classes)]) for i in index])
    ends = list(accumulate(known.values()))
    return torch.from_numpy(np.searchsorted(ends, (np.array(index) + 0.5) * GOLDEN % 1.0 * ends[-1], side="right"))


def _in_directions_of_data(drawn: xr.Dataset, model: Trained) -> xr.Dataset:
    """Angles as data count them, with their names."""
    away = centre(model)
    for name in ("theta", "path"):
        if name in drawn:
            turned = wrap(torch.from_numpy(drawn[name].values) + away.to(torch.float32)).numpy()
            drawn[name] = drawn[name].copy(data=turned)
    drawn = drawn.rename(oscillator="angle")
    names = model.about.get("names")
    return drawn if names is None else drawn.assign_coords(angle=list(names))


def _values(
    model: Trained,
    count: int,
    recipe: Recipe,
    labels: Labels | None,
    guidance: float,
    seed: int,
    first_sample: int,
    batch_size: int,
    device: str | torch.device,
    progress: Callable[[int], object] | None,
) -> xr.Dataset:
    """Values instead of phases, by multistep steps or along a flow, of a model of the standard diffusion."""
    assert isinstance(model.process, VariancePreserving)
    told, parts = progress or (lambda _: None), []
    for k, first in enumerate(range(0, count, batch_size)):
        part = None if labels is None else labels[first : first + batch_size]
        drawn = values.sample(
            model.process,
            Conditioned(model.network, part, guidance=guidance).to(device),
            min(batch_size, count - first),
            n_steps=recipe.n_steps,
            method=recipe.flow or "multistep",
            seed=seed,
            first_sample=first_sample + first,
            device=device,
            progress=partial(shifted, told, k * recipe.n_steps),
        )
        parts.append(drawn.cpu())
    value = torch.cat(parts)
    return xr.Dataset(
        {"value": (("sample", *event_axes(value.ndim - 1)), value.numpy())},
        coords={"sample": np.arange(first_sample, first_sample + count)},
        attrs={"status": Status.SUCCESS, "message": "", "start_law": "standard normal"},
    )
