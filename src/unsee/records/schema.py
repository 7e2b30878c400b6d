"""The record of a run: one pydantic model for each part of `summary.json` and of the JSONL files.

Writers build these models as soon as a stage has a result, and readers use their fields; plain
dictionaries exist only in the files. `unsee.records.reader.read_run` reads a run folder:

    run = read_run("runs/demo")
    run.summary.measures["forget_holdout/vqa/accuracy"].value
    run.summary.attacks.relearn[0].curve("unlearned")
    run.summary.cost.seconds

Rules of schema 1, so that records stay readable:
- A key is never renamed or given another meaning; keys are only added.
- `to_dict` writes exactly the fields that were set, null included, under their documented keys.
- Missing keys read as None or empty. Keys that this version does not know are ignored; the parts
  derived from `OpenRecordPart` keep them in `extras`.
- Text or lists where a number belongs are refused. NaN and infinity read as None, "unscored".
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field, JsonValue

from unsee.records.attacks import (
    AnswerComparison,
    AttackAnswers,
    AttackedModel,
    AttackOutcome,
    Attacks,
    CurvePoint,
    Reading,
    RelearningOutcome,
)
from unsee.records.benchmark import BenchmarkRecord
from unsee.records.harness import Harness, HarnessTask
from unsee.records.judgements import EquivalenceTest, LearnedCheck
from unsee.records.part import (
    Bool,
    Int,
    Number,
    OpenRecordPart,
    RecordPart,
    Text,
    empty_for_none,
)
from unsee.records.photographs import PhotographCounts
from unsee.records.recognition import ForgottenPerson, Recognition
from unsee.types import Better, Estimate

__all__ = [
    "REFERENCES",
    "SCHEMA",
    "AnswerComparison",
    "AnswerFaults",
    "Artifacts",
    "AttackAnswers",
    "AttackOutcome",
    "AttackedModel",
    "Attacks",
    "BenchmarkRecord",
    "Choice",
    "Cost",
    "CurvePoint",
    "EquivalenceTest",
    "FinetuneRecord",
    "FinetunedModel",
    "ForgottenPerson",
    "GalleryEntry",
    "Guarantees",
    "Harness",
    "HarnessTask",
    "LearnedCheck",
    "Measure",
    "Measures",
    "MethodRecord",
    "OpenRecordPart",
    "Provenance",
    "QuantizationRecord",
    "Reading",
    "Recognition",
    "RecordPart",
    "RelearningOutcome",
    "Representation",
    "SampleResult",
    "SampleScore",
    "Selection",
    "Summary",
    "TrainingStep",
    "json_schema",
]

SCHEMA: Literal[1] = 1

# The references, in the order in which they are asked, attacked and shown: visual-retain first.
REFERENCES = ("reference", "retain_only", "visual_refit")


class Measure(RecordPart):
    """A mean score with its 95 % interval; see `unsee.types.Estimate`."""

    value: Number = Field(
        default=None, description="Mean over the scored questions, 0..1; null if none was scored."
    )
    low: Number = Field(
        default=None,
        description="Lower end of the 95 % interval: bootstrapped over people, exact at 0 and 1; "
        "null if none, as for fewer than five people.",
    )
    high: Number = Field(default=None, description="Upper end of the 95 % interval.")
    n: Int = Field(default=0, description="Number of scored questions.")
    n_unscored: Int = Field(default=0, description="Number of questions that have no score.")
    better: Better = Field(
        default="higher",
        description="Which direction is good: lower, higher, or closest to the reference model.",
    )

    @classmethod
    def of(cls, estimate: Estimate) -> Measure:
        """The record of an estimate."""
        return cls(**asdict(estimate))


# By "split/modality/metric", such as "forget_holdout/vqa/accuracy".
Measures = dict[Text, Measure]


class AnswerFaults(RecordPart):
    """How many answers to a split's questions were broken; they are not scored as wrong."""

    answers: Int = Field(default=0, description="Number of questions.")
    non_finite: Int = Field(
        default=0, description="Number of answers whose logits were NaN or infinite."
    )
    empty: Int = Field(default=0, description="Number of answers without text.")
    cut: Int = Field(
        default=0, description="Number of answers that were cut by the limit of their length."
    )


