"""Further arguments of `evaluate` and `audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from unsee.api.inputs import Location
from unsee.benchmarks import Rules
from unsee.models.devices import Device
from unsee.models.quantization import LoadIn


class EvaluateOptions(TypedDict, total=False):
    """Further arguments of `evaluate`.

    Attributes:
        target: The model before unlearning; evaluated on the same data.
        reference: Reference model, trained without images of the forgotten people.
        patch: Visual patch to apply to the model in memory, or several in the order in which they
            were made.
        max_new_tokens: Longest answer to generate (tokens); default: the benchmark's, or room for
            the longest true answer.
        rules: "own" scores answers as the metrics do by default, "published" (the default) as the
            benchmark's scripts do.
        tasks_path: Folder of further tasks in lm-eval's YAML format.
        limit: Largest number of samples for each task.
        shots: Few-shot examples; default: what each task says.
        chat_template: Apply the chat template to the prompts of tasks.
        load_in: Quantize the weights when loading: "8bit" or "4bit".
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        trust_remote_code: Allow the checkpoint's own Python code to run.
        redact: Keep names, questions, answers, pictures and paths out of every file of the run.
        salt: File with the key of the keyed hashes that stand for people; default: OUT.salt.
        command: How to repeat the run, for the record; default: a command line that does the same.
    """

    target: Location | None
    reference: Location | None
    patch: Location | Sequence[Location] | None
    max_new_tokens: int | None
    rules: Rules | None
    tasks_path: Location | None
    limit: int | None
    shots: int | None
    chat_template: bool
    load_in: LoadIn | None
    device: Device
    trust_remote_code: bool
    redact: bool
    salt: Location | None
    command: str | None


class AuditOptions(TypedDict, total=False):
    """Further arguments of `audit`.

    Attributes:
        patch: As for `evaluate`.
        holdout: Held-out forget samples, which score the attack; default: part of `forget`.
        retain: Samples of other people that the attacker also has.
        retain_holdout: Retain samples to score after the attack.
        non_members: Non-member samples: controls for membership inference.
        target: The model before unlearning.
        reference: Reference model, trained without images of the forgotten people; attacked too.
        retain_only: Model trained on nothing about the forgotten people; attacked too.
        visual_refit: Visual weights from before they were learned, trained again; attacked too.
        equivalence_margin: Difference to the reference, 0..1, that counts as equal; default: 0.05.
        attack_margin: `equivalence_margin` of scores under attack.
        fields: Fields of every attack that has them, or of one as "ATTACK.field".
        load_in: As for `evaluate`; black-box attacks alone can be made then.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        trust_remote_code: Allow the checkpoint's own Python code to run.
        redact: Keep names, questions, answers, pictures and paths out of every file of the run.
        salt: File with the key of the keyed hashes that stand for people; default: OUT.salt.
        command: How to repeat the run, for the record; default: a command line that does the same.
    """

    patch: Location | Sequence[Location] | None
    holdout: Location | None
    retain: Location | None
    retain_holdout: Location | None
    non_members: Location | None
    target: Location | None
    reference: Location | None
    retain_only: Location | None
    visual_refit: Location | None
    equivalence_margin: float
    attack_margin: float
    fields: Mapping[str, Any]
    load_in: LoadIn | None
    device: Device
    trust_remote_code: bool
    redact: bool
    salt: Location | None
    command: str | None
