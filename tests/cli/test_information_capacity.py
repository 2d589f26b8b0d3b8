"""``ntktheory information memorise`` and ``noise``."""

import json

import pytest

from ntktheory.information.memorization import (
    Training,
    masks_of,
    memorised,
    noisy_image_pack,
    random_label_pack,
)
from ntktheory.information.noise_correlation import student_teacher, track_noise
from tests.cli.shared import complaint_of, run

MEMORISE = ("information", "memorise", "--seeds", "2", "--width", "12", "--epochs", "40")
NOISE = ("information", "noise", "--samples", "64", "--epochs", "4", "--every", "2")


def test_memorise_is_the_library_s(capsys):
    options = ("--method", "snip", "--method", "imp", "--density", "0.3", "--json")
    status, printed, _ = run(*MEMORISE, *options, capsys=capsys)
    assert status == 0
    found = json.loads(printed)
    pack, training = random_label_pack(range(2), width=12, init="torch"), Training(epochs=40)
    for method in ("snip", "imp"):
        masks = masks_of(pack, method, [0.3], training)[0.3]
        wanted = memorised(pack, masks, training).counts / 30
        assert found["memorised"][method] == [pytest.approx(wanted.tolist())]
    assert (found["samples"], found["dimensions"], found["stop"]) == (30, 30, "steps")


def test_memorise_images(capsys):
    options = ("--data", "digits", "--images", "40", "--method", "random", "--density", "0.5")
    status, printed, _ = run(*MEMORISE, *options, "--json", capsys=capsys)
    assert status == 0
    found = json.loads(printed)
    from ntktheory.data import load_data

    pack = noisy_image_pack(*load_data("digits", 40), range(2), widths=[12, 12], init="torch")
    training = Training(lr=1e-3, batch=64, epochs=40, stop="level")
    masks = masks_of(pack, "random", [0.5], training)[0.5]
    wanted = memorised(pack, masks, training).counts / 40
    assert found["memorised"]["random"] == [pytest.approx(wanted.tolist())]


def test_memorise_prints_a_table(capsys):
    status, printed, _ = run(*MEMORISE, "--method", "random", "--density", "0.5", capsys=capsys)
    assert status == 0
    assert printed.splitlines()[-1].split()[0] == "0.5"
    assert "±" in printed


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
    assert [line.split()[0] for line in printed.splitlines()] == ["epoch", "0", "2", "4"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((*MEMORISE, "--method", "lottery"), "method must be one of"),
        ((*MEMORISE, "--init", "zeros"), "init must be one of 'he', 'torch'"),
        ((*MEMORISE, "--stop", "never"), "stop must be one of"),
        ((*MEMORISE, "--optimizer", "lbfgs"), "optimizer must be one of"),
        ((*MEMORISE, "--density", "1.5"), "density must be a fraction in (0, 1]"),
        (
            (*MEMORISE, "--data", "digits", "--noise-variance", "-1"),
            "noise_variance must be finite and not negative",
        ),
        (
            (*MEMORISE, "--data", "fashion_mnist", "--data-dir", "nowhere"),
            "data_dir must be a folder that holds fashion_mnist/",
        ),
        ((*NOISE, "--noise-variance", "0"), "noise_variance must be positive"),
        ((*NOISE, "--noise-unit", "percent"), "noise_unit must be one of"),
        ((*NOISE, "--go-on", "again"), "go_on must be one of"),
    ],
)
def test_wrong_input_is_one_line(arguments, text, capsys):
    assert text in complaint_of(*arguments, capsys=capsys)
