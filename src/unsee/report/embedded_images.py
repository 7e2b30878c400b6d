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


def embed(picture: str | None, folder: Path) -> Embedded:
    """Embeds a picture of a record.

    The pixels are encoded again, so that the metadata of a photograph (place, camera) does not
    get into a report that may be published.

    Args:
        picture: A path, absolute or relative to `folder`; or FILE.parquet#ROW.FIELD or
            FILE.zip#MEMBER.
        folder: The run folder.
    """
    if not picture:
        return Embedded(absent="The record names no picture.")
    inside = ".parquet#" in picture or is_archived(picture)
    file = folder / picture.partition("#")[0] if inside else folder / picture
    read = archived_bytes if is_archived(picture) else picture_bytes
    try:
        data = read(str(folder / picture)) if inside else None
        image = Picture(picture, None if inside else file, data).open()
    except DataError as error:
        if not file.is_file():
            return Embedded(absent=f"The picture {Path(picture).name} is no longer there.")
        return Embedded(absent=f"{str(error)[:1].upper()}{str(error)[1:]}")
    crisp = max(image.size) < SMALL
    buffer = io.BytesIO()
    if crisp:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=86, optimize=True)
    kind = "png" if crisp else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Embedded(uri=uri, width=image.width, height=image.height, crisp=crisp)
