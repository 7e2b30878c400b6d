"""General ability: runs tasks of lm-evaluation-harness on a loaded model.

lm-eval is optional (`unsee[lm-eval]`) and imported only when tasks are run. Its prompts, few-shot
examples, filters and metrics are used unchanged, with the model that is already loaded.
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
from unsee.evaluation.lm_eval_results import measures, rows, task_descriptions
from unsee.models.vlm import VLM
from unsee.records.schema import Harness, HarnessTask
from unsee.types import Batch

INSTALL = "Type `pip install 'unsee[lm-eval]'`."


# Tasks that ship with this package, in addition to those of lm-eval.
TASKS = Path(__file__).parent / "lm_eval_tasks"


# lm-eval's default seed of NumPy, PyTorch and the choice of few-shot examples.
SEED = 1234


@dataclass(frozen=True)
class LmEvalSuite:
    """Loaded tasks of lm-evaluation-harness, with their data.

    Attributes:
        loaded: lm-eval's tasks and groups, by the requested name.
        folder: Folder with the user's own tasks.
        limit: Maximum number of samples per task; None means all.
        shots: Number of few-shot examples; None keeps the number that each task declares.
        chat: Whether prompts are formatted with the checkpoint's chat template.
    """

    loaded: Mapping[str, Mapping[str, Any]]
    folder: Path | None = None
    limit: int | None = None
    shots: int | None = None
    chat: bool = False

    def run(
        self, name: str, vlm: VLM, on_request: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Runs the tasks that one name stands for.

        Args:
            name: One of the requested names.
            vlm: The model.
            on_request: Called after every answer with the number of answers done and of all.

        Returns:
            "measures" (estimates as dictionaries, by "task/modality/metric"), "rows" (one per
            sample), and "tasks" (descriptions of the tasks that were run).

        Raises:
            ConfigError: If the chat template is requested and the checkpoint has none.
        """
        from lm_eval.evaluator import evaluate

        self.check(vlm)
        tasks = self.loaded[name]
        _seed()
        for task in tasks["tasks"].values():
            task.set_fewshot_seed(seed=SEED)
        model = _lm_eval_model(vlm)
        if on_request is not None:
            model.set_cache_hook(_AnswerCounter(list(tasks["tasks"].values()), on_request))
        with _quiet():
            results = evaluate(
                lm=model,
                task_dict=tasks,
                limit=self.limit,
                bootstrap_iters=RESAMPLES,
                apply_chat_template=self.chat,
            )
        modality = "vqa" if _has_pictures(tasks) else "text"
        return {
            "measures": {k: asdict(v) for k, v in measures(results, modality).items()},
            "rows": rows(results, modality),
            "tasks": task_descriptions(results),
        }

    def check(self, vlm: VLM) -> None:
        """Checks that the model can run the tasks.

        Raises:
            ConfigError: If the chat template is requested and the checkpoint has none.
        """
        if self.chat and not vlm.family.uses_chat_template:
            raise ConfigError(
                f"--chat-template: checkpoints of the family {vlm.family.name} have none. Leave "
                "it out."
            )

    def settings(self) -> dict[str, Any]:
        """Returns the requested tasks and settings, as a recipe holds them."""
        return {
            "names": list(self.loaded),
            "path": str(self.folder) if self.folder is not None else None,
            "limit": self.limit,
            "shots": self.shots,
            "chat_template": self.chat,
        }

    def record(self, tasks: Mapping[str, HarnessTask]) -> Harness:
        """Returns the record of the tasks: versions, settings, and a description of each task."""
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
        names: Names that `lm-eval ls tasks` lists, or of tasks in `folder`.
        folder: Folder with further tasks in lm-eval's YAML format; they replace tasks of lm-eval
            with the same name.
        limit: Maximum number of samples per task.
        shots: Number of few-shot examples. None keeps the number that each task declares; tasks
            that declare 0 always have none.
        chat: Whether to format prompts with the checkpoint's chat template.

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
    folders = [str(path) for path in (TASKS, folder) if path is not None]
    with _quiet():
        manager = TaskManager(include_path=folders, include_defaults=False)
        # Reading the thousands of tasks that lm-eval ships takes many seconds.
        if all(name in manager.all_subtasks for name in names):
            return manager
        return TaskManager(include_path=folders)


