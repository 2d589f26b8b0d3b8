"""The examples of the README run, and its claim does what it says."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ntktheory import ntk_trace
from proofs_check.claim import CLAIMS, Level, Outcome, claim
from proofs_check.ledger import load_ledger
from proofs_check.runner import Suite, entry_passed, run_row

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_example():
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["theta"].shape == (32, 32, 10, 10)
    assert names["trace"] <= names["bounds"].upper["edge"] <= names["bounds"].upper["px"]


def test_claim_in_20_lines(tmp_path):
    path = tmp_path / "ledger.toml"
    path.write_text(blocks("toml")[0].replace('depends = ["N5"]', ""))
    row = load_ledger(path)["N5.scalar"]
    code = blocks("python")[1]
    assert len(code.splitlines()) <= 20
    exec(code, {"Callable": Callable, "Level": Level, "Outcome": Outcome, "Tensor": Tensor,
                "claim": claim, "nn": nn, "ntk_trace": ntk_trace, "torch": torch})  # fmt: skip
    found = CLAIMS.pop("N5.scalar")
    entry, _ = run_row(row, Suite({row.id: row}, {row.id: found}, {}), "quick")
    assert entry_passed(entry)
    assert entry["mutants_total"] == 1


def test_is_short():
    assert len(README.splitlines()) <= 150
