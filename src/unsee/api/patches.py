"""Patches and checkpoints: apply, undo, export, history, verify and doctor."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from unsee.api.inputs import Location, folder_of, location_text, one, source_of
from unsee.artifacts.exporting import Exported, Format, export_model
from unsee.artifacts.history import History, history_of
from unsee.artifacts.inverse import undo_patch
from unsee.artifacts.manifest import Manifest
from unsee.artifacts.mmproj import Dtype
from unsee.artifacts.patch import Applied, apply_patch
from unsee.artifacts.rewriting import OtherFiles
from unsee.artifacts.verify import Verification
from unsee.artifacts.verify import verify as verify_checkpoints
from unsee.models.doctor import Diagnosis, diagnose


def apply(
    patch: Location | Sequence[Location],
    model: Location,
    out: Location,
    *,
    other_files: OtherFiles = "refuse",
    inverse: Location | None = None,
) -> Applied:
    """Applies a visual patch, or a stack of them, to the base checkpoint, and writes the result.

    Weight files are rewritten one at a time; those without changed tensors are copied. No state
    between two patches is written.

    Args:
        patch: Patch folder, such as `run.folder / "patch"`, or several in the order in which they
            were made.
        model: Checkpoint that the (first) patch was made from.
        out: Checkpoint folder to write.
        other_files: What to do with files over 10 MB that transformers does not read.
        inverse: Folder to write what `undo` needs into; it holds what was forgotten.

    Returns:
        What was written: the manifest of the last patch, the lineage, and which files were
        rewritten or copied.

    Raises:
        PatchError: If a patch is damaged, or belongs to another checkpoint or another state of it.

    Example:
        unsee.apply("runs/job/patch", "checkpoints/llava-7b", "unlearned")
    """
    given = [patch] if isinstance(patch, str | PathLike) else patch
    patches = [location_text("patch", item) for item in given]
    kept = None if inverse is None else location_text("inverse", inverse)
    return apply_patch(patches, source_of(model), folder_of(out), other_files, kept)


def undo(
    inverse: Location, model: Location, out: Location, *, other_files: OtherFiles = "refuse"
) -> Manifest:
    """Takes patches back: writes the checkpoint from before they were applied, byte for byte.

    Args:
        inverse: Folder that `apply` wrote as `inverse`.
        model: The patched checkpoint that it wrote then.
        out: Checkpoint folder to write.
        other_files: What to do with files over 10 MB that transformers does not read.

    Returns:
        The manifest of the inverse.

    Raises:
        PatchError: If the inverse is damaged, or belongs to another checkpoint.

    Example:
        unsee.apply("runs/job/patch", "llava-7b", "unlearned", inverse="inverse")
        unsee.undo("inverse", "unlearned", "llava-7b-again")
    """
    folder = location_text("inverse", inverse)
    return undo_patch(folder, source_of(model), folder_of(out), other_files)


def export(
    model: Location,
    out: Location,
    *,
    to: Format,
    patch: Location | Sequence[Location] = (),
    dtype: Dtype | None = None,
    picture: Location | None = None,
) -> Exported:
    """Writes the visual part of a model in the format of another program, and compares it.

    The file is read again and run on a picture; it stays only if its features are those of
    transformers within the rounding of its dtype.

    Args:
        model: Checkpoint.
        out: The file to write.
        to: "gguf-mmproj" (llama.cpp's `--mmproj`) or "onnx" (encoder and projector).
        patch: Patches to put on the model in memory, in order.
        dtype: Dtype of the matrices: "f32", "f16" or "bf16"; default: f16 for GGUF, f32 for ONNX.
        picture: A picture to compare on; default: one of random pixels.

    Returns:
        The file's size, and the difference to transformers.

    Raises:
        ConfigError: If the extra `unsee[export]` is not installed, or an argument is not allowed.
        ModelError: If the model cannot be exported, or the file's features differ.

    Example:
        unsee.export("llava-7b", "mmproj.gguf", to="gguf-mmproj", patch="runs/job/patch")
    """
    given = [patch] if isinstance(patch, str | PathLike) else patch
    patches = [location_text("patch", item) for item in given]
    shown = None if picture is None else location_text("picture", picture)
    return export_model(source_of(model), folder_of(out), to, patches, dtype, shown)


def history(*sources: Location) -> History:
    """The lineage of a checkpoint or of patches: base, patches in order, and what each changed.

    Args:
        *sources: One checkpoint folder, or one or more patch folders in any order.

    Returns:
        The lineage; `print(history.describe())` prints it.

    Raises:
        PatchError: If a patch or a lineage is damaged, or patches do not follow each other.
        ModelError: If a folder is neither a checkpoint nor a patch.

    Example:
        >>> history("pocket:base").steps
        ()
    """
    names = [location_text("source", source) for source in sources]
    return history_of([Path(source_of(n) if ":" in n else n) for n in names])


def verify(
    before: Location, after: Location, *, probes: int = 64, trust_remote_code: bool = False
) -> Verification:
    """Lists the differences between two checkpoints, tensor by tensor.

    Args:
        before: A checkpoint.
        after: Another checkpoint of the same family.
        probes: Number of texts to compare the two models' logits on; 0 loads no model.
        trust_remote_code: Allow the checkpoints' own Python code to run.

    Returns:
        The differences; `print(verification.describe())` prints them.

    Raises:
        ModelError: If a checkpoint cannot be read, or they are of different families.

    Example:
        >>> verification = verify("pocket:base", "pocket:base", probes=0)
        >>> verification.language_identical, len(verification.differing)
        (True, 0)
    """
    sources = source_of(before), source_of(after)
    one("probes", probes, int, 0)
    return verify_checkpoints(*sources, probes, trust_remote_code=trust_remote_code)


def doctor(model: Location, *, trust_remote_code: bool = False, device: str = "cpu") -> Diagnosis:
    """Says what unsee makes of a checkpoint, and whether it keeps the laws of model families.

    Args:
        model: A checkpoint.
        trust_remote_code: Allow the checkpoint's own Python code to run.
        device: "cpu", "cuda" or "auto".

    Returns:
        Parts, layers, sizes, memory and time to expect, and every law with what was seen;
        `print(diagnosis.describe())` prints them.

    Raises:
        ModelError: If the checkpoint cannot be loaded, or its parts cannot be found.

    Example:
        >>> diagnosis = doctor("pocket:base")
        >>> diagnosis.family, diagnosis.passed
        ('llava', True)
    """
    return diagnose(source_of(model), trust_remote_code=trust_remote_code, device=device)
