"""A small convolutional face network, as somebody might have it: `support.face_network:load`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SIDE = 32


class Residual(nn.Module):
    """A convolution with batch normalisation, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.normalisation = nn.BatchNorm2d(channels)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels + torch.relu(self.normalisation(self.convolution(pixels)))


class FaceNetwork(nn.Module):
    """Maps pictures to embeddings of length 1 [pictures, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.body = nn.Sequential(Residual(16), Residual(16))
        self.head = nn.Linear(16, 8)

    def forward(self, pixels: Tensor) -> Tensor:
        pooled = self.body(self.stem(pixels)).mean((2, 3))
        embedded: Tensor = nn.functional.normalize(self.head(pooled), dim=1)
        return embedded


def preprocess(image: Image.Image) -> Tensor:
    """A picture as the network's input, -1 to 1."""
    values = torch.from_numpy(np.array(image.resize((SIDE, SIDE))))
    return values.permute(2, 0, 1).float() / 127.5 - 1


def load() -> tuple[FaceNetwork, Any]:
    """The network with weights of seed 0, in place of a file of its own, and its preprocessing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FaceNetwork(), preprocess


def load_alone() -> FaceNetwork:
    """The network without its preprocessing."""
    return FaceNetwork()


def load_maps() -> tuple[nn.Module, Any]:
    """A network that makes maps, and not embeddings."""
    return FaceNetwork().stem, preprocess


def load_broken() -> tuple[nn.Module, Any]:
    """Fails as a missing file of weights would."""
    raise FileNotFoundError("faces.pt")


def load_and_exit() -> tuple[nn.Module, Any]:
    """Ends the process as if it had succeeded, as a script does that is called as a function."""
    raise SystemExit(0)


def load_loudly() -> tuple[nn.Module, Any]:
    """Prints, as do its preprocessing and many functions that read weights."""
    print("reading weights")
    network, _ = load()

    def loud(image: Image.Image) -> Tensor:
        print("a picture")
        return preprocess(image)

    return network, loud


def load_with_broken_preprocess() -> tuple[nn.Module, Any]:
    """The preprocessing fails at every picture."""

    def broken(image: Image.Image) -> Tensor:
        raise KeyError(image.mode)

    return load()[0], broken


def load_with_whole_numbers() -> tuple[nn.Module, Any]:
    """The preprocessing makes bytes."""
    return load()[0], lambda image: preprocess(image).to(torch.uint8)


class WithExtraState(FaceNetwork):
    """A network whose state is not of tensors alone."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        assert state == {"version": 1}


def load_with_extra_state() -> tuple[nn.Module, Any]:
    """A network with extra state, which is no weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WithExtraState(), preprocess


def load_uncopyable() -> tuple[nn.Module, Any]:
    """A network that keeps a tensor of a computation, as torch.nn.utils.weight_norm does."""
    network, _ = load()
    network.kept = network.head.weight * 2
    return network, preprocess


def load_with_one_channel() -> tuple[nn.Module, Any]:
    """The network cannot read what the preprocessing makes: one channel of three."""
    return load()[0], lambda image: preprocess(image)[:1]
