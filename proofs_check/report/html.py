"""The report as one static HTML file that loads nothing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from proofs_check.ledger import PAPERS
from proofs_check.report import graph, words
from proofs_check.report.figures import figures_for
from proofs_check.runner import (
    FALSE_ALARM_BUDGET,
    budget_kept,
    entry_passed,
    suite_passed,
    write_atomically,
)

FOLDER = Path(__file__).parent
INLINE_ITEMS = 8
OPEN_ROWS = 12
PAPER_TITLES = {
    "NTK-SAP": "NTK-SAP",
    "PX": "Path eXclusion (PX)",
    "No Free Prune": "No Free Prune",
    "beyond": "Beyond the papers",
}


def write_html(report: Mapping[str, Any], path: str | Path) -> None:
    """Write the report as HTML, all of it or nothing.

    Args:
        report: The report of the runner.
        path: The file; its folder is created.
    """
    write_atomically(path, render_html(report))


def render_html(report: Mapping[str, Any]) -> str:
    """Return the report as one HTML page.

    Args:
        report: The report of the runner, JSON-able.

    Returns:
        The page, with styles and drawings inline and every text escaped.
    """
    claims = [_view(entry) for entry in report["claims"]]
    return (
        environment()
        .get_template("template.html")
        .render(
            report=report,
            claims=claims,
            passed=suite_passed(report),
            failures=[c for c in claims if not c["passed"]],
            computed=[c for c in claims if c["status"] != "not-covered"],
            groups=group_by_paper(claims),
            counts=words.count_statuses(claims),
            real=[c for c in claims if c["real"]],
            graph=graph.layout(claims),
            by_id={c["id"]: c for c in claims},
            budget=FALSE_ALARM_BUDGET,
            budget_kept=budget_kept(report),
            node=(graph.NODE_WIDTH, graph.NODE_HEIGHT),
        )
    )


def environment() -> jinja2.Environment:
    """Return the template environment: everything is escaped, an unknown name is an error."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters.update(
        number=_number,
        seconds=words.format_seconds,
        label=words.label,
        shape=shape,
        columns=columns,
    )
    result.globals.update(
        icons=words.ICONS,
        meanings=words.MEANINGS,
        kinds=words.KIND_MEANINGS,
        inline_items=INLINE_ITEMS,
        open_rows=OPEN_ROWS,
    )
    return result


def group_by_paper(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group the claims by paper, covered ones apart from those that are not.

    Args:
        claims: The claims.

    Returns:
        Title, anchor and claims of each paper that has any.
    """
    groups = []
    for paper in PAPERS:
        own = [c for c in claims if c["paper"] == paper]
        if own:
            groups.append(
                {
                    "title": PAPER_TITLES[paper],
                    "anchor": paper.lower().replace(" ", "-"),
                    "covered": [c for c in own if not _waiting(c)],
                    "waiting": [c for c in own if _waiting(c)],
                }
            )
    return groups


def shape(value: Any) -> str:
    """Say how a piece of evidence is best shown.

    Args:
        value: JSON-able.

    Returns:
        ``scalar``, ``text`` (several lines), ``empty``, ``items`` (a list of scalars), ``table`` (a
        list of flat tables with scalar cells), ``list`` or ``map``.
    """
    if isinstance(value, str) and ("\n" in value or len(value) > 240):
        return "text"
    if not isinstance(value, Mapping | list | tuple):
        return "scalar"
    if not value:
        return "empty"
    if isinstance(value, Mapping):
        return "map"
    if all(shape(item) == "scalar" for item in value):
        return "items"
    return "table" if all(_flat(item) for item in value) else "list"


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of some tables, each once, in the order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def flattened(value: Any) -> Any:
    """Spread tables inside the rows of a list over columns of their own, so that it is a table.

    Args:
        value: JSON-able.

    Returns:
        ``[{"a": 1, "b": {"c": 2}}]`` as ``[{"a": 1, "b c": 2}]``; anything else unchanged.
    """
    if shape(value) != "list" or not all(isinstance(row, Mapping) for row in value):
        return value
    return [
        {
            f"{key} {inner}" if isinstance(item, Mapping) else key: cell
            for key, item in row.items()
            for inner, cell in (item.items() if isinstance(item, Mapping) else [("", item)])
        }
        for row in value
    ]


def mathml(formula: str) -> Markup:
    """Return a LaTeX formula as MathML, or as code if it cannot be converted."""
    from latex2mathml.converter import convert

    try:
        return Markup(convert(formula, display="block"))
    except Exception:
        return Markup("<code>{}</code>").format(formula)


def _view(entry: Mapping[str, Any]) -> dict[str, Any]:
    evidence = dict(entry["evidence"])
    real = evidence.pop("real_data", None)
    usable = shape(real) == "table"
    if real is not None and not usable:
        evidence["real_data"] = real
    return {
        **entry,
        "evidence": {key: flattened(value) for key, value in evidence.items()},
        "real": by_network(real) if usable else [],
        "images": sorted({row["images"] for row in real if "images" in row}) if usable else [],
        "passed": entry_passed(entry),
        "formula_html": mathml(entry["formula"]) if entry["formula"] else None,
        "figures": [
            {**figure, "svg": Markup(figure["svg"])}
            for figure in figures_for(entry["id"], entry["evidence"])
        ],
    }


def _waiting(entry: Mapping[str, Any]) -> bool:
    return entry["status"] == entry["expected"] == "not-covered"


def _flat(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        shape(item) in ("scalar", "empty") for item in value.values()
    )


def by_network(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every network a column, so that a quantity takes one row.

    Args:
        rows: Flat dictionaries; those of a shape other than {network, images, quantity, value} are
            returned as they are.

    Returns:
        One row per quantity: {"quantity": name, network: value, …}.
    """
    if any(set(row) != {"network", "images", "quantity", "value"} for row in rows):
        return rows
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        table.setdefault(row["quantity"], {"quantity": row["quantity"]})[row["network"]] = row[
            "value"
        ]
    return list(table.values())


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return words.format_number(value)
    return str(value)
