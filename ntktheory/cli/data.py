"""``ntktheory data``: the data sets that have names, and those that can be fetched."""

import sys
from typing import Annotated

import typer

from ntktheory.cli.inputs import DataFolder
from ntktheory.cli.output import table_text

app = typer.Typer(help="List and fetch data sets.", rich_markup_mode=None)


@app.command("list")
def list_() -> None:
    """List the named data sets, for --data and --split."""
    from ntktheory.data import DATA
    from ntktheory.data.download import REMOTES

    rows = [
        (
            name,
            "|".join(entry.splits) or "–",
            "embedded" if not entry.splits else "download" if name in REMOTES else "by hand",
            entry.description,
        )
        for name, entry in DATA.items()
    ]
    typer.echo(table_text(("name", "split", "from", "what it is"), rows))


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="cifar10 (170 MB) or fashion_mnist (31 MB).")
    ],
    data_dir: DataFolder = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Another address (http, https or file) that has the same files."
        ),
    ] = None,
) -> None:
    """Fetch a data set from where its authors published it, into the folder of data sets.

    Each file gets its name once its checksum is right; what is there already is only checked.
    """
    from ntktheory.data import download as fetch

    for path in fetch(name, data_dir, mirror=mirror, progress=sys.stderr.isatty()):
        typer.echo(str(path))
