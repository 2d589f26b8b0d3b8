"""``ntktheory information toy``."""

import json

import pytest

from ntktheory.information import exact_mask_information
from tests.cli.shared import complaint_of, run

COMMAND = ("information", "toy", "--no-replacement", "--steps", "5", "--seed", "2")


def test_the_table_is_the_library_s(capsys):
    status, printed, _ = run(*COMMAND, "--method", "snip", "--method", "synflow", capsys=capsys)
    assert status == 0
    wanted = exact_mask_information("snip", steps=5, lr=0.1, seed=2, replacement=False)
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("pruned"))
    rows = [line.split() for line in lines[start + 1 : start + 22]]
    assert rows == [[str(k), f"{bits:.4f}", "0.0000"] for k, bits in enumerate(wanted)]
    assert "data sets    1792" in printed
    assert "bits they leave open" in printed


def test_json_holds_everything(capsys):
    status, printed, _ = run(
        *COMMAND, "--loss", "cross_entropy", "--width", "3", "--json", capsys=capsys
    )
    assert status == 0
    found = json.loads(printed)
    assert (found["parameters"], found["data_sets"]) == (20, 1792)
    assert list(found["methods"]) == ["magnitude_after", "snip", "grasp"]
    for name, each in found["methods"].items():
        wanted = exact_mask_information(
            name, loss="cross_entropy", width=3, steps=5, lr=0.1, seed=2, replacement=False
        )
        assert each["bits"] == wanted
        for k in range(20):
            assert each["low_bits"][k] <= wanted[k] <= each["high_bits"][k]
            assert each["effective_parameters"][k] == pytest.approx(wanted[k] + 20 - k)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--method", "lottery"), "method must be one of"),
        (("--loss", "hinge"), "loss must be one of 'cross_entropy', 'logistic', 'mse'"),
        (("--init", "zeros"), "init must be one of"),
        (("--lr", "0"), "lr must be positive and finite, got 0.0"),
        (("--width", "13"), "P must be in 1…62, the bits of a code word, got 66"),
        (("--width", "0"), "Input should be greater than or equal to 1"),
    ],
)
def test_wrong_input_is_one_line(arguments, text, capsys):
    assert text in complaint_of(*COMMAND, *arguments, capsys=capsys)


def test_divergence_is_an_error_or_left_open(capsys):
    wild = ("--steps", "300", "--lr", "1", "--method", "magnitude_after")
    assert "must be finite, got NaN or Inf on" in complaint_of(*COMMAND, *wild, capsys=capsys)
    status, printed, _ = run(*COMMAND, *wild, "--diverged", "--json", capsys=capsys)
    found = json.loads(printed)["methods"]["magnitude_after"]
    assert status == 0
    assert found["near_tie_weight"][0] == 0 < found["near_tie_weight"][1]
    assert found["low_bits"][8] < found["high_bits"][8]
