"""Requests of `unsee evaluate` and `unsee audit`: a model, its data and metrics, and attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from unsee.attacks import Chain
from unsee.benchmarks import Rules
from unsee.errors import ConfigError
from unsee.evaluation.equivalence import MARGIN
from unsee.evaluation.headroom import MIN_HEADROOM
from unsee.models.devices import Device
from unsee.models.quantization import LoadIn
from unsee.recipes import plain_yaml
from unsee.recipes.components import attack_entries, chain_text, collect_chains
from unsee.recipes.parsing import as_tuple, collect, read_yaml, rename_fields, unknown_fields


@dataclass(frozen=True)
class TaskSelection:
    """Tasks of lm-evaluation-harness, and how they are run.

    Attributes:
        names: As `lm-eval ls tasks` names them, or as the YAML files in `path` do.
        path: A folder of further tasks in lm-eval's YAML format.
        limit: Largest number of samples for each task; None is all.
        shots: Few-shot examples; None is what each task says.
        chat_template: Apply the checkpoint's chat template to the prompts.
    """

    name: ClassVar[str] = "tasks"

    names: tuple[str, ...]
    path: Path | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    chat_template: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Everything that an evaluation states beside its attacks.

    Attributes:
        model: The checkpoint; BENCHMARK:ROLE is one that ships with a benchmark.
        splits: Where the samples of each split are, by the split's name. If there are attacks,
            "forget" is what the attacker has, and "forget_holdout" scores them.
        references: Further models that are scored too: "target", "reference", "retain_only",
            "visual_refit".
        retain: Where the attacker's samples of everyone else are; None takes the benchmark's.
        non_members: Where samples like "forget" are, of people whom no model was ever taught; None
            takes the benchmark's.
        metrics: Registered names; None is the benchmark's, else the four that every run scores.
        tasks: Tasks of lm-evaluation-harness to run on every model.
        patch: Visual patches to apply to the model in memory, in the order in which they were made.
        max_new_tokens: Longest answer that is generated, in tokens; None is the benchmark's, else
            there is room for the longest true answer.
        rules: "own" scores the answers as the metrics do by default, and not as the published
            scripts of the benchmark do ("published", the default).
        equivalence_margin: Difference, 0..1, below which a score before any attack counts as equal
            to the visual-retain reference's.
        attack_margin: `equivalence_margin` of scores under attack.
        min_headroom: Score of the target model above the reference's (else above chance) from which
            scores of forgetting mean something, 0..1.
        load_in: Quantize every model's weights when they are loaded: "8bit" or "4bit".
        redact: Keep names, questions, answers, pictures and paths out of every file of the run;
            keyed hashes stand for people and pictures.
        salt: File with the key of those hashes, made if it is missing; None is that of the
            environment variable UNSEE_SALT, else OUT.salt beside the run folder.
        trust_remote_code: Allow a checkpoint's own Python code to run.
        device: Where every model is put; "auto" is a GPU where there is one.
    """

    name: ClassVar[str] = "evaluation"
    aliases: ClassVar[Mapping[str, str]] = {"paths": "splits"}

    model: str
    splits: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    retain: str | None = None
    non_members: str | None = None
    metrics: tuple[str, ...] | None = None
    tasks: TaskSelection | None = None
    patch: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    rules: Rules | None = None
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    attack_margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    min_headroom: Annotated[float, Field(ge=0, le=1)] = MIN_HEADROOM
    load_in: LoadIn | None = None
    redact: bool = False
    salt: str | None = field(default=None, compare=False)
    # A run may be finished on another machine.
    trust_remote_code: bool = field(default=False, compare=False)
    device: Device = field(default="auto", compare=False)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(EvaluationOptions):
    """A request to score a model, without changing it, and to attack it.

    Attributes:
        attacks: Attacks, each a chain; () makes it an evaluation, and not an audit.

    Example:
        >>> EvaluationRequest(model="pocket:target", splits={"general": "pocket:general"}).attacks
        ()
    """

    attacks: tuple[Chain, ...] = ()

    def values(self) -> dict[str, Any]:
        """The request as plain values: `make_evaluation(request.values())` equals `request`."""
        values: dict[str, Any] = {}
        for option in fields(EvaluationOptions):
            value = getattr(self, option.name)
            values[option.name] = list(value) if isinstance(value, tuple) else value
        if self.tasks is not None:
            path = str(self.tasks.path) if self.tasks.path is not None else None
            values["tasks"] = asdict(self.tasks) | {"names": list(self.tasks.names), "path": path}
        return values | {"attacks": [chain_text(chain) for chain in self.attacks]}

    def job_fields(self) -> dict[str, Any]:
        """The fields of a job that are those of the request, as they are."""
        names = ("model", "trust_remote_code", "device", "load_in", "redact", "salt")
        limits = ("equivalence_margin", "attack_margin", "min_headroom")
        same = {name: getattr(self, name) for name in (*names, *limits)}
        return same | {"references": dict(self.references)}

    def text(self, command: str) -> str:
        """The request as YAML whose first line is the command that runs it."""
        return f"# {command}\n{plain_yaml.dump(self.values())}"


def read_evaluation(path: Path, trusted: bool = False) -> EvaluationRequest:
    """Reads a request from YAML, such as the `recipe.yaml` of a run folder.

    Args:
        path: The file.
        trusted: Whether the file may allow the checkpoint's own code to run.

    Raises:
        ConfigError: If it cannot be read, or anything in it is not allowed.
    """
    return make_evaluation(read_yaml(path, "model: DIR", trusted))


def make_evaluation(content: Mapping[str, Any]) -> EvaluationRequest:
    """A request from plain values; checks everything that needs no data.

    Args:
        content: Values by key: those of `EvaluationOptions`, and "attacks" as in a recipe.

    Raises:
        ConfigError: If anything in it is not allowed; all mistakes are named.
    """
    problems: list[str] = []
    values = rename_fields(EvaluationOptions, content)
    known = {f.name for f in fields(EvaluationOptions)}
    problems += unknown_fields(EvaluationOptions.name, values, known | {"attacks"})
    given = {k: v for k, v in values.items() if k in known}
    if isinstance(given.get("tasks"), Mapping):
        given["tasks"] = _tasks(problems, given["tasks"])
    options = collect(problems, EvaluationOptions, given)
    entries = attack_entries(problems, values.get("attacks"))
    chains = collect_chains(problems, entries, seed=0)
    if problems or options is None:
        raise ConfigError("\n".join(problems))
    return EvaluationRequest(
        **{name: getattr(options, name) for name in known}, attacks=tuple(chains)
    )


def _tasks(problems: list[str], given: Mapping[str, Any]) -> TaskSelection | None:
    """The tasks of a request; None with a message for each mistake."""
    known = {f.name for f in fields(TaskSelection)}
    problems += unknown_fields(TaskSelection.name, given, known)
    return collect(problems, TaskSelection, {k: v for k, v in given.items() if k in known})
