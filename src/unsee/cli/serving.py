"""The command that serves a page to ask a model about pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from unsee.cli.shared import DeviceName, Json, PatchOption, Trust, app, echo, progress


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Checkpoint to ask: a folder, or a hub id.")],
    patch: PatchOption = None,
    gallery: Annotated[
        str | None,
        typer.Option(
            help="Known people, of whom the nearest are shown: a folder with one subfolder a "
            "person, a table, or a benchmark's split such as pocket:retain."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than this opens it to others.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer (tokens).")] = 128,
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    as_json: Json = False,
) -> None:
    """Serve a local page to ask about pictures, before and after visual patches.

    Pictures and questions stay in memory and on this machine. Ctrl-C ends it.

    Example: unsee serve pocket:target --patch runs/demo/patch --gallery pocket:forget
    """
    with progress(as_json) as bar:
        from unsee import api

        def started(url: str) -> None:
            bar.stage("answering questions")
            if as_json:
                echo({"url": url}, as_json)
            else:
                typer.echo(f"Open {url} in a browser. Ctrl-C ends it.")
            if open_:
                from unsee.serving.server import open_browser

                if not open_browser(url):
                    typer.echo("Note: no browser could be opened.", err=True)

        api.serve(
            model,
            patch=list(patch or ()),
            gallery=gallery,
            progress=bar,
            host=host,
            port=port,
            max_new_tokens=max_new_tokens,
            device=device,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
            on_start=started,
        )
