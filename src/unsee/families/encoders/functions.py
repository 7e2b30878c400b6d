"""Networks that a function of the user's own builds: `--model MODULE:FUNCTION`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unsee.errors import ModelError, first_line, quoted, shorten

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# The `model_type` of their checkpoints.
KIND = "torch_module"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

RETURN = (
    "Return the network and its preprocessing, as in `return network, preprocess`: a "
    "torch.nn.Module that maps [pictures, 3, height, width] to embeddings [pictures, dim], and a "
    "function that maps a PIL image to a tensor [3, height, width]."
)

_allowed: set[str] = set()


def is_function(text: str) -> bool:
    """Whether a model as it is typed is MODULE:FUNCTION, and no file or folder of that name.

    Example:
        >>> is_function("faces.network:load"), is_function("some-lab/some-model")
        (True, False)
    """
    return _NAME.fullmatch(text) is not None and not os.path.exists(text)


def has_module(text: str) -> bool:
    """Whether the module of MODULE:FUNCTION, or its outermost package, is there; not imported.

    Example:
        >>> has_module("json.decoder:JSONDecoder"), has_module("no_such_module:load")
        (True, False)
    """
    outermost = text.partition(":")[0].partition(".")[0]
    # The working folder is searched when it is imported, too.
    return PathFinder.find_spec(outermost, [os.getcwd(), *sys.path]) is not None


def allow(name: object) -> None:
    """Allows a function to be imported and called in this process, as the user has said so."""
    if isinstance(name, str):
        _allowed.add(name)


def refuse_unless_allowed(name: object) -> None:
    """Refuses a function that a checkpoint names and the user has not.

    Raises:
        ModelError: If it was not allowed, or is not written as MODULE:FUNCTION.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ModelError(
            f"its config.json says function = {quoted(str(name))}, which is not MODULE:FUNCTION. "
            "Write the checkpoint again with `unsee apply`."
        )
    if name not in _allowed:
        raise ModelError(
            f"its network is built by the Python function {name}, which would be imported and "
            "called. Type --trust-remote-code if you trust it."
        )


@dataclass(frozen=True)
class Built:
    """A network with its preprocessing, as a function has returned them.

    Attributes:
        network: The network, in evaluation mode.
        preprocess: Maps a picture to the network's input [3, height, width].
    """

    network: nn.Module
    preprocess: Callable[[Image.Image], Tensor]


@cache
def built(name: str) -> Built:
    """Imports and calls MODULE:FUNCTION, once in a process. The working folder is searched, too.

    Raises:
        ModelError: If it was not allowed, cannot be imported or called, or returns something else.
    """
    refuse_unless_allowed(name)
    where, _, function = name.partition(":")
    if where.endswith(".py"):
        raise ModelError(
            f"model '{name}': a module is imported by its name, without .py. Type "
            f"--model {where.removesuffix('.py')}:{function}."
        )
    try:
        # Standard output is the command's own, and with --json nothing but JSON.
        with redirect_stdout(sys.stderr):
            returned = getattr(_module(where), function)()
    except (Exception, SystemExit) as error:
        # A script ends itself with SystemExit; passed on, it would end the command without a word.
        reason = shorten(first_line(error), 300)
        raise ModelError(
            f"model '{name}': {type(error).__name__} in importing or calling it ({reason}). Try "
            f'python -c "from {where} import {function}; {function}()" in this folder.'
        ) from error
    if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
        raise ModelError(f"model '{name}': it returned {_kind(returned)}. {RETURN}")
    network, preprocess = returned
    if not isinstance(network, nn.Module) or not list(network.parameters()):
        raise ModelError(
            f"model '{name}': {_kind(network)} is no network with weights that could be trained. "
            f"{RETURN}"
        )
    return Built(network.eval(), preprocess)


def _module(name: str) -> Any:
    """The module, also from the working folder, where a console script does not look."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"


@dataclass(frozen=True)
class Preprocessing:
    """A function's preprocessing, in the form of an image processor of transformers.

    Attributes:
        name: The function, MODULE:FUNCTION.
    """

    name: str

    def __call__(self, images: Any, return_tensors: str = "pt") -> dict[str, Tensor]:
        """The network's inputs: "pixel_values" [pictures, 3, height, width].

        Args:
            images: PIL images.
            return_tensors: "pt"; nothing else is made.

        Raises:
            ModelError: If the function fails, or makes something else of a picture.
        """
        preprocess = built(self.name).preprocess
        try:
            with redirect_stdout(sys.stderr):
                tensors = [preprocess(image.convert("RGB")) for image in images]
        except Exception as error:
            reason = shorten(first_line(error), 300)
            raise ModelError(
                f"model '{self.name}': {type(error).__name__} in its preprocessing of a picture "
                f"({reason}). {RETURN}"
            ) from error
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor) or tensor.dim() != 3:
                shape = list(tensor.shape) if isinstance(tensor, torch.Tensor) else _kind(tensor)
                raise ModelError(
                    f"model '{self.name}': its preprocessing makes {shape} of a picture. {RETURN}"
                )
            if not tensor.is_floating_point():
                raise ModelError(
                    f"model '{self.name}': its preprocessing makes whole numbers ({tensor.dtype}) "
                    "of a picture. Return tensor.float(), scaled as the network was trained."
                )
        if len({tensor.shape for tensor in tensors}) > 1:
            raise ModelError(
                f"model '{self.name}': its preprocessing makes inputs of different sizes. Resize "
                "and crop all pictures to one size in it."
            )
        return {"pixel_values": torch.stack(tensors)}

    def save_pretrained(self, folder: Any) -> None:
        """Writes nothing: the function makes it again."""