class GalleryEntry(RecordPart):
    """One question about one picture, with the answer of each model."""

    concept: Text | None = Field(
        default=None, description="The person; null for general questions."
    )
    split: Text = Field(description="The split that the question belongs to.")
    picture: Text | None = Field(default=None, description="Path of the picture.")
    picture_sha256: Text | None = Field(
        default=None,
        description="SHA-256 of the picture's pixels. A report embeds a picture from outside the "
        "run folder only if it has this hash.",
    )
    question: Text = Field(description="The question.")
    truth: Text = Field(default="", description="The true answer.")
    before: Text | None = Field(default=None, description="The target model's answer.")
    after: Text | None = Field(default=None, description="The unlearned model's answer.")
    reference: Text | None = Field(
        default=None, description="The visual-retain reference's answer."
    )


class MethodRecord(RecordPart):
    """The method that unlearned, with its hyperparameters."""

    name: Text = Field(description="Registered name, as in `unsee list methods`.")
    parameters: dict[str, JsonValue] = Field(
        default={}, description="All hyperparameters of method and training, defaults included."
    )
    changed: tuple[Text, ...] | None = Field(
        default=None,
        description="Hyperparameters that differ from the defaults; null in older records.",
    )
    source: Text | None = Field(default=None, description="Paper and equation.")


class Guarantees(RecordPart):
    """Checks of the model that a run saves; null is "not checked"."""

    text_identical: Bool | None = Field(
        default=None,
        description="Whether text-only logits equal the target model's bit for bit on all probes.",
    )
    text_probes: Int | None = Field(
        default=None, description="Number of text-only probes that were compared."
    )
    text_next_token_same: Number = Field(
        default=None,
        description="Share of the text-only probes' positions at which the most probable next "
        "token is the target model's, 0..1.",
    )
    language_part_sha256_unchanged: Bool | None = Field(
        default=None, description="Whether the language part has the same SHA-256 as before."
    )
    language_part_sha256: Text | None = Field(
        default=None, description="SHA-256 over the language part's tensors after the run."
    )
    changed_tensors: Int | None = Field(
        default=None, description="Number of parameters that differ from the target model's."
    )
    total_tensors: Int | None = Field(
        default=None, description="Number of parameters of the model."
    )
    changed_outside_visual: Int | None = Field(
        default=None,
        description="Number of changed parameters outside vision encoder and projector.",
    )
    patch_bytes: Int | None = Field(
        default=None, description="Size of the visual patch (bytes); null if none was written."
    )
    reason: Text | None = Field(
        default=None, description="Why something was not checked; null if all was."
    )


class Cost(OpenRecordPart):
    """The cost of unlearning, without evaluation and attacks."""

    seconds: Number = Field(default=None, description="Wall-clock time of unlearning (s).")
    steps: Int | None = Field(default=None, description="Number of training steps.")
    trainable_parameters: Int | None = Field(
        default=None, description="Number of parameters that were trained."
    )
    total_parameters: Int | None = Field(
        default=None, description="Number of parameters of the model."
    )
    peak_memory_bytes: Int | None = Field(
        default=None,
        description="Peak memory (bytes): on the GPU if one was used, else resident.",
    )
    samples_per_second: Number = Field(default=None, description="Training throughput (samples/s).")


class Selection(OpenRecordPart):
    """How many weights or neurons a method selected."""

    chosen: Int = Field(description="Number of selected weights or neurons.")
    of: Int = Field(description="Number of candidates.")
    by_part: dict[Text, Int] = Field(
        default={}, description="Selected neurons in encoder and language."
    )
    by_layer: dict[Text, Int] = Field(
        default={}, description="Selected neurons by name of the module that reads them."
    )


InnerChoice = Annotated[Selection | JsonValue, Field(union_mode="left_to_right")]
# A selection, selections by part of the model, or any other JSON value.
Choice = Annotated[
    Selection | dict[str, InnerChoice] | JsonValue, Field(union_mode="left_to_right")
]


