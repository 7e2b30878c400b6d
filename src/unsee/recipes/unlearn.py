"""The recipe of a run: parsed once, from YAML and key=value, with every mistake found at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, Field

from unsee.attacks import Chain
from unsee.benchmarks import BENCHMARKS, DEFAULT_BENCHMARK, Rules
from unsee.errors import ConfigError, quoted
from unsee.evaluation.equivalence import MARGIN
from unsee.evaluation.headroom import MIN_HEADROOM
from unsee.methods import METHODS, Method
from unsee.models.devices import Device
from unsee.recipes import plain_yaml
from unsee.recipes.components import attack_entries, collect_chains, collect_method
from unsee.recipes.parsing import (
    as_tuple,
    collect,
    parse_overrides,
    read_yaml,
    rename_fields,
    unknown_fields,
)
from unsee.training.settings import TrainingSettings
from unsee.training.tracking import tracker_names

# Fewer and shorter than the recipes' budgets, so that a laptop shows all of it in minutes.
DEMO_ATTACKS = tuple(
    {"share": share, "modules": modules, "steps": 20}
    for modules in ("visual", "all")
    for share in (0.2, 1.0)
)


# Options that recipes of earlier versions do not have.
LATER_OPTIONS = frozenset(
    {
        "max_new_tokens",
        "rules",
        "equivalence_margin",
        "attack_margin",
        "min_headroom",
        "visual_refit",
        "patch",
        "box",
        "ask",
        "holdout_share",
        "redact",
        "salt",
        "skew",
    }
)


def ratio_text(value: Any) -> Any:
    """A published ratio is a name, though YAML reads 5 and 2.5 as numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if number else value


