"""Known people: the mean visual token of each, and who of them a picture is nearest to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unsee.attacks.probe import picture_states
from unsee.data.selection import one_sample_per_picture
from unsee.errors import DataError
from unsee.evaluation.recognition import prototype_similarities
from unsee.models.vlm import VLM
from unsee.report.embedded_images import embedded
from unsee.types import Sample

SHOWN = 3  # people next to an answer
BATCH = 16


@dataclass(frozen=True)
class Neighbour:
    """A person of the gallery and how near a picture is to them.

    Attributes:
        name: The person.
        similarity: Cosine between the picture's mean visual token and the person's, both without
            the mean of all people: 1 is the same direction, 0 none.
        thumbnail: A data URI of one of their pictures.
    """

    name: str
    similarity: float
    thumbnail: str


class Gallery:
    """People with pictures, as the model before any patch sees them.

    The patch leaves the language model as it is, which learned to name people by the features that
    the unpatched visual part gives. So a picture is compared with those, before and after.
    """

    def __init__(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        layer: str,
        on_picture: Callable[[int, int], None] | None = None,
    ) -> None:
        """Reads the features of all pictures.

        Args:
            vlm: The model before any patch.
            samples: Samples with pictures and concepts.
            layer: The visual layer whose features are averaged.
            on_picture: Called with the number of pictures read, and of all.

        Raises:
            DataError: If fewer than two people have pictures.
        """
        known = [s for s in one_sample_per_picture(samples) if s.picture and s.concept]
        self._labels = [str(sample.concept) for sample in known]
        self.people = list(dict.fromkeys(self._labels))
        if len(self.people) < 2:
            raise DataError(
                f"the gallery has {len(self.people)} people with pictures; at least 2 are needed "
                "to say who is nearest. Give a folder with one subfolder a person."
            )
        rows = []
        for start in range(0, len(known), BATCH):
            rows.append(picture_states(vlm, known[start : start + BATCH], [layer])[layer])
            if on_picture is not None:
                on_picture(min(start + BATCH, len(known)), len(known))
        self._states = np.concatenate(rows)
        first = {str(s.concept): s.picture for s in reversed(known) if s.picture is not None}
        self._thumbnails = {name: embedded(vlm.image(first[name])).uri for name in self.people}

    def nearest(self, state: Float[np.ndarray, "one dim"]) -> tuple[Neighbour, ...]:
        """The nearest people to a picture, nearest first."""
        names, similarities = prototype_similarities(self._states, self._labels, state)
        order = similarities[0].argsort()[::-1][:SHOWN]
        return tuple(
            Neighbour(names[i], float(similarities[0, i]), self._thumbnails[names[i]])
            for i in order
        )