class Representation(RecordPart):
    """How far the features that the LLM reads moved."""

    forget_shift: Number = Field(
        default=None,
        description="Mean squared change on forget pictures, in units of the layer's variance.",
    )
    retain_shift: Number = Field(
        default=None,
        description="Mean squared change on retain pictures, in units of the layer's variance.",
    )


class QuantizationRecord(RecordPart):
    """How the model's weights were quantized."""

    load_in: Text | None = Field(
        default=None, description="8bit or 4bit; null for a checkpoint that is stored quantized."
    )
    library: Text | None = Field(default=None, description="Quantization library.")
    version: Text | None = Field(default=None, description="Version of the library.")


class Provenance(OpenRecordPart):
    """Versions, machine, seed and hashes."""

    unsee: Text | None = Field(default=None, description="Version of unsee.")
    python: Text | None = Field(default=None, description="Version of Python.")
    torch: Text | None = Field(default=None, description="Version of PyTorch.")
    transformers: Text | None = Field(default=None, description="Version of transformers.")
    platform: Text | None = Field(default=None, description="Operating system.")
    cpu: Text | None = Field(default=None, description="Processor.")
    threads: Int | None = Field(default=None, description="Number of CPU threads of PyTorch.")
    device: Text | None = Field(default=None, description="Device, such as cpu or cuda:0.")
    commit: Text | None = Field(
        default=None, description="Commit of unsee, if it runs from a git checkout."
    )
    dirty: Bool | None = Field(
        default=None, description="Whether that checkout had uncommitted changes."
    )
    seed: Int | None = Field(default=None, description="Seed of the run.")
    inputs: dict[Text, Text] | None = Field(
        default=None,
        description="SHA-256 of each input: sets of samples by content, and files of checkpoints.",
    )
    hub: dict[Text, Text] | None = Field(
        default=None,
        description="Commit of each checkpoint and patch that was read from the Hugging Face hub, "
        "by OWNER/NAME or OWNER/NAME@REVISION as given; absent without one.",
    )
    data_sha256: Text | None = Field(
        default=None,
        description="SHA-256 over questions, answers and decoded pictures; null without data.",
    )
    redacted_with: Text | None = Field(
        default=None,
        description="Identifies the key of the keyed hashes of a redacted run; absent if it is not "
        "redacted.",
    )
    patch_sha256: Text | None = Field(
        default=None,
        description="SHA-256 of the tensors of the patch that was put on the model, of several "
        "over these hashes; absent without one.",
    )
    start_weights_sha256: Text | None = Field(
        default=None, description="SHA-256 over all tensors before the run."
    )
    processes: Int | None = Field(
        default=None, description="Number of processes that trained together."
    )
    quantization: QuantizationRecord | None = Field(
        default=None, description="How weights were quantized; null if they were not."
    )
    result_weights_sha256: Text | None = Field(
        default=None, description="SHA-256 over all tensors after the run."
    )


class Artifacts(OpenRecordPart):
    """Paths of what was saved, relative to the run folder; null where nothing was written."""

    patch: Text | None = Field(default=None, description="The visual patch, for `unsee apply`.")
    model: Text | None = Field(default=None, description="The unlearned checkpoint.")
    adapter: Text | None = Field(default=None, description="The LoRA adapter, for peft.")
    report: Text | None = Field(default=None, description="The HTML report.")


