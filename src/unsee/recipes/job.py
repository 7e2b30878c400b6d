"""A job: everything that a run needs, its inputs already read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsee.artifacts.model_card import Kind
from unsee.artifacts.patch import apply_in_memory
from unsee.artifacts.pseudonyms import Salt
from unsee.artifacts.redactor import Redactor
from unsee.attacks import AttackerData, Chain
from unsee.benchmarks import Scoring
from unsee.evaluation.equivalence import MARGIN
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.evaluation.headroom import MIN_HEADROOM
from unsee.evaluation.lm_eval import LmEvalSuite
from unsee.methods import Method
from unsee.models.checkpoint import read_config, resolve
from unsee.models.devices import Device, pick_device, relative_matmul_time
from unsee.models.quantization import LoadIn
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.types import AnswerLimit, Better, Data, Sample

SLOW = 1.5  # Times as long as in 32 bits, from which advice is given

# Why photographs were not asked about, if `ask: none` says so.
SWITCHED_OFF = "questions were switched off (ask: none)."

# Why photographs are not asked about where the model is an image encoder.
NO_ANSWERS = "an image encoder answers no questions"


@dataclass(frozen=True)
class Job:
    """Everything that a run needs, its inputs already read and checked.

    Attributes:
        kind: The command: demo, run, unlearn, evaluate or audit.
        command: What to type to do it again.
        recipe: Its recipe as text.
        model: The checkpoint to unlearn (or to evaluate or attack).
        data: The data that the method may use.
        splits: The samples to score, by split.
        method: None leaves the model as it is.
        settings: How to train.
        attacks: Chains of attacks; each attack is made on what the one before it returns.
        non_members: Samples like those to forget, about people whom no model was ever taught; only
            an attacker has them.
        references: Further models to score: "target", "reference", "retain_only",
            "visual_refit".
        better: Directions by "split/modality/metric".
        forgetting: The splits about what is to be forgotten.
        scoring: How attacks are scored, by held-out split.
        metrics: Registered names.
        tasks: The only tasks that a metric is reported on.
        suite: Tasks of lm-evaluation-harness, run on every model.
        patches: Visual patches that are put on the model in memory before anything else, in order.
        max_new_tokens: Longest answer that is generated, in tokens, or that by task; None leaves
            room for the longest true answer.
        rules: How metrics score, where it is not their default; see `Benchmark.rules`.
        benchmark: Facts about the benchmark for the record.
        save: "patch", "model" or "adapter".
        names: Let the saved folder's card name the forgotten people.
        redact: Keep names, questions, answers, pictures and paths out of every file.
        salt: File with the key of the keyed hashes that stand for them.
        redactor: Redacts what is written, in a job that `redacted` has prepared.
        key: The key, and where it is kept.
        visual_only: Load the visual part alone.
        trust_remote_code: Allow a checkpoint's own Python code to run.
        device: Where every model is put; "auto" is a GPU where there is one.
        equivalence_margin: Difference, 0..1, below which a score before any attack counts as equal
            to the visual-retain reference's.
        attack_margin: `equivalence_margin` of scores under attack.
        min_headroom: Score of the target model above the reference's (else above chance) from which
            scores of forgetting mean something, 0..1.
        log_with: Names of experiment trackers.
        callbacks: Objects that are told every step and the measures; see
            `unsee.training.watching.Callback`.
        open_questions: Open questions that are asked about the photographs where only these were
            given; None if the job has samples with answers.
        encoder: Whether the model is an image encoder, whose embeddings are compared.
        drawn_strangers: Whether the strangers are drawn faces that ship with the package.
        attacks_left_out: Attacks that were asked for and cannot run on photographs alone, with the
            reason.
        load_in: Bits that every model's weights are held in, "8bit" or "4bit", where nothing is
            trained; None leaves them as they are.
    """

    kind: str
    command: str
    recipe: str
    model: str | Path
    data: Data
    splits: Mapping[str, Sequence[Sample]]
    method: Method | None = None
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    attacks: Sequence[Chain] = ()
    non_members: Sequence[Sample] = ()
    references: Mapping[str, str | Path] = field(default_factory=dict)
    better: Mapping[str, Better] = field(default_factory=dict)
    forgetting: Sequence[str] = ()
    scoring: Mapping[str, Scoring] = field(default_factory=dict)
    metrics: Sequence[str] = DEFAULT_METRICS
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    suite: LmEvalSuite | None = None
    patches: tuple[Path, ...] = ()
    max_new_tokens: AnswerLimit | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    benchmark: Mapping[str, Any] | None = None
    save: Kind = "patch"
    names: bool = False
    redact: bool = False
    salt: str | None = None
    redactor: Redactor | None = None
    key: Salt | None = None
    visual_only: bool = False
    trust_remote_code: bool = False
    device: Device = "auto"
    equivalence_margin: float = MARGIN
    attack_margin: float = MARGIN
    min_headroom: float = MIN_HEADROOM
    log_with: Sequence[str] = ()
    callbacks: Sequence[object] = ()
    load_in: LoadIn | None = None
    open_questions: Sequence[str] | None = None
    encoder: bool = False
    drawn_strangers: bool = False
    attacks_left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def attacker(self) -> AttackerData:
        """The samples that an attacker has: those of the method, and the non-members."""
        return AttackerData(self.data.forget, self.data.retain, self.non_members)

    def advice(self) -> list[str]:
        """Suggestions that would make training faster on this machine."""
        trained = self.method is not None and not self.method.training_free
        if not trained or self.settings.precision != "no" or pick_device(self.device) != "cpu":
            return []
        config = read_config(resolve(self.model))
        stored = config.get("dtype", config.get("torch_dtype"))
        if stored not in ("bfloat16", "float16"):
            return []
        times = relative_matmul_time(stored)
        advice = (
            f"the model is stored in {stored}, in which this CPU takes {times:.1f} times as long "
            "as in 32 bits. precision=fp32 computes in those: faster, and the weights take twice "
            "the memory meanwhile."
        )
        return [advice] if times > SLOW else []

    def load(self, source: str | Path) -> VLM:
        """A model of this job, as all of them are loaded.

        A method starts from the model with the job's patches, so that is the target, too.
        """
        vlm = VLM.load(
            source,
            visual_only=self.visual_only,
            trust_remote_code=self.trust_remote_code,
            device=self.device,
            load_in=self.load_in,
        )
        if self.patches and self.method is not None and str(source) == str(self.model):
            apply_in_memory(self.patches, vlm)
        return vlm
