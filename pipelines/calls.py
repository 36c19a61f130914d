"""Arguments for the call of any pipeline: which it takes, which it needs, images from files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.generate import call_parameters, needed_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

IMAGES = ("image", "control_image")
"""Arguments of pipelines that an image can be given for, the usual one first."""


def fit_call(pipe: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a pipeline's call, checked against what it takes and needs.

    An `image` stands for the `control_image` of pipelines that only take that.

    Raises:
        TypeError: if the pipeline does not take an argument, or needs more than these, a prompt and
            a generator; or if its call does not say what it takes.
    """
    name, parameters = type(pipe).__name__, dict(call_parameters(pipe))
    if "prompt" not in parameters:
        raise TypeError(
            f"the call of {name} names no prompt among its arguments; use a function that runs it"
        )
    call = dict(options)
    if "image" in call and "image" not in parameters and "control_image" in parameters:
        call["control_image"] = call.pop("image")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (unknown := sorted(set(call) - set(parameters))):
        hint = "; load a pipeline that does, and use it from Python" if "image" in unknown else ""
        raise TypeError(f"{name} takes no {', '.join(unknown)}{hint}")
    missing = [word for word in needed_arguments(pipe) if word not in call]
    if any(word in IMAGES for word in missing):
        raise TypeError(f"{name} needs an image: give --image FILE, or {missing[0]} in the call")
    if missing:
        raise TypeError(f"{name} needs more than a prompt: give {', '.join(missing)} in the call")
    return call


@contextmanager
def explaining(pipe: Any, call: Mapping[str, Any]) -> Iterator[None]:
    """If a run within the block fails and the pipeline got none of the images it takes, say that.

    Many pipelines that need an image do not say so.

    Raises:
        TypeError: in place of the pipeline's error.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        parameters = call_parameters(pipe)
        images = [word for word in IMAGES if word in parameters]
        if not images or any(call.get(word) is not None for word in images):
            raise
        raise TypeError(
            f"{type(pipe).__name__} failed without an image ({error}); if it needs one, give "
            f"--image FILE, or {images[0]} in the call"
        ) from error


def read_image(path: Path) -> Any:
    """The image of a file, in RGB.

    Raises:
        ValueError: if the file cannot be read or holds no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:  # also of files that are no image
        raise ValueError(f"cannot read image {str(path)!r}: {error}") from error