class Summary(RecordPart):
    """The content of `summary.json`: the record of one run."""

    schema_: Literal[1] = Field(
        default=SCHEMA, alias="schema", description="Version of this schema."
    )
    name: Text = Field(default="run", description="Last part of the run folder's path.")
    kind: Text = Field(
        default="run", description="Command of the run: demo, run, unlearn, evaluate or audit."
    )
    redacted: Bool | None = Field(
        default=None,
        description="Whether names, questions, answers, pictures and paths were left out, and "
        "keyed hashes stand for people; absent if not.",
    )
    created: Text | None = Field(
        default=None, description="When the run was finished (ISO 8601, UTC)."
    )
    command: Text | None = Field(default=None, description="Command that repeats the run.")
    verdict: Text | None = Field(default=None, description="The verdict in one sentence.")
    method: MethodRecord | None = Field(
        default=None, description="The unlearning method; null if nothing was unlearned."
    )
    benchmark: BenchmarkRecord | None = Field(
        default=None, description="The benchmark; null if the data is the user's own."
    )
    forgetting: Annotated[tuple[Text, ...], BeforeValidator(empty_for_none)] = Field(
        default=(), description="Splits that ask about what is to be forgotten."
    )
    measures: Measures | None = Field(
        default=None,
        description="Scores of the unlearned (or evaluated) model by split/modality/metric.",
    )
    target: Measures | None = Field(
        default=None, description="Scores of the model before unlearning, under the same keys."
    )
    reference: Measures | None = Field(
        default=None,
        description="Scores of the visual-retain reference, trained on all text and on no picture "
        "of the forgotten people, under the same keys.",
    )
    retain_only: Measures | None = Field(
        default=None,
        description="Scores of the retain-only reference, never trained on anything about the "
        "forgotten people, under the same keys.",
    )
    visual_refit: Measures | None = Field(
        default=None,
        description="Scores of the visual-refit reference, visual weights from before the people "
        "were learned, trained again beside the same language part; under the same keys.",
    )
    faults: dict[Text, dict[Text, AnswerFaults]] = Field(
        default={},
        description="Broken answers, by model (unlearned, target and references) and "
        "split/modality; absent if there were none.",
    )
    learned: LearnedCheck | None = Field(
        default=None,
        description="Whether the target model knew enough for scores of forgetting to mean "
        "something; null if it was not asked.",
    )
    recognition: Recognition | None = Field(
        default=None,
        description="How recognition was measured, and the people to be forgotten, where only "
        "photographs were given; null otherwise.",
    )
    equivalence: tuple[EquivalenceTest, ...] | None = Field(
        default=None,
        description="Tests of every measure against the visual-retain reference's, before attack "
        "and at the worst point of every attack; null without that reference.",
    )
    not_attacked: tuple[Text, ...] | None = Field(
        default=None, description="Registered attacks that were not run; null if none was."
    )
    attacks_left_out: dict[Text, Text] | None = Field(
        default=None,
        validation_alias=AliasChoices(
            # Where earlier versions wrote it.
            "attacks_left_out",
            AliasPath("recognition", "attacks_left_out"),
        ),
        description="Attacks that were asked for and lack data, with what is missing; null if none "
        "was asked for.",
    )
    guarantees: Guarantees | None = Field(
        default=None, description="What was checked about the unlearned model."
    )
    attacks: Attacks | None = Field(
        default=None, description="Attack outcomes; null if no attack was run."
    )
    cost: Cost | None = Field(
        default=None, description="Cost of unlearning; null if nothing was unlearned."
    )
    choices: dict[Text, Choice] | None = Field(
        default=None,
        description="What the method selected: weights (mask), neurons, or a population.",
    )
    photographs: PhotographCounts | None = Field(default=None, description="Photographs used.")
    representation: Representation | None = Field(
        default=None, description="How far the features that the LLM reads moved."
    )
    gallery: tuple[GalleryEntry, ...] | None = Field(
        default=None, description="A few questions for the report, with every model's answer."
    )
    harness: Harness | None = Field(
        default=None, description="Tasks of lm-evaluation-harness; null if none was run."
    )
    provenance: Provenance | None = Field(
        default=None, description="Versions, machine, seed and hashes."
    )
    artifacts: Artifacts | None = Field(
        default=None, description="Paths of what was saved, relative to the run folder."
    )

    @property
    def relearn(self) -> tuple[RelearningOutcome, ...]:
        """The relearning attacks; empty if none was run."""
        return self.attacks.relearn if self.attacks is not None else ()

    def measures_of(self, model: str) -> Measures:
        """The measures of "unlearned", "target" or one of `REFERENCES`; empty if none."""
        by_model = {
            "unlearned": self.measures,
            "target": self.target,
            "reference": self.reference,
            "retain_only": self.retain_only,
            "visual_refit": self.visual_refit,
        }
        return by_model[model] or {}


