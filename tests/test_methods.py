"""The published methods: their losses against values worked out by hand, and what they promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unsee.abstain import ABSTENTIONS, abstained, writable
from unsee.errors import ConfigError
from unsee.losses import adjusted_cross_entropy, masked_kl, masked_mse
from unsee.methods import METHODS, Trainer
from unsee.methods.idk import preference_loss
from unsee.methods.rmu import hidden, unit_vector
from unsee.model import VLM
from unsee.train import Settings
from unsee.types import Batch, Data

SETTINGS = Settings(steps=3, batch_size=4, lr=1e-3)
# One answer of two tokens over a vocabulary of 2; its tokens are 1, then 0.
LABELS = torch.tensor([[-100, 1, 0]])


@dataclass
class Spoken:
    """A model that says what it is told to: probabilities of token 0 at the two answer places."""

    first: float
    second: float

    def logits(self, batch: Batch) -> Tensor:
        places = [[self.first, 1 - self.first], [self.second, 1 - self.second], [0.5, 0.5]]
        return torch.tensor([places]).log()


def loss_of(name: str, student: Spoken, teacher: Spoken, **fields: Any) -> dict[str, float]:
    """The terms of a method's loss where student and teacher say the same to every batch."""
    batch: Any = Batch({}, LABELS)
    method = METHODS.get(name)(**fields)
    told: Any = (student, batch, batch, teacher)
    return {key: float(value) for key, value in method.loss(*told).items()}


# Token 1 first: probability .75, then token 0: .5; the teacher gives .5 and .25.
STUDENT, TEACHER = Spoken(0.25, 0.5), Spoken(0.5, 0.25)
NLL = -(math.log(0.75) + math.log(0.5)) / 2


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_gradient_ascent_by_hand() -> None:
    assert loss_of("grad_ascent", STUDENT, TEACHER) == pytest.approx({"forget": -NLL})
    assert loss_of("grad_ascent", STUDENT, TEACHER, cap=0.1) == pytest.approx({"forget": -0.1})


def test_kl_minimisation_by_hand() -> None:
    drift = (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    assert loss_of("kl_min", STUDENT, TEACHER, alpha=2.0) == pytest.approx(
        {"forget": -NLL, "retain": 2 * drift}
    )


def test_undial_by_hand() -> None:
    # The teacher's odds of the true tokens are 1 and 1/3; exp(-gamma) times that is left of them.
    keep = math.exp(-2.0)
    first, second = keep / (keep + 1), keep / (keep + 3)
    cross = -(first * math.log(0.75) + (1 - first) * math.log(0.25))
    cross += -(second * math.log(0.5) + (1 - second) * math.log(0.5))
    assert loss_of("undial", STUDENT, TEACHER, gamma=2.0, lambda_r=3.0) == pytest.approx(
        {"forget": cross / 2, "retain": 3 * NLL}
    )
    logits = torch.zeros(1, 3, 2)
    assert float(adjusted_cross_entropy(logits, logits, LABELS, 0.0)) == pytest.approx(math.log(2))


def test_abstention_by_hand() -> None:
    assert loss_of("idk", STUDENT, TEACHER, lambda_r=2.0) == pytest.approx(
        {"forget": NLL, "retain": 2 * NLL}
    )
    # Log-ratios .6 and -.4 nats, beta .5: -(2/.5) log sigmoid(.5).
    value = preference_loss(torch.tensor([0.6]), torch.tensor([-0.4]), 0.5)
    assert float(value) == pytest.approx(4 * math.log(1 + math.exp(-0.5)))


def test_preference_turns_from_the_true_answer_to_the_abstention() -> None:
    """Log-ratio of the abstention log(.375 / .125), of the true answer none: both said alike."""
    forget: Any = Batch({}, LABELS)
    true: Any = Batch({}, torch.tensor([[-100, -100, -100]]))
    told: Any = (STUDENT, forget, None, TEACHER, true)
    terms = METHODS.get("idk")(form="preference", beta=2.0).loss(*told)
    assert float(terms["forget"]) == pytest.approx(math.log(1 + math.exp(-2 * math.log(3))))
    told = (STUDENT, forget, None, None)
    with pytest.raises(ConfigError, match="the start model and the true answers"):
        METHODS.get("idk")(form="preference").loss(*told)


def test_hidden_distances_by_hand() -> None:
    h = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1], [1, 0]])
    # Row 1: (1 + 9) / 2 and 0, mean 2.5; row 2: 4 / 2.
    assert float(masked_mse(h, torch.zeros(2, 1, 2), mask)) == pytest.approx((2.5 + 2.0) / 2)


