"""The command ``ntktheory``.

One file per command. Nothing here imports torch before a command runs, so that help stays cheap.
"""

from collections.abc import Sequence

import typer

from ntktheory.cli import bounds, data, estimate, information, models, ntk, prune, score, scorers

__all__ = ["app", "main"]

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
OUT_OF_MEMORY = (
    "out of memory: use fewer --samples, or ask for less (--output trace, --names, --no-trace)"
)

app = typer.Typer(
    help="Theory of pruning at initialisation, computed.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    add_completion=False,
)
app.command("ntk", epilog=ntk.EXAMPLES)(ntk.ntk)
app.command("bounds", epilog=bounds.EXAMPLES)(bounds.bounds)
app.command("score", epilog=score.EXAMPLES)(score.score)
app.command("prune", epilog=prune.EXAMPLES)(prune.prune)
app.command("scorers")(scorers.scorers)
app.add_typer(estimate.app, name="estimate")
app.add_typer(information.app, name="information")
app.command("models")(models.models)
app.add_typer(data.app, name="data")


@app.callback()
def group() -> None:
    """Theory of pruning at initialisation, computed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None = those of the process.

    Returns:
        The exit status: 0 done, 2 wrong input (one line on stderr says what), 130 interrupted.
    """
    try:
        status = int(app(args=argv, prog_name="ntktheory", standalone_mode=False) or 0)
        return status if status != EXIT_INTERRUPTED else _interrupted()
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except (ValueError, TypeError, OSError) as error:
        return _fail(str(error), EXIT_USAGE)
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return _fail(OUT_OF_MEMORY, EXIT_USAGE)
        if hasattr(error, "format_message"):  # typer's complaints about the arguments
            command = getattr(getattr(error, "ctx", None), "command_path", "ntktheory")
            return _fail(f"{error.format_message()} (See {command} -h.)", EXIT_USAGE)
        raise


def _interrupted() -> int:
    return _fail("interrupted; nothing was left half written", EXIT_INTERRUPTED)


def _fail(message: str, status: int) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return status
