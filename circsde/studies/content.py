"""A digest of what an object holds, the same in every process: equal digests mean equal results.

Numbers, tensors and arrays count by their values; functions by their code, constants, defaults, closures and the
globals that they read; classes by their members; every other object by its class and what would be pickled of it. What
comes with circsde or from an installed package counts by its name, and its sources or its version go into the digest.
"""

import functools
import hashlib
import importlib.metadata
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from dis import get_instructions
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

PACKAGES = ("torch", "numpy", "scipy", "torchsde", "torchdiffeq")
"""Packages whose versions every digest holds, besides the sources of circsde."""

_STATEFUL = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
}
_SKIPPED = frozenset({"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "_abc_impl"})


class NoDigestError(TypeError):
    """Raised for an object whose content cannot be digested; the message says what it is and where it was found."""


def digest(thing: object) -> str:
    """64 hexadecimal digits that depend on all that ``thing`` holds, and on the packages that give it a meaning.

    Raises:
        NoDigestError: For what has a state that cannot be read, such as a random generator or an open file.

    >>> def drift(scale):
    ...     return lambda t, theta: -scale * theta.sin()
    >>> digest(drift(1.0)) == digest(drift(1.0)), digest(drift(1.0)) == digest(drift(2.0))
    (True, False)
    """
    walk = _Walk()
    walk.add("circsde", package_sources())
    walk.add([importlib.metadata.version(name) for name in PACKAGES], sys.version_info[:2])
    walk.add(str(torch.get_default_dtype()))
    walk.add(thing)
    return walk.hash.hexdigest()


@functools.cache
def package_sources() -> str:
    """A digest of every Python file of circsde."""
    total, root = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".py")):
            total.update(f"{path.relative_to(root)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class _Walk:
    """Feeds a hash with everything below an object; objects that hold themselves are named by their depth."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.above: list[Any] = []

    def add(self, *things: Any) -> None:
        """Add objects in their order."""
        for thing in things:
            depths = [i for i, other in enumerate(self.above) if other is thing]
            if depths:
                self._text("above", str(depths[0]))
                continue
            self.above.append(thing)
            self._one(thing)
            self.above.pop()

    def _text(self, kind: str, content: str | bytes = b"") -> None:
        data = content.encode() if isinstance(content, str) else content
        self.hash.update(f"{kind}:{len(data)}:".encode() + data)

    def _one(self, thing: Any) -> None:
        if thing is None or thing is Ellipsis or thing is NotImplemented or type(thing) in (bool, int, float, complex):
            self._text(type(thing).__name__, repr(thing))
        elif isinstance(thing, _STATEFUL):
            raise NoDigestError(f"{self._where()} is a {type(thing).__name__}, whose state changes as it is used")
        elif type(thing) in (str, bytes):
            self._text(type(thing).__name__, thing)
        elif type(thing) in (tuple, list):
            self._text(type(thing).__name__, str(len(thing)))
            self.add(*thing)
        elif type(thing) in (set, frozenset):
            self._text(type(thing).__name__, "".join(sorted(map(self._apart, thing))))
        elif type(thing) is dict:
            self._text("dict", str(len(thing)))
            for key, value in sorted(thing.items(), key=lambda item: self._apart(item[0])):
                self.add(key, value)
        elif isinstance(thing, Tensor | np.ndarray | np.generic):
            self._numbers(thing)
        elif isinstance(thing, ModuleType):
            self._installed(thing.__name__, thing.__name__)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, FunctionType):
            self._function(thing)
        elif isinstance(thing, CodeType):
            self._code(thing)
        else:
            self._object(thing)

    def _apart(self, thing: Any) -> str:
        """The digest of a part by itself, to sort by."""
        alone = _Walk()
        alone.above = [*self.above]
        alone.add(thing)
        return alone.hash.hexdigest()

    def _numbers(self, thing: Any) -> None:
        if isinstance(thing, Tensor):
            self._text("tensor", f"{thing.dtype} {tuple(thing.shape)} {thing.device.type} {thing.layout}")
            if thing.layout in _SPARSE:
                self.add(*(getattr(thing, part)() for part in _SPARSE[thing.layout]))
            elif thing.layout is torch.strided:
                flat = thing.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
                self._text("values", flat.view(torch.uint8).numpy().tobytes())
            else:
                raise NoDigestError(f"{self._where()} is a tensor of layout {thing.layout}")
        else:
            array = np.asarray(thing)
            self._text("array", f"{type(thing).__name__} {array.dtype} {array.shape}")
            self.add(array.tolist() if array.dtype.hasobject else array.tobytes())

    def _installed(self, name: str, module: str) -> None:
        """Digest a part of an installed package by its name and version, as its files are not edited."""
        version = _version(module)
        if version is None:
            raise NoDigestError(f"{self._where()} reads the module {module}, which is no installed package")
        self._text("installed", f"{name} {version}")

    def _class(self, cls: type) -> None:
        if _is_named(cls):
            self._installed(f"{cls.__module__}.{cls.__qualname__}", cls.__module__)
            return
        self._text("class", cls.__qualname__)
        self.add(*cls.__bases__)
        members = {name: value for name, value in vars(cls).items() if name not in _SKIPPED}
        for name, value in members.items():
            if not name.startswith("__dataclass_"):
                self.add(name, value)

    def _function(self, function: FunctionType) -> None:
        if _is_named(function):
            self._installed(f"{function.__module__}.{function.__qualname__}", function.__module__)
            return
        ours = _version(function.__module__ or "") is not None
        while ours and isinstance(inner := getattr(function, "__wrapped__", None), FunctionType):
            function = inner  # checks of types around it, where there are any
        self.add(function.__code__, function.__defaults__, function.__kwdefaults__ or {}, vars(function))
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:
                self._text("empty")
        for name in () if ours else sorted(set(_globals(function.__code__))):
            if name in function.__globals__:
                self.add(name, function.__globals__[name])

    def _code(self, code: CodeType) -> None:
        self._text("code", code.co_code + code.co_exceptiontable)
        self.add(code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.add(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)

    def _object(self, thing: Any) -> None:
        cls = type(thing)
        if isinstance(thing, property):
            self.add("property", thing.fget, thing.fset, thing.fdel)
        elif isinstance(thing, classmethod | staticmethod):
            self.add(cls.__name__, thing.__func__)
        elif isinstance(thing, functools.cached_property):
            self.add("cached_property", thing.func)
        elif isinstance(thing, GetSetDescriptorType | MemberDescriptorType):
            self._text("slot", thing.__name__)
        elif isinstance(thing, functools._lru_cache_wrapper):
            self.add(thing.__wrapped__)
        elif isinstance(thing, Enum):
            self.add(cls, thing.name)
        elif isinstance(thing, BuiltinFunctionType) and not isinstance(thing.__self__, ModuleType | type | None):
            self.add(thing.__self__, thing.__name__)
        elif is_dataclass(cls) and cls.__reduce__ is object.__reduce__:
            self.add(cls, *(getattr(thing, field.name) for field in fields(thing)))
        else:
            self._pickled(thing)

    def _pickled(self, thing: Any) -> None:
        """The state of an object that would be pickled, without what its cached properties have remembered."""
        try:
            parts = thing.__reduce_ex__(4)
        except Exception as error:
            raise NoDigestError(f"{self._where()} is a {type(thing).__name__}, of which nothing is known") from error
        if isinstance(parts, str):
            self._installed(parts, getattr(thing, "__module__", None) or "builtins")
            return
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        if isinstance(state, dict):
            cached = {name for base in type(thing).__mro__ for name, v in vars(base).items() if _remembers(v)}
            state = {name: value for name, value in state.items() if name not in cached}
        self.add(make, arguments, state, list(items or ()), list(pairs or ()))

    def _where(self) -> str:
        """The objects on the way here, for a message."""
        names = [getattr(x, "__qualname__", type(x).__name__) for x in self.above if not isinstance(x, tuple | dict)]
        return " > ".join(names[-4:])


def _remembers(member: object) -> bool:
    return isinstance(member, functools.cached_property)


def _globals(code: CodeType) -> Iterator[str]:
    """The names of the globals that code reads, functions inside it included."""
    for instruction in get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _is_named(thing: type | Callable[..., object]) -> bool:
    """Whether the name identifies an object: it stands in an installed module, and was not made by a function."""
    return "<" not in thing.__qualname__ and _version(thing.__module__ or "") is not None


@functools.cache
def _version(module: str) -> str | None:
    """The version of the installed package that a module belongs to; None where it is no installed one."""
    top = module.partition(".")[0]
    if top == "circsde":
        return "sources"
    if top in sys.stdlib_module_names and top != "__main__":
        return "python"
    file = getattr(sys.modules.get(top), "__file__", None)
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    if file is None or not any(Path(folder) in Path(file).parents for folder in folders):
        return None
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules[top], "__version__", None)
