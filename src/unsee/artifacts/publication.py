"""The model card of what is published on the hub: the saved one, with what the hub reads in it.

Everything is written by the card classes of `huggingface_hub`. Measures are those of the run's
record, where they have a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsee.artifacts.manifest import Step
from unsee.artifacts.model_card import LIBRARIES, Kind
from unsee.artifacts.redaction import hub_id
from unsee.benchmarks import BENCHMARKS
from unsee.records.schema import BenchmarkRecord, Measure

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# What the hub calls the tasks of chat models, and of image encoders; a saved card has one as a tag.
TASKS = ("image-text-to-text", "image-feature-extraction")

# The data set of a run on samples of the user's own, which are not published.
OWN_DATA = "own-samples"


@dataclass(frozen=True)
class Publication:
    """The facts of a published card that the saved one does not have.

    Attributes:
        kind: The kind of what is published.
        repository: OWNER/NAME of the repository.
        base: The hub id of the base; None if it is not known.
        base_commit: The commit of the base that was unlearned, if it was read from the hub.
        license: The license; None leaves it out.
        steps: The patches on the base, in order.
        measures: Measures by "split/modality/metric".
        benchmark: The benchmark that they were measured on; None for samples of the user's own.
    """

    kind: Kind
    repository: str
    base: str | None = None
    base_commit: str | None = None
    license: str | None = None
    steps: Sequence[Step] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    benchmark: BenchmarkRecord | None = None

    def card(self, saved: str) -> str:
        """Returns the card to publish.

        Args:
            saved: The card of the saved folder, with or without front matter.
        """
        from huggingface_hub import ModelCard, ModelCardData

        card = ModelCard(saved, ignore_metadata_errors=True)
        before = card.data
        tags = before.get("tags", ["unsee"])
        task = next((tag for tag in tags if tag in TASKS), TASKS[0])
        results = self.results(task)
        relation = "adapter" if self.kind == "adapter" else "finetune"
        data = ModelCardData(
            library_name=before.get("library_name", LIBRARIES[self.kind]),
            license=self.license,
            pipeline_tag=task,
            tags=tags,
            base_model=self.base,
            base_model_relation=before.get("base_model_relation", relation) if self.base else None,
            model_name=self.repository.partition("/")[2] if results else None,
            eval_results=results or None,
        )
        body = "\n".join([*map(self._with_place, card.text.strip().split("\n")), *self._lineage()])
        return f"---\n{data.to_yaml()}\n---\n\n{body}\n"

    def results(self, task: str) -> list[EvalResult]:
        """Returns the measures that have a value, as the hub's model index holds them.

        Args:
            task: What the hub calls the task.
        """
        from huggingface_hub import EvalResult

        benchmark = self.benchmark
        name = benchmark.name if benchmark is not None else None
        kind = dict(BENCHMARKS.items()).get(name or "")
        place = hub_id(benchmark.location or "") if benchmark is not None else None
        found: list[EvalResult] = []
        for key, measure in self.measures.items():
            if measure.value is None:
                continue
            split, modality, metric = key.split("/", 2)
            found.append(
                EvalResult(
                    task_type=task,
                    dataset_type=place
                    or (kind.hub if kind is not None else "")
                    or name
                    or OWN_DATA,
                    dataset_name=name or OWN_DATA,
                    dataset_config=modality,
                    dataset_split=split,
                    dataset_revision=benchmark.commit if benchmark is not None else None,
                    metric_type=metric,
                    metric_name=f"{metric}, {_direction(measure)}",
                    metric_value=round(measure.value, 4),
                )
            )
        return found

    def _with_place(self, line: str) -> str:
        """A line of the card; the one that says how to use it names the repository."""
        if not line.startswith("Made by unsee "):
            return line
        place = f"hub:{self.repository}" if self.kind == "patch" else f"'{self.repository}'"
        line = line.replace("FOLDER", place)
        return line.replace("--model BASE", f"--model {self.base or 'BASE'}")

    def _lineage(self) -> list[str]:
        """The lines that say what the base is, and which patches are on it."""
        lines = ["", "## Lineage", ""]
        if self.base is not None:
            commit = f", commit `{self.base_commit}`" if self.base_commit else ""
            lines.append(f"- base: `{self.base}`{commit}")
        if self.steps:
            lines.append(f"- identity of the base (SHA-256): `{self.steps[0].base_sha256}`")
        for number, step in enumerate(self.steps, 1):
            words = ", ".join(filter(None, (step.method, step.made, f"{step.tensors} tensors")))
            lines.append(f"- patch {number}: `{step.id}` ({words})")
        if self.steps:
            lines.append(f"- identity of the result: `{self.steps[-1].result_sha256}`")
        return lines if len(lines) > 3 else []


def license_in(card: str) -> str | None:
    """Returns the license that a card names in its front matter; None if it names none.

    Args:
        card: The text of a README.md.
    """
    from huggingface_hub import ModelCard

    found: Any = ModelCard(card, ignore_metadata_errors=True).data.get("license")
    return found if isinstance(found, str) else None


def _direction(measure: Measure) -> str:
    """Which direction of a measure is good, in words."""
    words = {"lower": "lower is better", "higher": "higher is better"}
    return words.get(measure.better, "closest to the reference is better")