def _load(manager: Any, name: str, shots: int | None) -> Mapping[str, Any]:
    try:
        with _quiet():
            loaded: Mapping[str, Any] = manager.load([name])
    except Exception as error:
        # Tasks are third-party code and may raise any exception.
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
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError(
                f"task '{name}': runs the code that a model writes, which is not done here. Leave "
                "it out, or run lm-eval itself in a sandbox."
            )
        if task.get_config("doc_to_audio") is not None:
            raise ConfigError(f"task '{name}': asks about sound. Name tasks on pictures or text.")
        declared = task.get_config("num_fewshot")
        if shots is not None and declared != 0:
            task.set_config(key="num_fewshot", value=shots)
        elif declared is None:
            task.set_config(key="num_fewshot", value=0)
    if len({_has_pictures({"tasks": {"": task}}) for task in loaded["tasks"].values()}) > 1:
        raise ConfigError(
            f"task '{name}': a group of tasks with and without pictures. Name its tasks one by one."
        )
    return loaded


def _has_pictures(loaded: Mapping[str, Any]) -> bool:
    return any(task.get_config("doc_to_image") is not None for task in loaded["tasks"].values())


class _AnswerCounter:
    """A cache hook of lm-eval that counts the answers instead of caching them."""

    def __init__(self, tasks: Sequence[Any], on_request: Callable[[int, int], None]) -> None:
        self.tasks, self.on_request, self.done = tasks, on_request, 0

    def add_partial(self, *_: Any) -> None:
        """Counts one answer; lm-eval calls it with the request and the answer."""
        self.done += 1
        self.on_request(self.done, sum(len(task.instances) for task in self.tasks))


def _lm_eval_model(vlm: VLM) -> Any:
    """Returns lm-eval's Hugging Face multimodal model, wrapped around a loaded one.

    Differs: lm-eval 0.4.13 loads the processor again, does not support likelihoods of answers to
    pictures, and lets the processor add a second beginning-of-sequence token to prompts that have
    one from the chat template.
    """
    from lm_eval.models.hf_vlms import HFMultimodalLM

    def use_loaded_processor(self: Any, *_: Any, **__: Any) -> None:
        self.processor, self.tokenizer = vlm.processor, vlm.processor.tokenizer

    def encode(self: Any, strings: Sequence[str], *arguments: Any, **options: Any) -> Any:
        tokenizer = vlm.processor.tokenizer
        if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
            strings = [string.removeprefix(tokenizer.bos_token) for string in strings]
        return HFMultimodalLM.tok_batch_multimodal_encode(self, strings, *arguments, **options)

    def loglikelihood(self: Any, requests: Sequence[Any], **options: Any) -> Any:
        if not requests or len(requests[0].args) < 3:
            return HFMultimodalLM.loglikelihood(self, requests, **options)
        return [_likelihood(self, vlm, *request.args) for request in requests]

    overrides: dict[str, Callable[..., Any]] = {
        "_create_tokenizer": use_loaded_processor,
        "tok_batch_multimodal_encode": encode,
        "loglikelihood": loglikelihood,
    }
    cls = type("Subject", (HFMultimodalLM,), overrides)
    with _quiet():
        return cls(
            pretrained=vlm.model,
            convert_img_format=True,
            image_string=vlm.family.placeholder(vlm.processor),
        )


@torch.no_grad()
def _likelihood(
    model: Any, vlm: VLM, context: str, continuation: str, media: Mapping[str, Any]
) -> tuple[float, bool]:
    """Scores an answer after a context with pictures.

    Args:
        model: lm-eval's model.
        vlm: The model itself.
        context: The prompt.
        continuation: The answer.
        media: The pictures, under "visual".

    Returns:
        The answer's log-likelihood, in nats, and whether it is the greedy answer.
    """
    # As lm-eval does for text: a space between them belongs to the continuation's first token.
    full, prompt = (
        model.tok_batch_multimodal_encode([text], [media["visual"]])
        for text in (context + continuation, context.rstrip())
    )
    ids = full["input_ids"]
    length = ids.shape[1] - prompt["input_ids"].shape[1]
    logps = vlm.logits(Batch(dict(full), ids))[0, -length - 1 : -1].float().log_softmax(-1)
    answer_ids = ids[0, -length:]
    answer = (
        float(logps.gather(1, answer_ids[:, None]).sum()),
        bool((logps.argmax(-1) == answer_ids).all()),
    )
    model.cache_hook.add_partial("loglikelihood", (context, continuation), answer)
    return answer


def _seed() -> None:
    random.seed(0)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides lm-eval's warnings, which address users of its own command line."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
