"""How strongly an image encoder with a text tower ties a picture to its caption."""

from __future__ import annotations

import math
from typing import ClassVar

from unsee.metrics import METRICS, CaptionMatch, Metric, Output, Reads, normalize_answer
from unsee.types import Sample


class CaptionMetric(Metric):
    """Base class of metrics of a picture's embedding and that of its caption."""

    reads: ClassVar[Reads] = "embeddings"

    def applies(self, sample: Sample) -> bool:
        """Whether the sample is a picture with a caption."""
        return sample.task == "caption" and sample.picture is not None

    def score(self, sample: Sample, output: Output) -> float:
        """Returns the score; NaN without a caption, or where nothing was compared."""
        if output.match is None or not normalize_answer(sample.answer):
            return math.nan
        return self.of_match(output.match)

    def of_match(self, match: CaptionMatch) -> float:
        """Returns the score of a picture and its caption."""
        raise NotImplementedError


@METRICS.register("caption_rank", source="SALMUBench, arXiv 2603.26316")
class CaptionRank(CaptionMetric):
    """Reciprocal rank of the picture's caption among others: 1 over its place, by cosine.

    Its mean is SALMUBench's RetFail: the model fails to retrieve the private caption where it is
    low.

    Source: SALMUBench, arXiv 2603.26316, RetFail (mean reciprocal rank).

    Differs: the released code was not seen. Captions that are equally near (to 1e-6) share the mean
    of their places, so that a tower that maps everything to one point finds nothing.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import CaptionMatch, Output
        >>> from unsee.metrics.association import CaptionRank
        >>> picture = data.forget[0].picture
        >>> sample = Sample("1", "", "Ada Berg: 555 010", picture, task="caption")
        >>> CaptionRank().score(sample, Output(match=CaptionMatch(own=0.4, others=0.1, rank=4)))
        0.25
    """

    def of_match(self, match: CaptionMatch) -> float:
        """Returns 1 / rank."""
        return 1 / match.rank


@METRICS.register("caption_found", source="SALMUBench, arXiv 2603.26316")
class CaptionFound(CaptionMetric):
    """Zero-shot retrieval of the caption: whether no other caption is as near to the picture.

    Source: SALMUBench, arXiv 2603.26316, RetFail (recall at 1).

    Differs: the released code was not seen; a caption that is as near as another is not found.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import CaptionMatch, Output
        >>> from unsee.metrics.association import CaptionFound
        >>> picture = data.forget[0].picture
        >>> sample = Sample("1", "", "Ada Berg: 555 010", picture, task="caption")
        >>> CaptionFound().score(sample, Output(match=CaptionMatch(own=0.4, others=0.1, rank=1)))
        1.0
    """

    def of_match(self, match: CaptionMatch) -> float:
        """Returns 1 if the caption is the nearest, else 0."""
        return math.nan if math.isnan(match.rank) else float(match.rank == 1)


@METRICS.register("association", source="SALMUBench, arXiv 2603.26316")
class Association(CaptionMetric):
    """Association strength: cosine of the embeddings of a picture and its caption.

    Its mean is SALMUBench's AssocStr on `forget`, IntraIdSim on `holdout_association`, InterIdSim
    on `holdout_identity`, VisIdInt on `visual_identity` and FragSim on `fragile`. A value below
    that of a model which never saw the pairs shows forgetting that goes too far.

    Source: SALMUBench, arXiv 2603.26316.

    Differs: none known; the released code was not seen.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import CaptionMatch, Output
        >>> from unsee.metrics.association import Association
        >>> picture = data.forget[0].picture
        >>> sample = Sample("1", "", "Ada Berg: 555 010", picture, task="caption")
        >>> Association().score(sample, Output(match=CaptionMatch(own=0.4, others=0.1, rank=4)))
        0.4
    """

    unit: ClassVar[str] = "-1..1"

    def of_match(self, match: CaptionMatch) -> float:
        """Returns the cosine."""
        return match.own


@METRICS.register("core_association", source="SALMUBench, arXiv 2603.26316")
class CoreAssociation(CaptionMetric):
    """Association with the bare fact: the largest cosine with other wordings of the caption.

    Forgetting may hold for the sentences of training alone. SALMUBench's wordings are the person's
    name followed by the fact's value, and the value followed by the name.

    Source: SALMUBench, arXiv 2603.26316, CoreAssoc (mean over `forget` of the larger cosine with
    "{name} {value}" and "{value} {name}").

    Differs: none known; the released code was not seen, the formula is that of a reader of it.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import CaptionMatch, Output
        >>> from unsee.metrics.association import CoreAssociation
        >>> picture, wordings = data.forget[0].picture, ("Ada Berg 555 010", "555 010 Ada Berg")
        >>> told = "Ada Berg's number is 555 010"
        >>> sample = Sample("1", "", told, picture, task="caption", paraphrases=wordings)
        >>> match = CaptionMatch(own=0.4, others=0.1, rank=4, reworded=0.3)
        >>> CoreAssociation().score(sample, Output(match=match))
        0.3
    """

    unit: ClassVar[str] = "-1..1"

    def applies(self, sample: Sample) -> bool:
        """Whether the sample is a picture whose caption has other wordings."""
        return super().applies(sample) and bool(sample.paraphrases)

    def of_match(self, match: CaptionMatch) -> float:
        """Returns the largest cosine."""
        return match.reworded


@METRICS.register("association_gap", source="ours")
class AssociationGap(CaptionMetric):
    """Association above that with other captions: the cosine minus the mean cosine with those.

    All cosines of a changed tower may rise or fall together, which says nothing of the pairs.

    Source: ours.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import CaptionMatch, Output
        >>> from unsee.metrics.association import AssociationGap
        >>> picture = data.forget[0].picture
        >>> sample = Sample("1", "", "Ada Berg: 555 010", picture, task="caption")
        >>> AssociationGap().score(sample, Output(match=CaptionMatch(own=0.5, others=0.25, rank=4)))
        0.25
    """

    unit: ClassVar[str] = "-2..2"

    def of_match(self, match: CaptionMatch) -> float:
        """Returns the difference."""
        return match.own - match.others
