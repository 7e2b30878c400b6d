"""The visual part of a model as an ONNX graph: pixels in, the LLM's image features out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unsee import __version__
from unsee.errors import ModelError, first_line, require_extra
from unsee.models.processors import quiet

if TYPE_CHECKING:
    from unsee.models.vlm import VLM

INPUT, OUTPUT = "pixel_values", "image_features"

# A file of protocol buffers holds at most this many bytes.
MOST_BYTES = 2**31 - 1_000_000


class _VisualPart(nn.Module):
    """The encoder and the projector as one module."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Image features [pictures, tokens, dim] of pictures [pictures, 3, height, width]."""
        features = self.model.get_image_features(pixel_values=pixel_values)
        features = getattr(features, "pooler_output", features)
        return features if isinstance(features, Tensor) else torch.stack(list(features))


def write_onnx(vlm: VLM, path: Path, pixels: Tensor, patches: Sequence[str] = ()) -> None:
    """Writes encoder and projector as an ONNX graph in 32 bits, for one picture at a time.

    The input "pixel_values" [1, 3, height, width] is what the checkpoint's image processor makes
    of a picture, the output "image_features" [1, tokens, dim] what the LLM reads.

    Args:
        vlm: The model in 32 bits; its visual part is enough.
        path: The file.
        pixels: The `pixel_values` of a picture, whose shape the graph takes.
        patches: The identities of the patches on it, for the metadata "unsee.patches".

    Raises:
        ConfigError: If a package of the extra is not installed.
        ModelError: If the visual part is too large for one file, or cannot be exported.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require_extra(module, "export", "writing an ONNX graph")
    size = sum(4 * parameter.numel() for parameter in vlm.parameters("visual").values())
    if size > MOST_BYTES:
        raise ModelError(
            f"the visual part has {size / 1e9:.1f} GB in 32 bits, and an ONNX file holds at most "
            "2 GB. Type --to gguf-mmproj."
        )
    with _quiet_exporter(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                _VisualPart(vlm.model).eval(),
                (pixels,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter raises errors of many kinds
            raise ModelError(
                f"the visual part of {vlm.model.config.model_type} models cannot be exported to "
                f"ONNX ({first_line(error)[:200]}). Type --to gguf-mmproj, or serve the checkpoint "
                "that `unsee apply` writes."
            ) from error
    program.model.metadata_props["unsee"] = __version__
    program.model.metadata_props["unsee.patches"] = ",".join(patches)
    program.save(path, external_data=False)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Turns off notes of PyTorch's exporter on operators of other packages and its own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def run_onnx(path: Path, pixels: Tensor) -> Tensor:
    """The output of a graph from `write_onnx`, computed by onnxruntime on the CPU.

    Args:
        path: The file.
        pixels: The `pixel_values` of a picture.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run([OUTPUT], {INPUT: pixels.numpy()})
    return torch.from_numpy(output)
