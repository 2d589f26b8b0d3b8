"""``ntktheory models``: the networks that have names."""

import json
from typing import Any

import typer


def models() -> None:
    """List the named networks with their options and defaults, for --model and --arg."""
    from ntktheory.models import MODELS

    for name, entry in MODELS.items():
        options = (f"{key}={option_text(default)}" for key, default in entry.options.items())
        typer.echo(f"{name:<9} {entry.description}\n{'':<9} {' '.join(options)}")


def option_text(value: Any) -> str:
    """Return an option's value as --arg takes it.

    Example:
        >>> option_text((8, 16)), option_text(False), option_text("flatten")
        ('8,16', 'false', 'flatten')
    """
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
