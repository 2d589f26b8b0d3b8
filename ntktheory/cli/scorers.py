"""``ntktheory scorers``: the scorers that have names."""

import json
from typing import TYPE_CHECKING, Any

import typer

from ntktheory.cli.output import table_text
from ntktheory.cli.shared import AsJSON

if TYPE_CHECKING:
    from ntktheory.pruning.scorers.registry import Scorer

NEEDS = {
    "x": "inputs",
    "y": "labels",
    "like": "shape",
    "input_shape": "shape",
    "generator": "seed",
}


def scorers(as_json: AsJSON = False) -> None:
    """List the scorers, for score and prune: formula, needs, published rounds and cost.

    The cost of one call is in forward and backward passes on the batch.
    """
    from ntktheory.pruning.scorers import SCORERS

    records = {name: _record(entry) for name, entry in SCORERS.items()}
    if as_json:
        typer.echo(json.dumps(records))
        return
    columns = ("name", "needs", "rounds", "cost", "formula")
    rows = [
        (name, " ".join(r["needs"]) or "–", str(r["rounds"]), r["cost"] or "–", r["formula"])
        for name, r in records.items()
    ]
    typer.echo(table_text(columns, rows))


def _record(entry: "Scorer") -> dict[str, Any]:
    needs = dict.fromkeys(text for name, text in NEEDS.items() if name in entry.needs)
    return {
        "formula": entry.summary,
        "paper": entry.paper,
        "needs": list(needs),
        "rounds": entry.rounds,
        "schedule": entry.schedule,
        "budget": entry.budget,
        "regrows": entry.regrows,
        "cost": entry.cost,
        "options": list(entry.options),
    }