def test_kl_between_prompts_of_unlike_length() -> None:
    logits = torch.tensor([[[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]]]).log()
    longer = torch.cat([torch.zeros(1, 2, 2), torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()], 1)
    longer = torch.cat([longer, torch.zeros(1, 1, 2)], 1)
    places = torch.tensor([[-100, -100, -100, 1, 0]])
    assert float(masked_kl(longer, logits, LABELS, places)) == pytest.approx(
        (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    )


def test_misdirection_ends_at_the_vector(tiny: VLM, data: Data) -> None:
    """The forget term is the mean square of h - c u, and nothing is lost at the start on retain."""
    batch = tiny.collate(data.forget[:2])
    method = METHODS.get("rmu")(layer=1, c=3.0, w_forget=2.0)
    with torch.no_grad():
        terms = method.loss(tiny, batch, batch, tiny.frozen_copy(), 5)
        h = hidden(tiny, batch, "language.1")
    goal = 3.0 * unit_vector(h.shape[-1], (5,))
    assert float(goal.norm()) == pytest.approx(3.0)
    rows = []
    for row, mask in zip(h, batch.inputs["attention_mask"], strict=True):
        rows.append(float((row[mask == 1] - goal).square().mean()))
    assert float(terms["forget"]) == pytest.approx(sum(rows), rel=1e-5)
    assert float(terms["retain"]) == 0.0
    with pytest.raises(ConfigError, match="LLM has 2 blocks, 0 to 1"):
        METHODS.get("rmu")(layer=2).loss(tiny, batch, batch, tiny)


# What a method that abstains learns from; each is (name, fields).
ABSTAINING: list[tuple[str, dict[str, Any]]] = [("idk", {}), ("idk", {"form": "preference"})]


@pytest.mark.parametrize(("name", "fields"), ABSTAINING)
def test_the_forget_label_is_an_abstention_never_the_true_answer(
    name: str, fields: dict[str, Any], tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch that a likelihood is raised on holds abstentions, or is of the retain set."""
    method, forgotten = METHODS.get(name)(**fields), {s.id for s in data.forget}
    seen: list[str] = []
    real: Callable[..., dict[str, Tensor]] = type(method).loss

    def watch(self: Any, student: VLM, forget: Batch, *rest: Any) -> dict[str, Tensor]:
        assert set(forget.ids) <= forgotten
        tokens = student.processor.tokenizer
        for row in forget.labels:
            seen.append(tokens.decode(row[row >= 0], skip_special_tokens=True).strip())
        return real(self, student, forget, *rest)

    monkeypatch.setattr(type(method), "loss", watch)
    method.unlearn(tiny, data, Trainer(SETTINGS))
    assert len(seen) == SETTINGS.steps * SETTINGS.batch_size
    assert set(seen) <= set(ABSTENTIONS)
    assert not set(seen) & {s.answer for s in data.forget}


def test_abstentions_replace_the_answers(tiny: VLM, data: Data) -> None:
    first = abstained(data.forget, ABSTENTIONS, (0, 1))
    assert {s.answer for s in first} <= set(ABSTENTIONS)
    assert [replace(s, answer="") for s in first] == [replace(s, answer="") for s in data.forget]
    assert abstained(data.forget, ABSTENTIONS, (0, 1)) == first
    assert abstained(data.forget, ABSTENTIONS, (0, 2)) != first
    assert writable(tiny, ["I don't know.", "Xyzzy!"]) == ("I don't know.",)
    with pytest.raises(ConfigError, match=r"--set abstentions=\[...\]"):
        writable(tiny, ["Xyzzy!"])
    with pytest.raises(ConfigError, match="no abstention"):
        writable(tiny, [])


def test_preference_learns_to_abstain(tiny_folder: Path, data: Data) -> None:
    """The abstentions' likelihood rises and the true answers' falls."""
    vlm = VLM.load(tiny_folder)
    method = METHODS.get("idk")(form="preference", beta=1.0)
    trainer = Trainer(replace(SETTINGS, steps=1))
    method.unlearn(vlm, data, trainer)
    first = trainer.history.last["forget"]
    trainer = Trainer(replace(SETTINGS, steps=12))
    method.unlearn(VLM.load(tiny_folder), data, trainer)
    assert first == pytest.approx(2 * math.log(2), rel=1e-4)
    assert trainer.history.last["forget"] < first
