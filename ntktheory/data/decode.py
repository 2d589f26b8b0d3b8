"""Image files to arrays."""

import io
from pathlib import Path

import numpy as np

from ntktheory.checks import complaint


def decode_image(source: bytes | Path, where: str, size: int | None = None) -> np.ndarray:
    """Decode a JPEG or PNG image of 8 bits per channel; grey becomes RGB, transparency is dropped.

    Args:
        source: The file's bytes, or its path.
        where: How complaints name it.
        size: Side in pixels: the largest centred square is resized to it (bicubic). None leaves the
            image as it is.

    Returns:
        Array [3, height, width] of uint8.

    Raises:
        ValueError: If it cannot be read, is of another format, or has more than 8 bits per channel.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (4, 2), "red").save(file, "PNG")
        >>> decode_image(file.getvalue(), "red.png").tolist()
        [[[255, 255, 255, 255], [255, 255, 255, 255]], [[0, 0, 0, 0], [0, 0, 0, 0]],
         [[0, 0, 0, 0], [0, 0, 0, 0]]]
    """
    from PIL import Image, ImageOps

    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode}")
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            complaint(
                "images",
                "readable JPEG or PNG files of 8 bits per channel",
                f"{where} ({error})",
                "Restore that file.",
            )
        ) from error
    if size is not None:
        picture = ImageOps.fit(picture, (size, size))
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
