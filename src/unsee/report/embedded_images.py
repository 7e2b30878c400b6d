"""Pictures of the report: decoded, scaled and embedded, so that the file is self-contained."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unsee.data.archives import archived_bytes, is_archived
from unsee.data.tables import picture_bytes
from unsee.errors import DataError
from unsee.files import is_regular
from unsee.types import Picture

# Below this size a picture is embedded as it is and enlarged by whole pixels, not blurred.
SMALL = 160


# Photographs are scaled down to this many pixels: twice what the page shows, for sharp screens.
LARGE = 360


@dataclass(frozen=True)
class Embedded:
    """A picture in the report, or the reason why it is absent.

    Attributes:
        uri: A data URI; empty if the picture could not be read.
        width: Width of the embedded picture, in pixels.
        height: Height of the embedded picture, in pixels.
        crisp: Whether to enlarge it without smoothing.
        absent: The reason in words if `uri` is empty.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    crisp: bool = False
    absent: str = ""


def embed(picture: str | None, folder: Path, sha256: str | None = None) -> Embedded:
    """Embeds a picture of a record.

    The pixels are encoded again, so that the metadata of a photograph (place, camera) does not
    get into a report that may be published. A run folder of somebody else may name any file: a
    picture from outside the folder is embedded only if the record has its hash, which nobody has
    who does not have the picture.

    Args:
        picture: A path, absolute or relative to `folder`; or FILE.parquet#ROW.FIELD or
            FILE.zip#MEMBER.
        folder: The run folder.
        sha256: The hash of the picture's pixels that the record has, if it has one.
    """
    if not picture:
        return Embedded(absent="The record names no picture.")
    within = ".parquet#" in picture or is_archived(picture)
    read = archived_bytes if is_archived(picture) else picture_bytes
    name = Path(picture).name
    try:
        file = (folder / (picture.partition("#")[0] if within else picture)).resolve()
        outside = not file.is_relative_to(folder.resolve())
        if outside and sha256 is None:
            return Embedded(
                absent=f"The picture {name} lies outside the run folder, and the record has no "
                "hash of it: such a picture is not embedded."
            )
        if not is_regular(file):
            return Embedded(absent=f"The picture {name} is no longer there.")
        data = read(str(folder / picture)) if within else None
        opened = Picture(picture, None if within else file, data)
        if sha256 is not None and opened.digest != sha256:
            return Embedded(absent=f"The picture {name} is not the one of the run any more.")
        image = opened.open()
    except (DataError, OSError, ValueError, RuntimeError) as error:
        if not isinstance(error, DataError) or sha256 is not None:
            return Embedded(absent=f"The picture {name} cannot be read.")
        return Embedded(absent=f"{str(error)[:1].upper()}{str(error)[1:]}")
    return embedded(image)


def embedded(image: Image.Image) -> Embedded:
    """Embeds decoded pixels; large pictures are scaled down."""
    crisp = max(image.size) < SMALL
    buffer = io.BytesIO()
    if crisp:
        image.save(buffer, "PNG", optimize=True)
    else:
        image = image.copy()
        image.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=86, optimize=True)
    kind = "png" if crisp else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Embedded(uri=uri, width=image.width, height=image.height, crisp=crisp)
