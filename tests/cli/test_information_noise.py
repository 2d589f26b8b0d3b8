"""``ntktheory information noise``."""

import json

import pytest

from ntktheory.information.noise_correlation import student_teacher, track_noise
from tests.cli.shared import complaint_of, run

NOISE = ("information", "noise", "--samples", "64", "--epochs", "4", "--every", "2")
SMALL = (
    "information", "noise", "--samples", "24", "--dim", "6", "--student", "8,7", "--teacher", "5",
    "--fresh", "20", "--epochs", "4", "--every", "2", "--batch", "8", "--json",
)  # fmt: skip
TASK = {"samples": 24, "dim": 6, "student": [8, 7], "teacher": [5], "fresh": 20}
TRAINING = {"epochs": 4, "every": 2, "batch": 8}


def test_noise_is_the_library_s(capsys):
    status, printed, _ = run(*NOISE, "--prune-every", "2", "--json", capsys=capsys)
    assert status == 0
    found = json.loads(printed)
    curve = track_noise(student_teacher(range(2), samples=64), epochs=4, prune_every=2, every=2)
    assert found["epochs"] == [0, 2, 2, 4]
    assert found["prunings"] == [2]
    for mine, row in zip(found["values"], curve.values.tolist(), strict=True):
        assert mine == pytest.approx(row, rel=1e-4, abs=1e-6)


def test_noise_prints_a_table(capsys):
    status, printed, _ = run(*NOISE, capsys=capsys)
    assert status == 0
    assert [line.split()[0] for line in printed.splitlines()[-4:]] == ["epoch", "0", "2", "4"]
    assert printed.startswith("samples         64\ndim             50\nstudent         100 × 100")


@pytest.mark.parametrize(
    ("arguments", "task", "training"),
    [
        (("--samples", "20"), {"samples": 20}, {}),
        (("--dim", "5"), {"dim": 5}, {}),
        (("--student", "9"), {"student": [9]}, {}),
        (("--teacher", "4, 4"), {"teacher": [4, 4]}, {}),
        (("--fresh", "30"), {"fresh": 30}, {}),
        (("--init", "he"), {"init": "he"}, {}),
        (("--noise-variance", "2"), {"noise_variance": 2.0}, {}),
        (("--optimizer", "sgd"), {}, {"optimizer": "sgd"}),
        (("--lr", "0.02"), {}, {"lr": 0.02}),
        (("--batch", "5"), {}, {"batch": 5}),
        (("--gradient-noise", "0.5"), {}, {"gradient_noise": 0.5}),
        (
            ("--gradient-noise", "0.5", "--noise-unit", "relative"),
            {},
            {"gradient_noise": 0.5, "noise_unit": "relative"},
        ),
        (("--prune-every", "2"), {}, {"prune_every": 2}),
        (("--prune-every", "2", "--drop", "0.7"), {}, {"prune_every": 2, "drop": 0.7}),
        (("--prune-every", "2", "--go-on", "init"), {}, {"prune_every": 2, "go_on": "init"}),
        (("--every", "1"), {}, {"every": 1}),
        (("--epochs", "6"), {}, {"epochs": 6}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_choices_reach_the_library_and_change_what_is_found(arguments, task, training, capsys):
    _, default, _ = run(*SMALL, capsys=capsys)
    status, printed, _ = run(*SMALL, *arguments, capsys=capsys)
    assert status == 0
    found = json.loads(printed)
    curve = track_noise(student_teacher(range(2), **(TASK | task)), **(TRAINING | training))
    assert found["densities"] == pytest.approx(curve.densities)
    assert found["epochs"] == list(curve.epochs)
    for mine, row in zip(found["values"], curve.values.tolist(), strict=True):
        assert mine == pytest.approx(row, rel=1e-4, abs=1e-6)
    assert found["values"] != json.loads(default)["values"]
    for name, value in (task | training).items():
        assert found["settings"][name] == value


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--noise-variance", "0"), "noise_variance must be positive"),
        (("--gradient-noise", "1", "--noise-unit", "percent"), "noise_unit must be one of"),
        (("--gradient-noise", "-1"), "gradient_noise must be finite and not negative"),
        (("--prune-every", "2", "--go-on", "again"), "go_on must be one of"),
        (("--prune-every", "2", "--drop", "0"), "drop must be inside (0, 1), got 0.0"),
        (("--lr", "0"), "lr must be positive and finite, got 0.0"),
        (("--optimizer", "lbfgs"), "optimizer must be one of"),
        (("--init", "zeros"), "init must be one of 'he', 'torch'"),
        (("--student", "8,,7"), "--student must be positive integers with commas, got '8,,7'"),
        (("--teacher", "0"), "--teacher must be positive integers with commas, got '0'"),
        (("--drop", "0.3"), "--drop must be left out where nothing is pruned, got 0.3"),
        (("--go-on", "init"), "--go-on must be left out where nothing is pruned"),
        (("--noise-unit", "relative"), "--noise-unit must be left out without noise on gradients"),
    ],
)
def test_wrong_input_is_one_line(arguments, text, capsys):
    assert text in complaint_of(*NOISE, *arguments, capsys=capsys)
