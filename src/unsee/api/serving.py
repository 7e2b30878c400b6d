"""A local page that shows a model's answers before and after visual patches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from unsee.api.inputs import Location, Progress, listed, location_text, one, source_of
from unsee.artifacts.stack import patch_folders
from unsee.errors import ConfigError, require_extra
from unsee.families import is_encoder
from unsee.models.checkpoint import peek_config
from unsee.models.devices import Device
from unsee.models.vlm import VLM
from unsee.progress import as_bar
from unsee.recipes.job import NO_ANSWERS
from unsee.recipes.sources import read_samples

LOGGER = logging.getLogger("unsee")


class ServeOptions(TypedDict, total=False):
    """Further arguments of `serve`.

    Attributes:
        host: Address to listen on; default: 127.0.0.1, which only this machine reaches.
        port: Port; default: 0, a free one.
        max_new_tokens: Longest answer (tokens); default: 128.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        trust_remote_code: Allow the checkpoint's own Python code to run.
        on_start: Called with the page's address once it can be opened.
    """

    host: str
    port: int
    max_new_tokens: int
    device: Device
    trust_remote_code: bool
    on_start: Callable[[str], None]


def serve(
    model: Location,
    *,
    patch: Location | Sequence[Location] = (),
    gallery: Location | None = None,
    progress: Progress = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serves a page where a picture is asked about, before and after visual patches.

    It returns when the process gets SIGINT or SIGTERM. Pictures and questions are kept in memory
    until they are answered; none is written or logged.

    Args:
        model: Checkpoint to ask.
        patch: Visual patches to apply to a copy in memory, each made from the state after those
            before it.
        gallery: Pictures of known people, of whom the nearest are shown: a folder with one
            subfolder a person, a table, or a benchmark's split.
        progress: As for `unlearn`.
        **options: See `ServeOptions`.

    Raises:
        ConfigError: If the address cannot be listened on, or the extra `serve` is not installed.
        UnseeError: If the model, a patch or the gallery cannot be used.

    Example:
        unsee.serve("pocket:target", patch="runs/demo/patch", gallery="pocket:retain", port=8765)
    """
    require_extra("starlette", "serve", "unsee serve")
    require_extra("uvicorn", "serve", "unsee serve")
    from unsee.serving import application, server
    from unsee.serving.comparing import Comparer

    source = source_of(model)
    if is_encoder(peek_config(source).get("model_type")):
        raise ConfigError(
            f"model {model}: {NO_ANSWERS}, and the page asks questions. Compare its photographs: "
            "unsee audit --attack prototype --forget FOLDER --retain FOLDER."
        )
    given = [patch] if isinstance(patch, str | Path) else listed("patch", patch, str | Path)  # type: ignore[arg-type]
    typed = [location_text("patch", item) for item in given]
    patches = patch_folders(typed)
    host, port = options.get("host", "127.0.0.1"), one("port", options.get("port", 0), int, 0)
    if port > 65535:
        raise ConfigError(f"port={port} is not allowed: give 0 for a free one, or 1 to 65535.")
    longest = one("max_new_tokens", options.get("max_new_tokens", 128), int, 1)
    bar = as_bar(progress).stage("reading data")
    samples = None
    if gallery is not None:
        samples = read_samples(location_text("gallery", gallery), "gallery")
    opened = server.listen(host, port)
    try:
        if not application.is_loopback(host):
            LOGGER.warning(
                f"--host {host} lets everyone who reaches this machine ask the model, without a "
                "password and unencrypted. Leave --host out to serve this machine alone."
            )
        vlm = VLM.load(
            source,
            device=options.get("device", "auto"),
            trust_remote_code=options.get("trust_remote_code", False),
        )
        stage = bar.stage("reading the gallery")
        comparer = Comparer(vlm, patches, samples, longest, stage.count)
        hosts = ("localhost", "127.0.0.1", "::1") if application.is_loopback(host) else (host,)
        names = _names(map(Path, typed))
        app = application.make_app(comparer, Path(source).name, names, (*hosts, host))
        url = server.address_of(opened, host)
        on_start = options.get("on_start")
        server.serve(app, opened, lambda: on_start(url) if on_start is not None else None)
    finally:
        opened.close()


def _names(patches: Iterable[Path]) -> list[str]:
    """Short names of patches: a run's is called patch, so its run folder names it.

    That of a ledger's step is called run, and the step's number is before it.
    """
    names = []
    for path in patches:
        folder = path.resolve().parent if path.name == "patch" else path
        names.append(f"{folder.parent.name}/run" if folder.name == "run" else folder.name)
    return names
