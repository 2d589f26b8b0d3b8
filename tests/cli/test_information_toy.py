"""``ntktheory information toy``."""

import json
import re
import statistics

import pytest

from ntktheory.information import exact_mask_information, information_over_inits
from tests.cli.shared import complaint_of, run

COMMAND = ("information", "toy", "--no-replacement", "--steps", "5", "--seed", "2")


def rows_of(printed):
    """Return the table's lines, each split."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("pruned"))
    return [line.split() for line in lines[start + 1 : start + 22]]


def test_the_table_is_the_library_s(capsys):
    status, printed, _ = run(*COMMAND, "--method", "snip", "--method", "synflow", capsys=capsys)
    assert status == 0
    wanted = exact_mask_information("snip", steps=5, lr=0.1, seed=2, replacement=False)
    assert rows_of(printed) == [
        [str(k), f"{bits:.4f}", f"{bits + 21 - k:.4f}", "0.0000", f"{21 - k:.4f}"]
        for k, bits in enumerate(wanted)
    ]
    assert "data sets        1792" in printed
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
        (init,) = each["inits"]
        assert init["bits"] == each["mean_bits"] == each["bits_unknown_init"] == wanted
        assert each["half_width_95"] is None
        for k in range(20):
            assert init["low_bits"][k] <= wanted[k] <= init["high_bits"][k]
            assert init["effective_parameters"][k] == pytest.approx(wanted[k] + 20 - k)
        assert each["mean_effective_parameters"] == init["effective_parameters"]


def test_several_inits(capsys):
    options = ("--method", "snip", "--method", "synflow", "--seeds", "3")
    found = json.loads(run(*COMMAND, *options, "--json", capsys=capsys)[1])["methods"]["snip"]
    each = [
        exact_mask_information(
            "snip", steps=5, lr=0.1, seed=seed, replacement=False, return_details=True
        )
        for seed in (2, 3, 4)
    ]
    assert [init["seed"] for init in found["inits"]] == [2, 3, 4]
    assert [init["bits"] for init in found["inits"]] == [one.bits for one in each]
    table = rows_of(run(*COMMAND, *options, capsys=capsys)[1])
    for k in range(21):
        values = [one.bits[k] for one in each]
        assert found["mean_bits"][k] == pytest.approx(statistics.mean(values), abs=1e-12)
        half = 4.302652729911275 * statistics.stdev(values) / 3**0.5  # Student's t, 2 degrees
        assert found["half_width_95"][k] == pytest.approx(half, rel=1e-9, abs=1e-12)
        codes = [one.codes[k].tolist() for one in each]
        mixed = information_over_inits(codes, each[0].law)
        assert found["bits_unknown_init"][k] == pytest.approx(mixed, abs=1e-12)
        mean = found["mean_bits"][k]
        assert table[k][:6] == [
            str(k), f"{mean:.4f}", "±", f"{half:.4f}", f"{mean + 21 - k:.4f}", f"{mixed:.4f}"
        ]  # fmt: skip
    assert 0 < found["bits_unknown_init"][2] < found["mean_bits"][2]


def test_options_go_to_the_scorers_that_have_them(capsys):
    options = ("--method", "snip", "--method", "grasp", "--json")
    plain, cold = (
        json.loads(run(*COMMAND, *options, *more, capsys=capsys)[1])["methods"]
        for more in ((), ("--option", "temperature=1"))
    )
    wanted = exact_mask_information(
        "grasp", steps=5, lr=0.1, seed=2, replacement=False, options={"temperature": 1}
    )
    assert cold["grasp"]["mean_bits"] == wanted != plain["grasp"]["mean_bits"]
    assert cold["snip"]["mean_bits"] == plain["snip"]["mean_bits"]
    assert (cold["grasp"]["options"], cold["snip"]["options"]) == ({"temperature": 1}, {})
    printed = run(*COMMAND, *options[:-1], "--option", "temperature=1", capsys=capsys)[1]
    assert re.search(r"options of grasp +temperature=1$", printed, re.MULTILINE)


def test_bits_per_weight(capsys):
    options = ("--method", "snip", "--bits-per-weight", "2.5", "--json")
    found = json.loads(run(*COMMAND, *options, capsys=capsys)[1])["methods"]["snip"]
    for k, bits in enumerate(found["mean_bits"]):
        assert found["mean_effective_parameters"][k] == pytest.approx(bits + 2.5 * (21 - k))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--method", "lottery"), "method must be one of"),
        (("--loss", "hinge"), "loss must be one of 'cross_entropy', 'logistic', 'mse'"),
        (("--init", "zeros"), "init must be one of"),
        (("--lr", "0"), "lr must be positive and finite, got 0.0"),
        (("--width", "13"), "P must be in 1…62, the bits of a code word, got 66"),
        (("--method", "grasp", "--option", "heat=1"), "--option must be among temperature"),
        (
            ("--method", "imp", "--option", "temperature=1"),
            "--option must be left out for imp, got",
        ),
        (("--method", "grasp", "--option", "temperature"), "--option must be KEY=VALUE"),
        (("--method", "grasp", "--option", "bn=train"), "--option must be among temperature"),
        (("--seeds", "0"), "Input should be greater than or equal to 1"),
        (("--width", "0"), "Input should be greater than or equal to 1"),
    ],
)
def test_wrong_input_is_one_line(arguments, text, capsys):
    assert text in complaint_of(*COMMAND, *arguments, capsys=capsys)


def test_divergence_is_an_error_or_left_open(capsys):
    wild = ("--steps", "300", "--lr", "1", "--method", "magnitude_after")
    assert "must be finite, got NaN or Inf on" in complaint_of(*COMMAND, *wild, capsys=capsys)
    status, printed, _ = run(*COMMAND, *wild, "--diverged", "--json", capsys=capsys)
    found = json.loads(printed)["methods"]["magnitude_after"]["inits"][0]
    assert status == 0
    assert found["near_tie_weight"][0] == 0 < found["near_tie_weight"][1]
    assert found["low_bits"][8] < found["high_bits"][8]
