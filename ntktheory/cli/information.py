"""``ntktheory information``: what masks say about the data (No Free Prune).

One file per sub-command, registered here.
"""

import typer

from ntktheory.cli import information_memorise, information_noise, information_toy

app = typer.Typer(help="What masks say about the data (No Free Prune).", rich_markup_mode=None)
app.command("toy", epilog=information_toy.EXAMPLES)(information_toy.toy)
app.command("memorise", epilog=information_memorise.EXAMPLES)(information_memorise.memorise)
app.command("noise", epilog=information_noise.EXAMPLES)(information_noise.noise)
