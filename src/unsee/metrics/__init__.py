"""Metrics, one file each: of a single answer, or of all answers of a split."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unsee.errors import ConfigError, require_extra
from unsee.registry import Registry
from unsee.types import Better, Sample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

METRICS: Registry[type[Metric]] = Registry("metric", "unsee.metrics")

Reads = Literal["text", "logprobs", "alternatives", "rows", "embeddings"]

# What is wrong with a generated answer: see `Output`.
Fault = Literal["non_finite", "empty", "cut"]

# A line of `scores.jsonl`: a sample with its scores by metric.
ScoreRow = Mapping[str, Any]


@dataclass(frozen=True)
class CaptionMatch:
    """How near a picture's embedding lies to that of its caption, and to those of other captions.

    Attributes:
        own: Cosine with the picture's own caption.
        others: Mean cosine with the other captions; NaN without any.
        rank: Place of the own caption among all of them by cosine, 1 for the nearest; of equally
            near ones the mean of their places. NaN without others.
        reworded: Largest cosine with other wordings of the own caption; NaN without any.
    """

    own: float
    others: float
    rank: float
    reworded: float = float("nan")


@dataclass(frozen=True)
class Output:
    """A model's output for one sample.

    Likelihoods are mean negative log-likelihoods, in nats per token.

    Attributes:
        text: The greedy answer.
        fault: What is wrong with the answer, whatever was asked: "non_finite" if the model's
            logits were NaN or infinite, "empty", or "cut" by the limit of its length; None for a
            whole answer.
        nll: Negative log-likelihood of the true answer; NaN if it was not computed.
        paraphrases: Negative log-likelihood of each of the sample's paraphrases; empty if not
            computed, as are the two below.
        perturbed: Negative log-likelihood of each of the sample's false answers.
        choices: Negative log-likelihood of each of the sample's choices.
        tokens: Number of tokens of the true answer, over which `nll` is the mean; 0 if `nll` was
            not computed.
        match: How near the embeddings of picture and caption lie; None if they were not compared.
    """

    text: str = ""
    nll: float = float("nan")
    paraphrases: tuple[float, ...] = ()
    perturbed: tuple[float, ...] = ()
    choices: tuple[float, ...] = ()
    fault: Fault | None = None
    tokens: int = 0
    match: CaptionMatch | None = None


class Metric:
    """Base class of metrics.

    Attributes:
        name: The registered name; the registry sets it.
        source: Where the definition comes from; the registry sets it.
        reads: The output that a score is computed from: "text" is the greedy answer, "logprobs" the
            likelihood of the true answer, "alternatives" the likelihoods of other answers too,
            "rows" the scores of other metrics, and "embeddings" how near an image encoder puts
            picture and caption.
        unit: The unit of the measure.
        better: The direction that is better for a model that should know the answers. A benchmark
            may declare another one, such as for splits about the people to be forgotten.
        requires: The optional dependency that the metric needs, if any: its import name and the
            extra that installs it, such as ("sacrebleu", "bleu").
        rules: The names of the ways to score that the metric knows, our own first; () if there is
            one only. The others are those of published benchmarks.
        rule: The one that is used.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    reads: ClassVar[Reads] = "text"
    unit: ClassVar[str] = "0..1"
    better: ClassVar[Better] = "higher"
    requires: ClassVar[tuple[str, str] | None] = None
    rules: ClassVar[tuple[str, ...]] = ()
    rule: str = ""

    def applies(self, sample: Sample) -> bool:
        """Whether the metric scores samples of this task."""
        return True

    def needs_alternatives(self, sample: Sample) -> bool:
        """Whether the score needs the likelihoods of the sample's alternative answers."""
        return self.reads == "alternatives" and self.applies(sample)

    def reads_answer(self, sample: Sample) -> bool:
        """Whether the score of the sample depends on the generated answer."""
        return self.reads == "text"

    def undecided(self, sample: Sample, text: str) -> bool:
        """Whether an answer that was cut by the limit of its length cannot be scored.

        By default it can: a graded score counts what is there.

        Args:
            sample: The question and its true answer.
            text: The answer, as far as it was generated.
        """
        return False

    def score_or_nan(self, sample: Sample, output: Output) -> float:
        """Scores one sample; NaN where a broken answer would otherwise be scored as a wrong one."""
        if self.reads_answer(sample) and (
            output.fault in ("non_finite", "empty")
            or (output.fault == "cut" and self.undecided(sample, output.text))
        ):
            return float("nan")
        return self.score(sample, output)

    def score(self, sample: Sample, output: Output) -> float:
        """Scores one sample.

        Args:
            sample: The question and its true answer.
            output: The model's output.

        Returns:
            The score; NaN if the sample cannot be scored, such as without a true answer.
        """
        raise NotImplementedError

    def reported(self, score: float, forgetting: bool) -> float:
        """Returns the value that a measure averages: by default, the score.

        Args:
            score: A sample's score.
            forgetting: Whether the split asks about what is to be forgotten.
        """
        return score


@dataclass(frozen=True)
class Unit:
    """One observation of a set metric: a row, a pair of rows, or a group of rows.

    Attributes:
        concept: The person or thing it is about; bootstrap intervals resample concepts.
        values: The numbers that the metric combines; NaN where unscored.
    """

    concept: str
    values: tuple[float, ...]


