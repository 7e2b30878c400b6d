"""Recipes: YAML and key=value to frozen, validated dataclasses, with every error found at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field

from unsee.attacks import Chain
from unsee.benchmarks import BENCHMARKS
from unsee.errors import ConfigError, UnknownNameError
from unsee.methods import METHODS, Method
from unsee.models.devices import Device
from unsee.recipes.components import build_chains
from unsee.recipes.parsing import _collect, parse_overrides, read_yaml, rename_fields, validate
from unsee.training.settings import TrainingSettings

STRICT = ConfigDict(extra="forbid")


# Fewer and shorter than the recipes' budgets, so that a laptop shows all of it in minutes.
DEMO_ATTACKS = (
    *({"share": share, "modules": "visual", "steps": 20} for share in (0.1, 0.2, 0.5, 1.0)),
    *({"share": share, "modules": "all", "steps": 20} for share in (0.2, 1.0)),
)


def _as_text(value: Any) -> Any:
    """YAML reads 5 as a number; a ratio is a name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Recipe:
    """What a run does.

    Attributes:
        method: A registered method.
        set: Its hyperparameters and the training settings, by name.
        benchmark: A registered benchmark; left aside where `forget` is given.
        data: Where its files are: a folder, or a hub id; None is its own place.
        ratio: The published share to forget (%); None is the benchmark's first.
        shots: Few-shot examples before a question; None is the published number.
        model: The checkpoint to unlearn; None is the benchmark's target model.
        forget: Where the samples to forget are; None takes the benchmark's.
        retain: Where the samples to keep are.
        strangers: A folder of pictures of people the model was never told about.
        reference: A model that perfect unlearning would give (visual-retain).
        retain_only: A model that never learned anything of the forgotten.
        attacks: What to try: `attack`, as typed after `--attack`, and fields; relearn if not named.
        save: Write a visual patch, the whole model, or the LoRA adapter that was trained; None is
            a patch wherever one can carry the change.
        names: Let the saved folder's card name who was forgotten.
        seed: Of everything drawn.
        trust_remote_code: Allow a checkpoint's own Python code to run.
        device: Where every model is put; "auto" is a GPU where there is one.
    """

    method: str = "vkd"
    set: dict[str, Any] = field(default_factory=dict)
    benchmark: str = "pocket"
    data: str | None = None
    ratio: Annotated[str, BeforeValidator(_as_text)] | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    model: str | None = None
    forget: str | None = None
    retain: str | None = None
    strangers: str | None = None
    reference: str | None = None
    retain_only: str | None = None
    attacks: tuple[dict[str, Any], ...] = ()
    save: Literal["patch", "model", "adapter"] | None = None
    names: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    trust_remote_code: bool = False
    device: Device = "auto"

    def build(self) -> tuple[Method, TrainingSettings, list[Chain]]:
        """Method, training settings and attacks; every mistake in them is named at once.

        Raises:
            ConfigError: If anything is unknown or not allowed.
        """
        method_class = METHODS.get(self.method)
        mine = {f.name for f in fields(method_class)}
        training = {f.name for f in fields(TrainingSettings)}
        known = mine | training | set(method_class.presets)
        given = rename_fields(method_class, rename_fields(TrainingSettings, self.set))
        problems = [
            str(
                UnknownNameError(
                    f"field of {self.method}", key, known, aliases=method_class.aliases
                )
            )
            for key in given
            if key not in known
        ]
        problems += [
            f"{self.method}: {key}={value!r} is not allowed: type {key}=true or {key}=false."
            for key, value in given.items()
            if key in method_class.presets and not isinstance(value, bool)
        ]
        values = method_class.expanded({"seed": self.seed, **given})
        settings = _collect(
            problems, TrainingSettings, {k: v for k, v in values.items() if k in training}
        )
        method = _collect(problems, method_class, {k: v for k, v in values.items() if k in mine})
        chains: list[Chain] = []
        for entry in self.attacks:
            values = {k: v for k, v in entry.items() if k != "attack"}
            try:
                chains += build_chains([str(entry.get("attack", "relearn"))], values, self.seed)
            except ConfigError as error:
                problems.append(str(error))
        if problems or settings is None or method is None:
            raise ConfigError("\n".join(problems))
        return method, settings, chains

    def text(self, command: str) -> str:
        """The recipe as YAML whose first line is the command that runs it."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return f"# {command}\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; key=value after it override its keys, or its method's and training's fields.

    Raises:
        ConfigError: If it cannot be read, or anything in it is not allowed.
    """
    return make_recipe(read_yaml(path, "method: vkd"), parse_overrides(overrides))


def make_recipe(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> Recipe:
    """A recipe from its content and overrides; checks everything that needs no weights.

    Raises:
        ConfigError: If anything in it is not allowed.
    """
    own = {f.name for f in fields(Recipe)}
    values = {**content, "set": dict(content.get("set") or {})}
    for key, value in overrides.items():
        if key in own and key != "set":
            values[key] = value
        else:
            values["set"][key] = value
    recipe = validate(Recipe, values)
    BENCHMARKS.get(recipe.benchmark)
    recipe.build()
    return recipe


def demo_recipe(seed: int) -> Recipe:
    """What `unsee demo` runs: VKD's defaults on pocket, then six relearning budgets."""
    return Recipe(attacks=tuple(dict(attack) for attack in DEMO_ATTACKS), seed=seed)


def default_out(kind: str, recipe: Recipe) -> Path:
    """runs/NAME, the same for the same recipe, so that the same command resumes."""
    digest = hashlib.sha256(recipe.text("").encode()).hexdigest()[:8]
    return Path("runs") / f"{kind}-{recipe.method}-{digest}"
