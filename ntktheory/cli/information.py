"""``ntktheory information``: what masks say about the data (No Free Prune).

One file per sub-command, registered here.
"""

import typer

from ntktheory.cli import information_toy

app = typer.Typer(help="What masks say about the data (No Free Prune).", rich_markup_mode=None)
app.command("toy", epilog=information_toy.EXAMPLES)(information_toy.toy)
