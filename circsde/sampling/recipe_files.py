"""Recipes as files, so that ``circsde sample RUN --recipe FILE`` can use a choice that was made once."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from circsde.record import replacing
from circsde.sampling.reverse import Recipe, Spacing

_KEY = "recipe"


def save_recipe(
    recipe: Recipe, path: str | Path, about: Mapping[str, Any] | None = None, *, force: bool = False
) -> None:
    """Write a recipe as JSON, with what is to be known ``about`` it beside.

    Raises:
        ValueError: If its method is not known by a name.
        OSError: If the file exists and is not to be replaced, or cannot be written.
    """
    if recipe.method is not None and not isinstance(recipe.method, str):
        raise ValueError(f"a file names methods, and {recipe.method.name} is an object: give it by name")
    text = json.dumps({_KEY: asdict(recipe), **(about or {})}, indent=2, allow_nan=False)
    with replacing(path, force=force) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file holds no recipe, or one with settings that are not known or do not fit one another.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_recipe(Recipe("multistep", 12, Spacing.LOG_NOISE), f"{folder}/recipe.json")
    ...     load_recipe(f"{folder}/recipe.json").n_steps
    12
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))[_KEY]
        unknown = sorted(set(told) - {field.name for field in fields(Recipe)})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no recipe: give a file that `circsde select RUN` wrote ({error!r})") from None
    if unknown:
        raise ValueError(f"{path} has settings that no recipe has, {', '.join(unknown)}: another version wrote it")
    try:
        return Recipe(**{**told, "spacing": Spacing(told.get("spacing", Spacing.INDEX))})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
