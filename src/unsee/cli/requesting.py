"""Commands on deletion requests: init, new, run, list, show, undo, export, salt and adopt."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.cli.shared import DeviceName, Json, Seed, Set, Trust, app, complete, echo, progress
from unsee.errors import counted

if TYPE_CHECKING:
    from unsee.requests.entries import Step

request_app = typer.Typer(
    help="Answer deletion requests over one deployed model, one after another.",
    no_args_is_help=True,
)
app.add_typer(request_app, name="request")

Folder = Annotated[
    Path, typer.Option("--ledger", envvar="UNSEE_LEDGER", help="The ledger's folder.")
]
DEFAULT = Path("ledger")
Name = Annotated[str, typer.Argument(metavar="ID", help="The request's id.")]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="ATTACK",
        help="NAME?field=value&field=value; standard is the standard suite, none makes no attack. "
        "Repeatable. Default: standard.",
        autocompletion=complete("attacks"),
    ),
]


@request_app.command()
def init(
    model: Annotated[str, typer.Option(help="The deployed model: a folder, or a hub id.")],
    retain: Annotated[
        str | None,
        typer.Option(
            help="Images or samples that the model must still recognise; with answers, they show "
            "after every request how much of them is kept."
        ),
    ] = None,
    strangers: Annotated[
        str | None, typer.Option(help="Images of people that the model was never trained on.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Unlearning method; see `unsee list methods`.",
            autocompletion=complete("methods"),
        ),
    ] = "vkd",
    attack: Attacks = None,
    forget_margin: Annotated[
        float, typer.Option(help="Score above chance up to which a person counts as forgotten.")
    ] = 0.05,
    keep_margin: Annotated[
        float,
        typer.Option(help="Loss of score since the ledger began up to which others are kept."),
    ] = 0.02,
    attack_margin: Annotated[
        float | None,
        typer.Option(
            help="Score above chance up to which an attack counts as resisted. Default: attacks "
            "are reported, and do not decide."
        ),
    ] = None,
    set_: Set = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact/--no-redact",
            help="Keep names, questions, answers and paths out of the run folders.",
        ),
    ] = True,
    seed: Seed = 0,
    trust_remote_code: Trust = False,
    device: DeviceName = "auto",
    ledger: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Create a ledger over a deployed model.

    Example: unsee request init --model DIR --retain photos/others --ledger ledger
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides

        bar.stage("hashing the model")
        made = api.create_ledger(
            ledger,
            model,
            retain=retain,
            strangers=strangers,
            method=method,
            attacks=_attacks(attack, ["standard"]) or (),
            forget_margin=forget_margin,
            keep_margin=keep_margin,
            attack_margin=attack_margin,
            fields=parse_overrides(set_ or []),
            redact=redact,
            seed=seed,
            trust_remote_code=trust_remote_code,
            device=device,
        )
    if as_json:
        echo(made.values(), as_json)
    else:
        typer.echo(f"{ledger}: a ledger over {model}, without a request.")
        typer.echo(f"Next: unsee request new --photos DIR{_option(ledger)}")


@request_app.command()
def new(
    photos: Annotated[
        str,
        typer.Option(
            help="Photographs of whom to forget: a folder (one subfolder for each person, or "
            "flat), or a table with columns image, question, answer, concept."
        ),
    ],
    id_: Annotated[
        str | None,
        typer.Option("--id", help="The request's id, which should name nobody. Default: R1, ..."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="The face to forget in a group photograph, if there is one photograph. For "
            "several, write a boxes.csv beside them.",
        ),
    ] = None,
    remember_path: Annotated[
        bool,
        typer.Option("--remember-path", help="Keep the path of the photographs in the ledger."),
    ] = False,
    ledger: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Add a request to forget the people on photographs.

    The photographs are checked and hashed. Nothing is unlearned yet.

    Example: unsee request new --photos photos/anna --id 2026-17 --ledger ledger
    """
    with progress(as_json):
        from unsee import api

        opened = api.open_ledger(ledger)
        request = opened.new(photos, id=id_, remember_path=remember_path, box=box)
    if as_json:
        echo(opened.show(request.id), as_json)
        return
    typer.echo(f"Request {request.id}: {'; '.join(request.entry.notes)}.")
    words = "" if remember_path else f" --photos {shlex.quote(photos)}"
    typer.echo(f"Next: unsee request run {request.id}{words}{_option(ledger)}")


