"""A model with given probabilities, for losses computed by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsee.methods import METHODS
from unsee.types import Batch

# One answer of two tokens over a vocabulary of 2; its tokens are 1, then 0.
LABELS = torch.tensor([[-100, 1, 0]])


@dataclass
class FixedModel:
    """A model with given probabilities of token 0 at the two positions of the answer."""

    first: float
    second: float

    def logits(self, batch: Batch) -> Tensor:
        places = [[self.first, 1 - self.first], [self.second, 1 - self.second], [0.5, 0.5]]
        return torch.tensor([places]).log()


def loss_of(name: str, student: FixedModel, teacher: FixedModel, **fields: Any) -> dict[str, float]:
    """The terms of a method's loss where student and teacher say the same to every batch."""
    batch: Any = Batch({}, LABELS)
    method = METHODS.get(name)(**fields)
    told: Any = (student, batch, batch, teacher)
    return {key: float(value) for key, value in method.loss(*told).items()}


# Token 1 first: probability 0.75, then token 0: 0.5; the teacher gives 0.5 and 0.25.
STUDENT, TEACHER = FixedModel(0.25, 0.5), FixedModel(0.5, 0.25)
NLL = -(math.log(0.75) + math.log(0.5)) / 2


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
