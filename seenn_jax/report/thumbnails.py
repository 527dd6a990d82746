"""Small pictures of images and of recordings, to stand in a page."""

import base64
import io

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

SIDE = 64  # pixels, at most
EVENTS = np.array([[255, 138, 61], [86, 180, 233]])  # colours of an event camera's channels


def data_uri(image: Shaped[np.ndarray, "H W C"]) -> str:
    """A PNG as a `data:` URI; see `visible`."""
    picture = Image.fromarray(visible(image))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def visible(image: Shaped[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W *C"]:
    """An image as a screen can show it: grey, or of three channels.

    Counts of events are scaled to their largest; two channels, ON and OFF, are two colours, and
    other numbers of channels their mean.
    """
    if image.dtype != np.uint8:
        image = np.rint(image * (255 / max(int(image.max()), 1))).astype(np.uint8)
    channels = image.shape[-1]
    if channels == 2:
        return np.clip(np.rint(image / 255 @ EVENTS), 0, 255).astype(np.uint8)
    return image if channels == 3 else np.rint(image.mean(-1)).astype(np.uint8)