class TrainingStep(RecordPart):
    """A line of `train.jsonl`: the loss and its named terms at one step."""

    step: Int = Field(description="Number of the step.")
    loss: Number = Field(default=None, description="Sum of the terms (nats, or mixed units).")
    terms: dict[Text, Number] = Field(
        default={}, description="Loss terms by name, weighted as they enter the sum."
    )
    lr: Number = Field(default=None, description="Learning rate of the step.")
    seconds: Number = Field(default=None, description="Time since the run began (s).")


class SampleResult(RecordPart):
    """A model's answer to one sample, with its scores."""

    split: Text = Field(description="The split.")
    modality: Text = Field(default="vqa", description="vqa with a picture, text without.")
    task: Text | None = Field(
        default=None,
        description="generation, cloze or classification; of lm-eval tasks their output_type.",
    )
    id: Text = Field(description="The sample, unique within its split.")
    concept: Text | None = Field(default=None, description="The person.")
    group: Text | None = Field(
        default=None, description="Samples of one group ask for the same fact."
    )
    picture: Text | None = Field(
        default=None, description="Path of the picture; null for a question by name."
    )
    question: Text = Field(default="", description="The question.")
    truth: Text = Field(default="", description="The true answer.")
    output: Text | None = Field(default=None, description="The model's answer.")
    fault: Literal["non_finite", "empty", "cut"] | None = Field(
        default=None,
        description="What is wrong with the answer: logits that are not finite, no text, or cut by "
        "the limit of its length; absent if nothing is.",
    )
    scores: dict[Text, Number] = Field(
        default={}, description="Scores by metric; null is unscored."
    )
    choices: tuple[Text, ...] | None = Field(
        default=None,
        description="Answers whose likelihoods were compared: truth and output are indices into "
        "them, from 0; only of lm-eval tasks.",
    )


class SampleScore(SampleResult):
    """A line of `scores.jsonl`: a sample's result and the model that it is of."""

    model: Text = Field(description="unlearned, target, or one of the references.")


class FinetunedModel(OpenRecordPart):
    """A model that `unsee finetune` trained."""

    samples: Int | None = Field(default=None, description="Number of training samples.")
    pictures: Int | None = Field(default=None, description="Number of distinct pictures.")
    concepts: dict[Text, dict[Text, Int]] = Field(
        default={}, description="Number of questions by concept and modality (vqa, text)."
    )
    steps: Int | None = Field(default=None, description="Number of training steps.")
    saved: dict[Text, Text] = Field(
        default={}, description="Saved folders by kind (adapter, model), relative to the folder."
    )
    data_sha256: Text | None = Field(default=None, description="SHA-256 over the training samples.")
    seconds: Number = Field(default=None, description="Wall-clock time of training (s).")
    trainable_parameters: Int | None = Field(
        default=None, description="Number of parameters that were trained."
    )
    last: dict[Text, Number] = Field(default={}, description="Loss and its terms at the last step.")
    peak_memory_bytes: Int | None = Field(
        default=None, description="Peak memory of the process (bytes)."
    )
    provenance: Provenance | None = Field(
        default=None, description="Versions, machine, seed and hashes."
    )


class FinetuneRecord(RecordPart):
    """The content of `finetune.json`: the record of `unsee finetune`."""

    schema_: Literal[1] = Field(
        default=SCHEMA, alias="schema", description="Version of this schema."
    )
    kind: Text = Field(default="finetune", description="Always finetune.")
    redacted: Bool | None = Field(
        default=None, description="Whether names and paths were left out; absent if not."
    )
    created: Text | None = Field(
        default=None, description="When the models were finished (ISO 8601, UTC)."
    )
    command: Text | None = Field(default=None, description="Command that repeats the run.")
    base: Text | None = Field(default=None, description="The base checkpoint.")
    recipe: dict[str, JsonValue] = Field(default={}, description="The finetuning recipe.")
    models: dict[Text, FinetunedModel] = Field(
        default={}, description="By role: target, visual_retain, retain_only, visual_refit."
    )


def json_schema(part: type[RecordPart] = Summary) -> dict[str, Any]:
    """The JSON Schema of a record, with a description of every key.

    Args:
        part: `Summary` (summary.json), `TrainingStep` (a line of train.jsonl), `SampleScore` (a
            line of scores.jsonl) or `FinetuneRecord` (finetune.json).
    """
    schema = part.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