def box_text(value: Any) -> Any:
    """A box may be four numbers in YAML, or text as on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


# Share of a person's photographs that is held out where these are given without answers.
HOLDOUT_SHARE = 0.2

# What says which data a benchmark gives; nothing reads it where `forget` names the user's own.
BENCHMARK_OPTIONS = ("benchmark", "data", "forget_ratio", "shots", "skew")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything that a recipe says beside its method, training settings and attacks.

    Attributes:
        benchmark: A registered benchmark; not used where `forget` is given.
        data: Where the benchmark's files are: a folder, or a hub id; None is its own place.
        forget_ratio: The published percentage to forget; None is the benchmark's first.
        shots: Few-shot examples before a question; None is the published number.
        skew: Who of the benchmark's people to forget asks for it: ATTRIBUTE=VALUE:SHARE, such as
            gender=female:0.8; None is all of them.
        model: The checkpoint to unlearn; None is the benchmark's target model.
        patch: Visual patches that are on the model already, in order; what is unlearned is stacked
            on them. They are put on the model in memory.
        forget: Where the samples to forget are; None takes the benchmark's.
        box: The face to forget in a group photograph, where `forget` is one picture: x0,y0,x1,y1 in
            pixels or fractions; None is all of it.
        retain: Where the samples to keep are.
        strangers: A folder of pictures of people the model was never told about.
        reference: Reference model, trained without images of the forgotten people (visual-retain).
        retain_only: Reference model, trained on nothing about the forgotten people.
        visual_refit: Reference model, the visual weights from before the people were learned,
            trained again on the retained answers beside the same language part.
        save: Write a visual patch, the whole model, or the LoRA adapter that was trained; None is
            a patch wherever one can carry the change.
        names: Let the saved folder's card name the forgotten people.
        redact: Keep names, questions, answers, pictures and paths out of every file of the run;
            keyed hashes stand for people and pictures.
        salt: File with the key of those hashes, made if it is missing; None is that of the
            environment variable UNSEE_SALT, else OUT.salt beside the run folder.
        max_new_tokens: Longest answer that is generated, in tokens; None is the benchmark's, else
            there is room for the longest true answer.
        rules: "own" scores the answers as the metrics do by default, and not as the published
            scripts of the benchmark do ("published", the default).
        equivalence_margin: Difference, 0..1, below which a score before any attack counts as equal
            to the visual-retain reference's.
        attack_margin: `equivalence_margin` of scores under attack.
        min_headroom: Score of the target model above the reference's (else above chance) from which
            scores of forgetting mean something, 0..1.
        log_with: Experiment trackers that log the run, such as tensorboard; several with commas.
            It does not change the result, and may differ when a run is resumed.
        ask: Open questions about the photographs where these are given without answers, such as
            "Who is this?" in another language; () is the default ones, and "none" asks nothing.
        holdout_share: Share of each person's photographs, 0..1, that is kept out of training to
            test on where these are given without answers; of fewer than four photographs none is.
        seed: Seed of every random draw.
        trust_remote_code: Allow a checkpoint's own Python code to run.
        device: Where every model is put; "auto" is a GPU where there is one.
    """

    name: ClassVar[str] = "recipe"
    aliases: ClassVar[Mapping[str, str]] = {"ratio": "forget_ratio"}

    benchmark: str = DEFAULT_BENCHMARK
    data: str | None = None
    forget_ratio: Annotated[str, BeforeValidator(ratio_text)] | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    skew: str | None = None
    model: str | None = None
    patch: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    forget: str | None = None
    box: Annotated[str, BeforeValidator(box_text)] | None = None
    retain: str | None = None
    strangers: str | None = None
    reference: str | None = None
    retain_only: str | None = None
    visual_refit: str | None = None
    save: Literal["patch", "model", "adapter"] | None = None
    names: bool = False
    redact: bool = False
    salt: str | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    rules: Rules | None = None
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    attack_margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    min_headroom: Annotated[float, Field(ge=0, le=1)] = MIN_HEADROOM
    log_with: Annotated[str | None, BeforeValidator(tracker_names)] = field(
        default=None, compare=False
    )
    ask: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = HOLDOUT_SHARE
    seed: Annotated[int, Field(ge=0)] = 0
    trust_remote_code: bool = False
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class Recipe(RunOptions):
    """A parsed recipe of a run, made by `make_recipe` or `read_recipe`.

    Two recipes are equal if they mean the same, however they were typed.

    Attributes:
        method: The unlearning method with its hyperparameters.
        training: How to train.
        attacks: Attacks to try on the unlearned model, each a chain.
        set: The fields of `method` and `training` that were given, as plain values. All others
            have the method's defaults.
        attacks_given: The attacks as they were given: text as after `--attack`, or mappings.
    """

    method: Method
    training: TrainingSettings
    attacks: tuple[Chain, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    attacks_given: tuple[str | Mapping[str, Any], ...] = field(
        default=(), compare=False, repr=False
    )

    @property
    def fixed(self) -> frozenset[str]:
        """Names of the fields of `method` and `training` that were given, also by a preset."""
        presets = self.method.presets.items()
        return frozenset(self.set).union(
            *(preset for name, preset in presets if self.set.get(name) is True)
        )

    def values(self) -> dict[str, Any]:
        """The recipe as plain values: `make_recipe(recipe.values())` equals `recipe`."""
        values = self._all_values()
        if self.forget is None:
            return values
        return {key: value for key, value in values.items() if key not in BENCHMARK_OPTIONS}

    def _all_values(self) -> dict[str, Any]:
        """As `values`, with the options of benchmarks also where the data is the user's own."""
        values: dict[str, Any] = {"method": self.method.name, "set": self._set()}
        for option in fields(RunOptions):
            if option.name == "save":
                values["attacks"] = [
                    entry if isinstance(entry, str) else dict(entry) for entry in self.attacks_given
                ]
            value = getattr(self, option.name)
            values[option.name] = list(value) if isinstance(value, tuple) else value
        return values

    def text(self, command: str) -> str:
        """The recipe as YAML whose first line is the command that runs it."""
        return f"# {command}\n" + plain_yaml.dump(self.values())

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of its keys, or of its method's and training's fields.

        Raises:
            ConfigError: If anything is unknown or not allowed.
        """
        return make_recipe(self.values(), values)

    def identity(self) -> str:
        """Text that is the same for the same recipe in every release.

        It is the recipe as YAML, with fields under the names that they had first, so that renaming
        one, as `ratio` to `forget_ratio`, moves no output folder and restarts no study.
        """
        kinds = (RunOptions, type(self.method), TrainingSettings)
        first = {new: old for kind in kinds for old, new in getattr(kind, "aliases", {}).items()}
        values = self._all_values()
        # A later option leaves the identity of recipes without it as it was.
        for option in fields(RunOptions):
            if option.name in LATER_OPTIONS and getattr(self, option.name) == option.default:
                del values[option.name]
        values.pop("log_with", None)
        values["set"] = {first.get(key, key): value for key, value in values["set"].items()}
        values = {first.get(key, key): value for key, value in values.items()}
        text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        return text

    def _set(self) -> dict[str, Any]:
        """`set`, with the fields that `dataclasses.replace` has changed since it was parsed."""
        parsed = collect_method([], type(self.method), {"seed": self.seed, **self.set})
        values = dict(self.set)
        parts: tuple[Method | TrainingSettings, ...] = (self.method, self.training)
        for before, now in zip(parsed, parts, strict=True):
            for item in fields(now):
                value = getattr(now, item.name)
                if before is None or value != getattr(before, item.name):
                    values[item.name] = list(value) if isinstance(value, tuple) else value
        return values


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; key=value after it override its keys, or its method's and training's fields.

    Raises:
        ConfigError: If it cannot be read, or anything in it is not allowed.
    """
    changed = parse_overrides(overrides)
    content = read_yaml(path, "method: vkd", trusted="trust_remote_code" in changed)
    return make_recipe(content, changed)


def make_recipe(
    content: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from plain values; checks everything that needs no weights.

    Args:
        content: Values by key: those of `RunOptions`, "method" (its name), "set" (fields of the
            method and the training settings) and "attacks" (texts as after `--attack`, or mappings
            with the key "attack", relearning if there is none, and fields).
        overrides: Values that count more: by key, or by field of "set".

    Example:
        >>> make_recipe({"method": "npo", "set": {"steps": 10}}).training.steps
        10

    Raises:
        ConfigError: If anything in it is not allowed; all mistakes are named.
    """
    problems: list[str] = []
    values, fields_given, fields_changed = _merge(problems, content or {}, overrides or {})
    label = RunOptions.name
    options_known = {f.name for f in fields(RunOptions)}
    known = options_known | {"method", "set", "attacks"}
    problems += unknown_fields(label, values, known)
    options = collect(problems, RunOptions, {k: v for k, v in values.items() if k in options_known})
    seed = options.seed if options is not None else 0
    method: Method | None = None
    training: TrainingSettings | None = None
    given: dict[str, Any] = {}
    try:
        if options is not None:
            BENCHMARKS.get(options.benchmark)
            _refuse_two_sources(options)
    except ConfigError as error:
        problems.append(str(error))
    try:
        name = values.get("method", "vkd")
        if not isinstance(name, str):
            raise ConfigError(
                f"recipe: method={quoted(name)} is not allowed: type a name that "
                "`unsee list methods` prints, such as method: vkd."
            )
        kind = METHODS.get(name)
        given = _renamed(kind, fields_given) | _renamed(kind, fields_changed)
        method, training = collect_method(problems, kind, {"seed": seed, **given}, known)
    except ConfigError as error:
        problems.append(str(error))
    entries = attack_entries(problems, values.get("attacks"))
    chains = collect_chains(problems, entries, seed)
    if problems or options is None or method is None or training is None:
        raise ConfigError("\n".join(problems))
    return Recipe(
        **{f.name: getattr(options, f.name) for f in fields(RunOptions)},
        method=method,
        training=training,
        attacks=tuple(chains),
        set=given,
        attacks_given=entries,
    )


def demo_recipe(seed: int) -> Recipe:
    """The recipe of `unsee demo`: VKD's defaults on pocket, then four relearning budgets."""
    return make_recipe({"attacks": DEMO_ATTACKS, "seed": seed})


def default_out(kind: str, recipe: Recipe) -> Path:
    """runs/NAME, the same for the same recipe, so that the same command resumes."""
    digest = hashlib.sha256(f"# \n{recipe.identity()}".encode()).hexdigest()[:8]
    return Path("runs") / f"{kind}-{recipe.method.name}-{digest}"


def _renamed(kind: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a method and the training under their current names."""
    return rename_fields(kind, rename_fields(TrainingSettings, given))


def _merge(
    problems: list[str], content: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A recipe's keys with overrides, its "set", and the overrides that are for "set"."""
    values = rename_fields(RunOptions, content)
    fields_given = values.pop("set", None)
    if fields_given is None:
        fields_given = {}
    if not isinstance(fields_given, Mapping):
        problems.append(
            f"recipe: set={quoted(fields_given)} is not allowed: give fields below it, such as "
            "set: {lr: 1.0e-4}."
        )
        fields_given = {}
    own = {f.name for f in fields(RunOptions)} | {"method", "attacks"}
    changed = rename_fields(RunOptions, overrides)
    values |= {key: value for key, value in changed.items() if key in own}
    fields_changed = {key: value for key, value in changed.items() if key not in own}
    return values, dict(fields_given), fields_changed


def _refuse_two_sources(options: RunOptions) -> None:
    """Refuses a recipe that names both the user's own data and a benchmark's.

    Raises:
        ConfigError: If it does.
    """
    given = [name for name in BENCHMARK_OPTIONS[1:] if getattr(options, name) is not None]
    if options.benchmark != DEFAULT_BENCHMARK:
        given = ["benchmark", *given]
    if options.forget is not None and given:
        raise ConfigError(
            f"recipe: forget= names data of your own, and {given[0]}= says which data of a "
            f"benchmark to take. Leave one of them out."
        )
    if options.forget is None and options.box is not None:
        raise ConfigError(
            "recipe: box= marks a face in a photograph of your own, and forget= names none. Add "
            "forget=FOLDER, or leave box out."
        )
    if options.forget is not None and options.rules == "published":
        raise ConfigError(
            "recipe: rules=published scores a benchmark's own questions, and forget= names data of "
            "your own, which the metrics' own rules score. Leave rules out."
        )
