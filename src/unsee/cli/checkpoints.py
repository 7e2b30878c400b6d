"""Commands on checkpoints and patches: apply, undo, export, history, verify and doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from unsee.cli.shared import DeviceName, Json, PatchOption, Trust, app, echo, progress, split_names
from unsee.errors import ConfigError, UnknownNameError, counted

REQUIREMENTS = ("text", "language", "visual", "files", "all")


OtherFilesOption = Annotated[
    Literal["refuse", "copy", "leave-out"],
    typer.Option("--other-files", help="Files over 10 MB that transformers does not read."),
]


@app.command()
def apply(
    patch: Annotated[
        list[Path], typer.Argument(help="Patch folders, in the order in which they were made.")
    ],
    model: Annotated[str, typer.Option(help="Checkpoint that the (first) patch was made from.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    other_files: OtherFilesOption = "refuse",
    inverse: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write what `unsee undo` needs into. It holds what was forgotten."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Apply a visual patch, or a stack of patches, to the base checkpoint.

    Each patch of a stack was made from the state after those before it. Weight files are rewritten
    one at a time; those without changed tensors are copied.

    Example: unsee apply runs/job/patch --model DIR --out DIR-unlearned
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("applying the patch")
        done = api.apply(patch, model, out, other_files=other_files, inverse=inverse)
    if as_json:
        echo(asdict(done), as_json)
        return
    stack = f"{len(done.lineage)} patches, " if len(done.lineage) > 1 else ""
    typer.echo(
        f"{out}: {stack}{counted(len(done.changed), 'tensor')} changed, "
        f"{counted(len(done.rewritten), 'weight file')} rewritten, "
        f"{counted(len(done.copied), 'file')} copied."
    )
    if done.left_out:
        names = ", ".join(done.left_out)
        typer.echo(f"Note: left out, as they may still hold what was forgotten: {names}", err=True)


@app.command()
def undo(
    inverse: Annotated[Path, typer.Argument(help="Folder that `unsee apply --inverse` wrote.")],
    model: Annotated[str, typer.Option(help="Checkpoint that was written with it.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    other_files: OtherFilesOption = "refuse",
    as_json: Json = False,
) -> None:
    """Take patches back: write the checkpoint from before, byte for byte.

    With the base at hand no inverse is needed: apply the earlier patches alone to it.

    Example: unsee undo INVERSE --model DIR-unlearned --out DIR-again
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("taking patches back")
        manifest = api.undo(inverse, model, out, other_files=other_files)
    if as_json:
        echo({"undone": manifest.undoes, "tensors": len(manifest.changed)}, as_json)
        return
    typer.echo(
        f"{out}: {counted(len(manifest.undoes), 'patch', 'patches')} taken back, "
        f"{counted(len(manifest.changed), 'tensor')} as before."
    )


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, or hub id.")],
    to: Annotated[
        Literal["gguf-mmproj", "onnx"],
        typer.Option(help="gguf-mmproj: llama.cpp's --mmproj file. onnx: encoder and projector."),
    ],
    out: Annotated[Path, typer.Option(help="File to write: .gguf or .onnx.")],
    patch: PatchOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Dtype of the matrices: f32, f16 (default of GGUF) or bf16."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Picture to compare on. Default: random pixels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export the visual part of a model, and compare it with transformers on a picture.

    Example: unsee export DIR-unlearned --to gguf-mmproj --out mmproj.gguf
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("exporting the visual part")
        done = api.export(
            model,
            out,
            to=to,
            patch=patch or (),
            dtype=dtype,  # type: ignore[arg-type]
            picture=picture,
        )
    if as_json:
        echo(asdict(done), as_json)
        return
    typer.echo(
        f"{done.file}: {done.bytes / 1e6:,.1f} MB. Features of {done.tokens} image tokens differ "
        f"from transformers' by {done.difference:.1e} of their norm."
    )
    if done.note is not None:
        typer.echo(f"Note: {done.note}", err=True)


@app.command()
def history(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT|PATCH...", help="A checkpoint, or the folders of patches."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Print the patches on a checkpoint, or those that patches are stacked on.

    Shows the base, the patches in order, their identities and dates, and what each changed.

    Example: unsee history DIR-unlearned
    """
    from unsee import api

    found = api.history(*sources)
    if as_json:
        echo({"base_sha256": found.base_sha256, **asdict(found)}, as_json)
        return
    typer.echo(found.describe())


@app.command()
def verify(
    before: Annotated[str, typer.Argument(help="Checkpoint folder, or hub id.")],
    after: Annotated[str, typer.Argument(help="Another checkpoint of the same family.")],
    probes: Annotated[
        int, typer.Option(min=0, help="Number of texts to compare outputs on; 0 loads no model.")
    ] = 64,
    require: Annotated[
        str | None,
        typer.Option(
            help="What must hold, else the exit code is 1: text (the language part and "
            "the outputs on text are identical), language (the language part is), visual (no "
            "tensor outside the visual part differs), files (no other file does), all. Separate "
            "several by commas."
        ),
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """List the differences between two checkpoints.

    Compares them tensor by tensor, and their outputs on text without images. Differences are no
    failure unless --require names what must hold.

    Example: unsee verify DIR DIR-unlearned --require text,visual
    """
    required = split_names(require, "--require") or []
    for name in required:
        if name not in REQUIREMENTS:
            raise UnknownNameError("requirement", name, REQUIREMENTS)
    if {"text", "all"} & set(required) and not probes:
        raise ConfigError(
            f"--require {required[0]} compares outputs on texts, and --probes 0 runs none. Leave "
            "one of them out."
        )
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("comparing the checkpoints")
        verification = api.verify(before, after, probes=probes, trust_remote_code=trust_remote_code)
    unmet = verification.unmet(required)
    if as_json:
        echo({**asdict(verification), "required": required, "unmet": unmet}, as_json)
    else:
        typer.echo(verification.describe())
    if unmet:
        typer.echo(f"unsee: not as required: {'; '.join(unmet.values())}.", err=True)
        raise typer.Exit(1)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, or hub id.")],
    trust_remote_code: Trust = False,
    device: DeviceName = "cpu",
    as_json: Json = False,
) -> None:
    """Say what unsee makes of a checkpoint, and whether it can be unlearned.

    Prints parts with their sizes, visual layers, tokens of pictures, LoRA targets, memory and time
    to expect, and the laws that a checkpoint must keep. The exit code is 1 if one is broken.

    Example: unsee doctor DIR
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("checking the model")
        found = api.doctor(model, trust_remote_code=trust_remote_code, device=device)
    if as_json:
        echo({**asdict(found), "passed": found.passed}, as_json)
    else:
        typer.echo(found.describe())
    if not found.passed:
        count = counted(sum(not check.passed for check in found.checks), "law")
        typer.echo(
            f"unsee: {count} broken: runs on this checkpoint would not be sound. Download the "
            "checkpoint's processor files again, or add a file for its type to unsee/families "
            "(CONTRIBUTING.md).",
            err=True,
        )
        raise typer.Exit(1)
