"""General ability: tasks of lm-evaluation-harness on a loaded model, their results as measures.

lm-eval is optional (`unsee[lm-eval]`) and imported only when tasks are asked for. Its prompts,
few-shot examples, filters and metrics are used as they are; the model is handed over as loaded.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unsee.errors import ConfigError, DataError, UnknownNameError, first_line
from unsee.evaluation.bootstrap import RESAMPLES
from unsee.evaluation.lm_eval_results import asked, measures, rows
from unsee.models.vlm import VLM
from unsee.records.schema import Harness, HarnessTask
from unsee.types import Batch

INSTALL = "Type `pip install 'unsee[lm-eval]'`."


# Tasks that lm-eval does not have.
TASKS = Path(__file__).parent / "lm_eval_tasks"


# lm-eval's own default, of NumPy, PyTorch and the choice of few-shot examples.
SEED = 1234


@dataclass(frozen=True)
class LmEvalSuite:
    """Tasks of lm-evaluation-harness that were found, with their data.

    Attributes:
        loaded: lm-eval's tasks and groups, by the name that was asked for.
        folder: Where tasks of one's own were looked for.
        limit: Most samples of a task; None is all.
        shots: Few-shot examples; None leaves each task's own.
        chat: Whether prompts go through the checkpoint's chat template.
    """

    loaded: Mapping[str, Mapping[str, Any]]
    folder: Path | None = None
    limit: int | None = None
    shots: int | None = None
    chat: bool = False

    def run(
        self, name: str, vlm: VLM, on_request: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """A model's results on what one name stands for: "measures", "rows" and "tasks".

        Raises:
            ConfigError: If the chat template is asked for and the checkpoint has none.
        """
        from lm_eval.evaluator import evaluate

        self.check(vlm)
        found = self.loaded[name]
        _seed()
        for task in found["tasks"].values():
            task.set_fewshot_seed(seed=SEED)
        subject = _subject(vlm)
        if on_request is not None:
            subject.set_cache_hook(_Count(list(found["tasks"].values()), on_request))
        with _quiet():
            results = evaluate(
                lm=subject,
                task_dict=found,
                limit=self.limit,
                bootstrap_iters=RESAMPLES,
                apply_chat_template=self.chat,
            )
        modality = "vqa" if _pictured(found) else "text"
        return {
            "measures": {k: asdict(v) for k, v in measures(results, modality).items()},
            "rows": rows(results, modality),
            "tasks": asked(results),
        }

    def check(self, vlm: VLM) -> None:
        """Refuses a model that cannot be asked so, before hours are spent on the way to it.

        Raises:
            ConfigError: If the chat template is asked for and the checkpoint has none.
        """
        if self.chat and not vlm.family.uses_chat_template:
            raise ConfigError(
                f"--chat-template: checkpoints of the family {vlm.family.name} have none. Leave "
                "it out."
            )

    def settings(self) -> dict[str, Any]:
        """What was asked for, as a recipe holds it."""
        return {
            "names": list(self.loaded),
            "path": str(self.folder) if self.folder is not None else None,
            "limit": self.limit,
            "shots": self.shots,
            "chat_template": self.chat,
        }

    def record(self, tasks: Mapping[str, HarnessTask]) -> Harness:
        """The record of the tasks: versions, settings, and what each task asked."""
        return Harness(
            lm_eval=version("lm_eval"),
            names=tuple(self.loaded),
            path=str(self.folder) if self.folder is not None else None,
            limit=self.limit,
            shots=self.shots,
            chat_template=self.chat,
            seed=SEED,
            tasks=dict(tasks),
        )


def open_suite(
    names: Sequence[str],
    folder: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    chat: bool = False,
) -> LmEvalSuite:
    """Finds tasks, groups or tags by name, and loads their data.

    Args:
        names: As `lm-eval ls tasks` names them, or as the YAML files in `folder` do.
        folder: More tasks, in lm-eval's YAML format; they win over lm-eval's of the same name.
        limit: Most samples of a task.
        shots: Few-shot examples, but for tasks that are fixed to none; None leaves each task's own.
        chat: Put prompts through the checkpoint's chat template.

    Raises:
        ConfigError: If lm-eval is not installed, a name is unknown, or a task cannot be run here.
        DataError: If a task's files or data cannot be loaded.
    """
    _seed()
    manager = _manager(names, folder)
    for name in names:
        if name not in manager.all_tasks:
            listing = f"`lm-eval ls tasks` lists its {len(manager.all_tasks):,}"
            raise UnknownNameError("task", name, manager.all_tasks, listing)
    loaded = {name: _load(manager, name, shots) for name in dict.fromkeys(names)}
    return LmEvalSuite(loaded, folder, limit, shots, chat)


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    if find_spec("lm_eval") is None:
        raise ConfigError(f"--tasks needs lm-evaluation-harness, which is not installed. {INSTALL}")
    from lm_eval.tasks import TaskManager

    if not hasattr(TaskManager, "load"):
        raise ConfigError(f"--tasks needs lm-eval 0.4.13 or newer. {INSTALL}")
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"--tasks-path {folder}: no such folder. Give one with tasks in lm-eval's YAML format."
        )
    own = [str(place) for place in (TASKS, folder) if place is not None]
    with _quiet():
        manager = TaskManager(include_path=own, include_defaults=False)
        # Reading the thousands that lm-eval ships takes many seconds.
        if all(name in manager.all_subtasks for name in names):
            return manager
        return TaskManager(include_path=own)


def _load(manager: Any, name: str, shots: int | None) -> Mapping[str, Any]:
    try:
        with _quiet():
            found: Mapping[str, Any] = manager.load([name])
    except Exception as error:
        # Tasks are other people's code, and raise whatever they like.
        advice = (
            "Its data set is on the Hugging Face hub: run this once where the hub can be reached, "
            "which keeps the data, or write the task for files of your own (docs/tasks.md)."
            if isinstance(error, ConnectionError)
            else "Check its YAML and its data files, and install the packages it asks for."
        )
        raise DataError(
            f"task '{name}': cannot be loaded ({type(error).__name__}: {first_line(error)}). "
            f"{advice}"
        ) from error
    for task in found["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError(
                f"task '{name}': runs the code that a model writes, which is not done here. Leave "
                "it out, or run lm-eval itself in a sandbox."
            )
        if task.get_config("doc_to_audio") is not None:
            raise ConfigError(f"task '{name}': asks about sound. Name tasks on pictures or text.")
        own = task.get_config("num_fewshot")
        if shots is not None and own != 0:
            task.set_config(key="num_fewshot", value=shots)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
    if len({_pictured({"tasks": {"": task}}) for task in found["tasks"].values()}) > 1:
        raise ConfigError(
            f"task '{name}': a group of tasks with and without pictures. Name its tasks one by one."
        )
    return found


def _pictured(found: Mapping[str, Any]) -> bool:
    return any(task.get_config("doc_to_image") is not None for task in found["tasks"].values())


class _Count:
    """What lm-eval tells of every answer; it would keep them, and here they are counted."""

    def __init__(self, tasks: Sequence[Any], tell: Callable[[int, int], None]) -> None:
        self.tasks, self.tell, self.done = tasks, tell, 0

    def add_partial(self, *_: Any) -> None:
        """One more answer."""
        self.done += 1
        self.tell(self.done, sum(len(task.instances) for task in self.tasks))


def _subject(vlm: VLM) -> Any:
    """lm-eval's own Hugging Face multimodal model around one that is loaded already.

    Differs: lm-eval 0.4.13 loads the processor anew, refuses to compare the likelihoods of answers
    to pictures, and lets the processor begin a prompt with a second beginning-of-sequence token
    where the chat template gave it one.
    """
    from lm_eval.models.hf_vlms import HFMultimodalLM

    def given(self: Any, *_: Any, **__: Any) -> None:
        self.processor, self.tokenizer = vlm.processor, vlm.processor.tokenizer

    def encode(self: Any, strings: Sequence[str], *arguments: Any, **options: Any) -> Any:
        tokens = vlm.processor.tokenizer
        if tokens.bos_token and tokens("a")["input_ids"][0] == tokens.bos_token_id:
            strings = [string.removeprefix(tokens.bos_token) for string in strings]
        return HFMultimodalLM.tok_batch_multimodal_encode(self, strings, *arguments, **options)

    def loglikelihood(self: Any, requests: Sequence[Any], **options: Any) -> Any:
        if not requests or len(requests[0].args) < 3:
            return HFMultimodalLM.loglikelihood(self, requests, **options)
        return [_likelihood(self, vlm, *request.args) for request in requests]

    changed: dict[str, Callable[..., Any]] = {
        "_create_tokenizer": given,
        "tok_batch_multimodal_encode": encode,
        "loglikelihood": loglikelihood,
    }
    kind = type("Subject", (HFMultimodalLM,), changed)
    with _quiet():
        return kind(
            pretrained=vlm.model,
            convert_img_format=True,
            image_string=vlm.family.placeholder(vlm.processor),
        )


@torch.no_grad()
def _likelihood(
    subject: Any, vlm: VLM, context: str, continuation: str, shown: Mapping[str, Any]
) -> tuple[float, bool]:
    """Log-likelihood (nats) of an answer after a context with pictures; whether it is greedy."""
    # As lm-eval does with text: a space at the seam belongs to the continuation's first word.
    bare = context.rstrip()
    texts = (context + continuation, bare)
    whole, before = (
        subject.tok_batch_multimodal_encode([text], [shown["visual"]]) for text in texts
    )
    ids = whole["input_ids"]
    new = ids.shape[1] - before["input_ids"].shape[1]
    logits = vlm.logits(Batch(dict(whole), ids))[0, -new - 1 : -1].float().log_softmax(-1)
    chosen = ids[0, -new:]
    answer = (
        float(logits.gather(1, chosen[:, None]).sum()),
        bool((logits.argmax(-1) == chosen).all()),
    )
    subject.cache_hook.add_partial("loglikelihood", (context, continuation), answer)
    return answer


def _seed() -> None:
    random.seed(0)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps advice that lm-eval gives to its own users off the terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