class SetMetric(Metric):
    """Base class of metrics of a whole split, computed from the scores of its rows.

    Attributes:
        depends_on: The sample metrics whose scores it reads.
        compares_with_reference: Whether it also reads the reference model's scores of the same
            rows.
        joins_modalities: Whether questions with and without a picture are combined. The measure is
            then reported with modality "vqa"; otherwise there is one measure per modality.
    """

    reads: ClassVar[Reads] = "rows"
    depends_on: ClassVar[tuple[str, ...]]
    compares_with_reference: ClassVar[bool] = False
    joins_modalities: ClassVar[bool] = False

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns the observations of a split.

        Args:
            rows: The split's rows.
            reference: The reference model's rows of the same split; empty without a reference.
            forgetting: Whether the split asks about what is to be forgotten.

        Returns:
            The observations; empty if the metric does not apply to the split.
        """
        raise NotImplementedError

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the measure.

        Args:
            values: The values of the scored observations.
            forgetting: Whether the split asks about what is to be forgotten.
        """
        raise NotImplementedError


def needs_reference(name: str) -> bool:
    """Whether the metric of this name compares with the reference model.

    Raises:
        UnknownNameError: If it is not registered.
    """
    kind = METRICS.get(name)
    return issubclass(kind, SetMetric) and kind.compares_with_reference


def select_metrics(
    names: Sequence[str], has_reference: bool, encoder: bool = False
) -> tuple[list[Metric], list[str]]:
    """Finds metrics by name, and those that they depend on.

    Args:
        names: Registered names.
        has_reference: Whether the reference model's scores are known.
        encoder: Whether the model is an image encoder, which is compared and not asked.

    Returns:
        All metrics to compute, and the names of those to report.

    Raises:
        UnknownNameError: If a name is not registered.
        ConfigError: If a metric compares with a reference model and there is none, needs a package
            that is not installed, or reads what the model does not have.
    """
    reported = list(dict.fromkeys(names))
    for name in reported:
        _refuse_other_models(name, encoder)
        if needs_reference(name) and not has_reference:
            raise ConfigError(
                f"metric '{name}' compares with the reference model, and there is none. Give one "
                "with --reference DIR; `unsee finetune` with who=visual_retain (or retain_only) "
                "makes it."
            )
    computed = [*reported, *(d for name in reported for d in _dependencies(name))]
    metrics = [METRICS.get(name)() for name in dict.fromkeys(computed)]
    for metric in metrics:
        if metric.requires is not None:
            require_extra(*metric.requires, f"metric '{metric.name}'")
    return metrics, reported


def _refuse_other_models(name: str, encoder: bool) -> None:
    """Refuses a metric of answers where the model is an image encoder, and the other way round."""
    compares = METRICS.get(name).reads == "embeddings"
    if compares and not encoder:
        raise ConfigError(
            f"metric '{name}' compares the embeddings of pictures and captions, which an image "
            "encoder with a text tower has. Give --model DIR of a CLIP or SigLIP checkpoint, or "
            "leave the metric out."
        )
    if encoder and not compares:
        allowed = [n for n, kind in METRICS.items() if kind.reads == "embeddings"]
        raise ConfigError(
            f"metric '{name}' scores answers, and an image encoder gives none. Allowed: "
            f"{', '.join(allowed)}. Leave --metrics out to have them all."
        )


def reference_metrics(names: Sequence[str]) -> list[str]:
    """Returns the metrics to compute on the reference model itself.

    A metric that compares with the reference is replaced by those that it depends on.

    Args:
        names: The metrics to compute on the unlearned model.
    """
    selected: list[str] = []
    for name in names:
        selected += _dependencies(name) if needs_reference(name) else (name,)
    return list(dict.fromkeys(selected))


def _dependencies(name: str) -> tuple[str, ...]:
    kind = METRICS.get(name)
    return kind.depends_on if issubclass(kind, SetMetric) else ()


def row_score(row: ScoreRow, name: str) -> float:
    """Returns a row's score; NaN if it is unscored or the metric does not apply."""
    value = row["scores"].get(name)
    return float("nan") if value is None else float(value)


def row_concept(row: ScoreRow) -> str:
    """Returns the concept of a row, or its id if it has none."""
    return str(row["concept"] or row["id"])


# Final punctuation that does not count, of any script.
_FINAL = (
    ".!?,;: \N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH EXCLAMATION MARK}"
    "\N{FULLWIDTH QUESTION MARK}\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC COMMA}\N{FULLWIDTH SEMICOLON}"
    "\N{FULLWIDTH COLON}\N{HORIZONTAL ELLIPSIS}\N{DEVANAGARI DANDA}\N{ARABIC QUESTION MARK}"
    "\N{ARABIC COMMA}\N{ARABIC SEMICOLON}\N{ARABIC FULL STOP}"
)


def plain_characters(text: str) -> str:
    """Returns a text in which a character has one spelling.

    Composed and decomposed letters are the same, as are letters of full and of usual width (Unicode
    NFKC), and the digits of every script.

    Example:
        >>> plain_characters("Jose\u0301, \uff11\uff19\u0669\u0660")
        'José, 1990'
    """
    if text.isascii():
        return text
    digits = (str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return unicodedata.normalize("NFKC", "".join(digits))


def normalize_answer(text: str) -> str:
    """Returns a text in lower case, without surrounding or repeated spaces and final punctuation.

    A character has one spelling, see `plain_characters`.

    Example:
        >>> normalize_answer("  Ada  Berg.")
        'ada berg'
    """
    words = " ".join(plain_characters(text).split())
    return plain_characters(words.rstrip(_FINAL).casefold())
