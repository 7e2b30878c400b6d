"""Commands on certificates: certificate new, key, verify and show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.shared import Json, Trust, announce_loading, app, echo, progress
from unsee.errors import ConfigError, printable, quoted

certificate_app = typer.Typer(
    help="Make and check certificates: what was done for a request, as evidence.",
    no_args_is_help=True,
)
app.add_typer(certificate_app, name="certificate")

CertificateFile = Annotated[
    Path, typer.Argument(help="certificate.json, or the folder that has it.")
]


@certificate_app.command()
def new(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run that unlearned.")],
    key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the private key that signs. Default: the environment variable "
            "UNSEE_SIGNING_KEY; without it the certificate is unsigned."
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Your reference of the request; it should name nobody.")
    ] = None,
    received: Annotated[
        str | None, typer.Option(help="When the request was received, such as 2026-11-20.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder with the photographs, to be identified by hashes.")
    ] = None,
    salt: Annotated[
        Path | None, typer.Option(help="File with the salt of these hashes; keep it secret.")
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="The patch, if it is no longer in the run folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: the run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the certificate of a finished run: certificate.json, .html and .pdf.

    It says what was asked, what changed, what was measured, which attacks were run and which were
    not, and how all of it can be checked. It names nobody.

    Example: unsee certificate new runs/job --key key.pem --request-id 2026-17
    """
    announce_loading(quiet=as_json)
    from pydantic import ValidationError

    from unsee.api import certificates

    try:
        request = certificates.Request(id=request_id, received=received)
    except ValidationError as error:
        option = {"id": "--request-id", "received": "--received"}[str(error.errors()[0]["loc"][0])]
        given = request_id if option == "--request-id" else received
        allowed = "at most 300 letters" if option == "--request-id" else "a day, such as 2026-11-20"
        raise ConfigError(f"{option} {quoted(given)} is not allowed: give {allowed}.") from error
    written = certificates.certify(
        run, out=out, key=key, request=request, photos=photos, salt=salt, patch=patch
    )
    if as_json:
        echo(written.certificate.to_dict(), as_json)
        return
    for path in (written.json, written.html, written.pdf):
        if path is not None:
            typer.echo(path)
    if written.certificate.signature is None:
        typer.echo(
            "Note: the certificate is not signed. To sign, make a key with `unsee certificate key "
            "--out FILE` and give it with --key.",
            err=True,
        )


@certificate_app.command()
def key(
    out: Annotated[Path, typer.Option(help="File of the private key; FILE.pub is the public one.")],
    as_json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys to sign certificates with.

    Keep the private key secret; it is readable by you alone and not encrypted. Give FILE.pub, or
    the fingerprint, to those who check certificates.

    Example: unsee certificate key --out key.pem
    """
    from unsee.certificates.keys import PUBLIC, make_key

    made = {"private": str(out), "public": f"{out}{PUBLIC}", "fingerprint": make_key(out)}
    echo(made, as_json)


@certificate_app.command()
def verify(
    path: CertificateFile,
    public_key: Annotated[
        str | None,
        typer.Option(help="The signer's public key: a PEM file, or the key's fingerprint."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder: the certificate is made from it again.")
    ] = None,
    patch: Annotated[Path | None, typer.Option(help="Visual patch to compare.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint to compare: the result, or the base.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photographs to compare; needs --salt.")
    ] = None,
    salt: Annotated[Path | None, typer.Option(help="File with the salt of their hashes.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Let a certificate without signature pass.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Check a certificate; the exit code is 1 if any check fails.

    Without --public-key it is not checked who signed. With the other options everything that they
    allow is computed again and compared.

    Example: unsee certificate verify runs/job/certificate.json --public-key key.pem.pub
    """
    with progress(as_json) as bar:
        from unsee.api import certificates

        bar.stage("checking the certificate")
        verification = certificates.verify_certificate_file(
            path,
            public_key=public_key,
            run=run,
            patch=patch,
            model=model,
            photos=photos,
            salt=salt,
            allow_unsigned=allow_unsigned,
            trust_remote_code=trust_remote_code,
        )
    failed = verification.failed
    if as_json:
        checks = [asdict(check) for check in verification.checks]
        echo({"valid": not failed, "checks": checks}, as_json)
    else:
        typer.echo(printable(verification.describe()))
    if failed:
        raise typer.Exit(1)


@certificate_app.command(name="show")
def show_certificate(
    path: CertificateFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the HTML and the PDF to again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a certificate says; nothing is checked.

    Example: unsee certificate show runs/job/certificate.json
    """
    announce_loading(quiet=as_json)
    from unsee.api.certificates import rewrite_document
    from unsee.certificates.document import as_text, document
    from unsee.certificates.signing import read_certificate

    certificate = read_certificate(path).certificate
    if out is not None:
        html, pdf = rewrite_document(path, out)
        written = {"html": str(html), "pdf": None if pdf is None else str(pdf)}
        if as_json:
            echo(written, as_json)
        else:
            for file in filter(None, written.values()):
                typer.echo(file)
    elif as_json:
        echo(certificate.to_dict(), as_json)
    else:
        typer.echo(printable(as_text(document(certificate))))
