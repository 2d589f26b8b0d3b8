"""Made-up claims, evidence and reports for the tests in this folder."""

from typing import Any

from proofs_check.claim import Claim, Outcome
from proofs_check.ledger import Row
from proofs_check.runner import Report, Suite, run_suite

SIGMA = [0.01, 0.03, 0.1, 0.3]
LOOSENESS = [
    {
        "depth": depth,
        "width": width,
        "trace": 3.0 * depth,
        "ratios": {"px": 10.0 ** (2 * depth) * width, "edge": 2.0**depth * width, "abs": depth},
    }
    for depth in (2, 3, 4)
    for width in (4, 16, 64)
]
BIAS_CURVES = [
    {
        "network": "tanh <2-2-1>",
        "sigma": SIGMA,
        "exact": [s * s for s in SIGMA],
        "leading": [s * s for s in SIGMA],
        "monte_carlo": [1.1 * s * s for s in SIGMA],
        "low": [0.9 * s * s for s in SIGMA],
        "high": [1.3 * s * s for s in SIGMA],
    },
    {
        "network": "ReLU",
        "sigma": SIGMA,
        "exact": [s * s - s / 5 for s in SIGMA],
        "leading": None,
        "monte_carlo": [s * s - s / 5 for s in SIGMA],
        "low": [s * s - s / 4 for s in SIGMA],
        "high": [s * s for s in SIGMA],
    },
]
COUNTEREXAMPLE = "W1 = [[0.1]]\nW2 = [[1], [1]]\nx = [1] <script>alert(1)</script>"


def row(id_: str = "A1", **changes: Any) -> Row:
    """A row of a ledger."""
    fields: dict[str, Any] = {
        "id": id_,
        "paper": "beyond",
        "source": "a made-up source",
        "statement": f"Statement of {id_}: a < b & c",
        "assumptions": "none",
        "expected": "holds",
        "formula": r"a \le b",
    }
    return Row(**{**fields, **changes})


def claim(id_: str = "A1", *, mutant: Any = "refuted", **outcome: Any) -> Claim:
    """A claim whose check returns one outcome, and whose only mutant gives another status.

    An exception in place of the status is raised.
    """
    fields: dict[str, Any] = {"status": "holds", "kind": "property", "scope": "made up"}
    fields.update(outcome)

    def check(level: str, subject: Any) -> Outcome:
        status = subject()
        if isinstance(status, Exception):
            raise status
        return Outcome(**{**fields, "status": status})

    honest = fields["status"]
    return Claim(id_, check, {"subject": lambda: honest}, {"planted": {"subject": lambda: mutant}})


def suite(*pairs: tuple[Row, Claim | None]) -> Suite:
    """A suite of rows and their checks."""
    return Suite({r.id: r for r, _ in pairs}, {r.id: c for r, c in pairs if c is not None}, {})


def report(*pairs: tuple[Row, Claim | None]) -> Report:
    """The report of a suite."""
    return run_suite(suite(*pairs))


def rich_pairs() -> list[tuple[Row, Claim | None]]:
    """Rows that exercise every part of the page; all pass."""
    real = [
        {"network": "MLP 64-32-32-10", "images": 32, "quantity": "trace", "value": 1.5e9},
        {"network": "<b>ResNet</b>", "images": 8, "quantity": "trace", "value": None},
    ]
    evidence = {
        "largest_error": 1e-15,
        "nothing": [],
        "bad": float("nan"),
        "many": list(range(40)),
        "nested": {"inner": {"deep": True}},
        "rows": [{"net": "2-2-1", "squares": 22, "left": {"a": 1}}],
        "ragged": [[1, 2], [3]],
        "text": "line one\nline two",
    }
    return [
        (row("N1"), claim("N1", evidence={"real_data": real, **evidence})),
        (
            row("ladder", depends=("N1",)),
            claim("ladder", evidence={"looseness": LOOSENESS}, false_alarm=1e-9),
        ),
        (
            row("S2", depends=("N1", "ladder"), paper="NTK-SAP", url="https://arxiv.org/abs/1"),
            claim("S2", evidence={"bias_curves": BIAS_CURVES}, kind="statistical"),
        ),
        (
            row("S2.unbiased", depends=("S2",), expected="refuted"),
            claim("S2.unbiased", status="refuted", mutant="holds", counterexample=COUNTEREXAMPLE),
        ),
        (
            row(
                "F1",
                paper="No Free Prune",
                url="https://arxiv.org/abs/2",
                paper_axis="disputed",
                repair="a repair",
                expected="not-covered",
                reason="no evidence yet",
            ),
            None,
        ),
    ]
