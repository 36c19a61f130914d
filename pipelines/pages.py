"""HTML pages: templates that escape whatever they are given, and pictures as data for `<img>`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from numpy.typing import NDArray


def templates(package: str) -> Environment:
    """The Jinja2 templates in a package's folder `templates`.

    Every value is escaped unless it comes from a template itself; an unknown name raises.

    Args:
        package: for example `ajour.demo`.
    """
    return Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False,
    )  # fmt: skip


def image_url(pixels: NDArray[np.uint8], format: str = "png") -> str:
    """A picture as a `data:` address.

    Args:
        pixels: (height, width, 3), RGB.
        format: `png`, without loss, or `jpeg`.
    """
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if format == "jpeg" else []
    _, data = cv2.imencode(f".{format}", np.ascontiguousarray(pixels[..., ::-1]), options)
    return f"data:image/{format};base64,{base64.b64encode(data.tobytes()).decode()}"
