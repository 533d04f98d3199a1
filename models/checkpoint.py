"""Checkpoints: one safetensors file with the weights, everything needed to go on, and all that made them.

A file is tensors by name and, in its header, JSON: the equation and the network, described, and the rest of the state.
It is written beside its place and then renamed, so a kill or a full disk leaves the previous one. Loading runs no code.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import DenseCoupling, GraphCoupling
from circsde.harmonics import SimplicialCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models.hollow import HollowMLP
from circsde.models.linear_residual import LinearResidual
from circsde.models.mlp import ScoreMLP
from circsde.models.settled_residual import SettledResidual
from circsde.models.unet import ScoreUNet
from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
from circsde.record import replacing
from circsde.schedule import Cosine, Linear, Schedule

FORMAT = 1

_COUPLINGS = (NoCoupling, GlobalCoupling, LocalCoupling, GraphCoupling, DenseCoupling, SimplicialCoupling)
_EQUATION = (KuramotoSDE, *_COUPLINGS, Schedule, Linear, Cosine)
_STANDARD = (VariancePreserving, EpsilonUNet)
_NETWORKS = (ScoreMLP, HollowMLP, ScoreUNet, SettledResidual, LinearResidual)
DESCRIBED = {described.__name__: described for described in (*_EQUATION, *_STANDARD, *_NETWORKS)}
"""Classes that a checkpoint knows by name. All others state their ``arguments`` or are dataclasses."""

_OF_TENSORS = {kind.__name__ for kind in (KuramotoSDE, *_COUPLINGS)}  # whose numbers and lists of them are tensors

RENAMED = {"Relative": "SettledResidual", "Wiener": "LinearResidual"}
"""Names of classes in the checkpoints of 0.1.0."""

_SPARSE = "sparse matrix"


def describe(value: Any) -> Any:
    """``value`` as JSON that :func:`rebuild` makes it from again.

    Raises:
        ValueError: If it is, or holds, something that does not say which arguments made it, such as a function; or a
            class with the name of another in :data:`DESCRIBED`.

    >>> describe(Linear(0.1, 2.0))
    {'type': 'Linear', 'start': 0.1, 'end': 2.0, 'horizon': 1.0}
    """
    if isinstance(value, Tensor) and value.is_sparse:
        matrix = value.detach().cpu().coalesce()
        indices, values = matrix.indices().tolist(), matrix.values().tolist()
        return {"type": _SPARSE, "indices": indices, "values": values, "size": list(matrix.shape)}
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind: type = type(value)
    if kind.__name__ in DESCRIBED and DESCRIBED[kind.__name__] != kind:
        raise ValueError(f"{value!r} has the name of another class that checkpoints know: call {kind} otherwise")
    arguments = {name: describe(argument) for name, argument in _arguments(value).items()}
    return {"type": kind.__name__, **arguments}


def kinds(value: Any) -> set[type]:
    """The classes of ``value`` and of all that it is made of that :func:`rebuild` has to be given."""
    if isinstance(value, tuple | list):
        return {kind for item in value for kind in kinds(item)}
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return set()
    inner = {kind for argument in _arguments(value).values() for kind in kinds(argument)}
    return inner if type(value).__name__ in DESCRIBED else {type(value), *inner}


def _arguments(value: Any) -> Mapping[str, Any]:
    """The arguments that make an object again."""
    if type(value) is KuramotoSDE:
        names = ("event_shape", "coupling", "schedule", "reference_phase", "natural_frequency", "sde_type")
        return {name: getattr(value, name) for name in names}
    if isinstance(arguments := getattr(value, "arguments", None), Mapping):
        return arguments
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise ValueError(
        f"a checkpoint cannot hold {value!r}: give its class an attribute arguments, a mapping of those that made it"
    )


def rebuild(description: Any, known: Collection[type] = ()) -> Any:
    """The object that :func:`describe` described; networks get new random weights.

    Args:
        description: What was described.
        known: Classes of your own that it may be made of. No code is read from a file, so they have to be given.

    Raises:
        ValueError: If it is of a class that is not known.
    """
    if isinstance(description, list):
        return [rebuild(item, known) for item in description]
    if not isinstance(description, Mapping):
        return description
    if description["type"] == _SPARSE:
        indices = torch.tensor(description["indices"]).reshape(2, -1)
        values = torch.tensor(description["values"], dtype=torch.float64)
        return torch.sparse_coo_tensor(indices, values, description["size"], check_invariants=True)
    classes = DESCRIBED | {given.__name__: given for given in known}
    name = RENAMED.get(description["type"], description["type"])
    if name not in classes:
        raise ValueError(
            f"the checkpoint holds a {name}, and circsde knows {', '.join(classes)}: give the class, as in"
            f" trained(run, known=({name},)); or is the file of another version?"
        )
    arguments = {name: rebuild(argument, known) for name, argument in description.items() if name != "type"}
    for part in ("reference_phase", "natural_frequency", "lag", "weights"):
        if part in arguments and name in _OF_TENSORS:
            arguments[part] = torch.tensor(arguments[part], dtype=torch.float64)
    return classes[name](**arguments)


def save(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a tree of dicts, lists, tensors, numbers and text.

    Raises:
        OSError: If the file cannot be written; what was at ``path`` is still there.
    """
    tensors: dict[str, Tensor] = {}
    tree = _without_tensors(state, "", tensors)
    with replacing(path, force=True) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": str(FORMAT), "state": json.dumps(tree)})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def load(path: str | Path) -> dict[str, Any]:
    """Load the tree that :func:`save` wrote, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a checkpoint, or only a part of one (was a copy cut off?): {error}") from error
    if metadata.get("format") != str(FORMAT) or "state" not in metadata:
        raise ValueError(f"{path} is a safetensors file, but no checkpoint of circsde in format {FORMAT}")
    try:
        state: dict[str, Any] = _with_tensors(json.loads(metadata["state"]), tensors)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its description cannot be read ({error})") from error
    return state


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Put ``weights``, read from ``path``, into ``network``.

    Raises:
        ValueError: If they belong to another architecture; the message says what differs.
    """
    own = network.state_dict()
    differing = [
        f"{name} is {tuple(weights[name].shape)} and not {tuple(tensor.shape)}"
        if name in weights
        else f"{name} is missing"
        for name, tensor in own.items()
        if name not in weights or weights[name].shape != tensor.shape
    ] + [f"{name} is unknown" for name in weights if name not in own]
    if differing:
        raise ValueError(
            f"the weights in {path} are those of another network than {type(network).__name__} with"
            f" {getattr(network, 'arguments', {})}: {'; '.join(differing[:3])}"
            + (f" and {len(differing) - 3} more differences" if len(differing) > 3 else "")
        )
    network.load_state_dict(dict(weights))


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON, with its tensors moved to ``tensors``; a dict becomes a list, for its keys may be integers."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _without_tensors(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, tuple | list):
        return [_without_tensors(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _with_tensors(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_with_tensors(item, tensors) for item in tree]
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: _with_tensors(item, tensors) for key, item in tree["items"]}
    return tree