@request_app.command()
def run(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            help="Requests to answer; several are answered together, in one step. Default: all "
            "that wait, one step each.",
        ),
    ] = None,
    photos: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the photographs are, of these and of earlier requests; they are found by "
            "their hashes. Repeatable. Default: the remembered paths."
        ),
    ] = None,
    attack: Attacks = None,
    set_: Set = None,
    ledger: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Answer requests: unlearn, evaluate, attack, audit and decide.

    An interrupted step is continued by the same command. The exit code is 1 if a result was not
    accepted.

    Example: unsee request run 2026-17 --photos photos/anna --ledger ledger
    """
    with progress(as_json) as bar:
        from unsee import api
        from unsee.recipes.parsing import parse_overrides
        from unsee.requests.view import step_values

        steps = api.open_ledger(ledger).run(
            *(ids or ()),
            photos=list(photos or ()),
            fields=parse_overrides(set_ or []),
            attacks=_attacks(attack, None),
            progress=bar,
        )
    if as_json:
        echo([step_values(step) for step in steps], as_json)
    else:
        for step in steps:
            _print_step(step)
    if any(step.status != "accepted" for step in steps):
        raise typer.Exit(1)


@request_app.command(name="list")
def list_(ledger: Folder = DEFAULT, as_json: Json = False) -> None:
    """List the requests, and the patches that are deployed.

    Example: unsee request list --ledger ledger
    """
    with progress(as_json):
        from unsee import api

        values = api.open_ledger(ledger).values()
    if as_json:
        echo(values, as_json)
        return
    for request in values["requests"]:
        typer.echo(
            f"{request['id']}: {request['status']}, received {request['received']}, "
            f"{counted(request['photographs'], 'photograph')}, "
            f"{counted(request['people'], 'person', 'people')}"
        )
    if not values["requests"]:
        typer.echo("No request yet.")
    deployed = [" + ".join(step["requests"]) for step in values["deployed"]]
    typer.echo(f"Deployed patches, in order: {', '.join(deployed) or 'none'}")


@request_app.command()
def show(name: Name, ledger: Folder = DEFAULT, as_json: Json = False) -> None:
    """Show a request: its photographs' hashes, its steps and their decisions.

    Example: unsee request show 2026-17 --ledger ledger
    """
    with progress(as_json):
        from unsee import api

        opened = api.open_ledger(ledger)
        values = opened.show(name)
    if as_json:
        echo(values, as_json)
        return
    typer.echo(f"Request {name}: {values['status']}, received {values['received']}")
    for note in values["notes"]:
        typer.echo(f"  {note}")
    state = opened.state
    for number in state.requests[name].steps:
        _print_step(state.steps[number])
    for step in values["steps"]:
        typer.echo(f"Folder of step {step['step']}: {step['folder']}")


@request_app.command()
def undo(
    name: Name,
    later: Annotated[
        bool,
        typer.Option(
            "--later", help="Also take back later requests, which are then to be run again."
        ),
    ] = False,
    ledger: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Take a request back: the model is again as it was before it, bit for bit.

    A request that was not carried out is withdrawn, and an unfinished step is given up.

    Example: unsee request undo 2026-17 --ledger ledger
    """
    with progress(as_json):
        from unsee import api

        state = api.open_ledger(ledger).undo(name, later=later)
    if as_json:
        from unsee.requests.view import ledger_values

        echo(ledger_values(state), as_json)
        return
    typer.echo(f"Request {name}: {state.requests[name].status}")
    typer.echo(f"Deployed patches: {len(state.stack)}")
    if state.pending:
        typer.echo(f"To be run: {', '.join(state.pending)}")


@request_app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    checkpoint: Annotated[
        bool,
        typer.Option("--checkpoint", help="Also write the model with all deployed patches on it."),
    ] = False,
    ledger: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Write the deployed patches, the decisions, and how to apply them.

    Example: unsee request export --out deployed --checkpoint --ledger ledger
    """
    with progress(as_json) as bar:
        from unsee import api

        bar.stage("writing")
        written = api.open_ledger(ledger).export(out, checkpoint=checkpoint)
    if as_json:
        echo(written, as_json)
        return
    parts = (
        counted(written["requests"], "request"),
        counted(len(written["patches"]), "patch", "patches"),
    )
    typer.echo(f"{out}: {', '.join(parts)}")
    if checkpoint:
        typer.echo(f"model: {written['model']}")


@request_app.command()
def salt(
    name: Name,
    out: Annotated[Path, typer.Option(help="File to write; only you can read it.")],
    ledger: Folder = DEFAULT,
) -> None:
    """Write the salt of a request's photographs, for somebody who checks its certificate.

    With it and the photographs, `unsee certificate verify --photos DIR --salt FILE` tells whether
    the certificate is about them. Keep it secret: whoever has it can recognise the photographs.

    Example: unsee request salt 2026-17 --out salt.key --ledger ledger
    """
    from unsee import api

    api.open_ledger(ledger).write_salt(name, out)
    typer.echo(
        f"{out}: whoever has this file and a photograph can tell if the request is about it."
    )


@request_app.command()
def adopt(ledger: Folder = DEFAULT) -> None:
    """Use a ledger that was moved or copied at its new place from now on.

    Example: unsee request adopt --ledger ledger
    """
    from unsee import api

    api.open_ledger(ledger).adopt()
    typer.echo(f"{ledger}: used here from now on. Do not use the other copy any more.")


def _attacks(given: list[str] | None, default: list[str] | None) -> list[str] | None:
    """The attacks that were typed, of which "none" is no attack."""
    if given is None:
        return default
    return [text for text in given if text != "none"]


def _option(ledger: Path) -> str:
    return "" if ledger == DEFAULT else f" --ledger {shlex.quote(str(ledger))}"


def _print_step(step: Step) -> None:
    names = " + ".join(step.entry.requests)
    typer.echo(f"Step {step.number} over {names}: {step.status}")
    if step.decided is None:
        return
    decision = step.decided.decision
    for criterion in decision.criteria:
        mark = {True: "yes", False: "NO", None: "-"}[criterion.passed]
        typer.echo(f"  {mark:<4}{criterion.text}")
    for text in decision.not_measured:
        typer.echo(f"  -   Not measured: {text}")
    if step.decided.not_audited:
        lost: Any = ", ".join(step.decided.not_audited)
        typer.echo(
            f"  -   Not audited again, as their photographs were not given with --photos: {lost}"
        )
