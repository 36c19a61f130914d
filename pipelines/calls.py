"""Arguments for the call of any pipeline: which it takes, which it needs, images from files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.bundled import CALL_NAMES
from ajour.pipelines.generate import call_parameters, needed_arguments
from ajour.pipelines.usage import BadUsage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

IMAGES = ("image", "control_image")
"""Arguments of pipelines that an image can be given for, the usual one first."""

FRAME_FACTORS = (
    "vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor"
)  # fmt: skip
"""Attributes of pipelines: frames of the video per frame of the latents."""

PIXEL_FACTORS = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio")
"""Attributes of pipelines: pixels of the video per pixel of the latents."""


def fit_call(pipe: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a pipeline's call, checked against what it takes and needs.

    An `image` stands for the `control_image` of pipelines that only take that.

    Raises:
        TypeError: if the pipeline does not take an argument, or needs more than these, a prompt and
            a generator; or if its call does not say what it takes.
        BadUsage: if the pipeline would round the number of frames, the height or the width.
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
    _check_sizes(pipe, call)
    return call


def _check_sizes(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise BadUsage if a video pipeline would round a size. Many do so without a word."""
    frames, factor = call.get("num_frames"), _first(pipe, FRAME_FACTORS)
    if isinstance(frames, int) and factor and (frames - 1) % factor:
        low = (frames - 1) // factor * factor + 1
        raise BadUsage(
            f"{type(pipe).__name__} makes {factor} n + 1 frames, got {frames}: give {low} or "
            f"{low + factor}"
        )
    config = getattr(getattr(pipe, "transformer", None), "config", None)
    patch = getattr(config, "patch_size", None)
    multiple = _first(pipe, PIXEL_FACTORS) * (patch[1] if isinstance(patch, list | tuple) else 1)
    for side in ("height", "width"):
        pixels = call.get(side)
        if isinstance(pixels, int) and multiple and pixels % multiple:
            low = pixels // multiple * multiple
            either = f"{low} or {low + multiple}" if low else str(multiple)
            raise BadUsage(
                f"{type(pipe).__name__} takes a {side} that is a multiple of {multiple}, got "
                f"{pixels}: give {either}"
            )


def _first(pipe: Any, names: tuple[str, ...]) -> int:
    """The first of some attributes that a pipeline has, if it is an integer; otherwise 0."""
    values = (getattr(pipe, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), 0)


def resized(call: Mapping[str, Any], made: tuple[int, ...]) -> str:
    """A sentence if a video has another size than was asked for; otherwise empty.

    Args:
        call: arguments of the pipeline's call.
        made: shape of the video, (F,H,W,3).
    """
    asked = [call.get(name) for name in ("num_frames", "height", "width")]
    if all(size in (None, there) for size, there in zip(asked, made[:3], strict=True)):
        return ""
    texts = (" x ".join("?" if size is None else str(size) for size in sizes)
             for sizes in (asked, made[:3]))  # fmt: skip
    return "the pipeline changed the size: {} were asked for, {} were made".format(*texts)


def whole_call(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `ajour` can set, with the pipeline's own where none is given, as JSON."""
    parameters = call_parameters(pipe)
    own = {name: parameters[name].default for name in CALL_NAMES.values() if name in parameters}
    return {
        name: value
        for name, value in {**own, **call}.items()
        if value is None or isinstance(value, str | int | float)
    }


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
