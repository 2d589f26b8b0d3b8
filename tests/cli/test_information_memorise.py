"""``ntktheory information memorise``."""

import json

import pytest
import torch

from ntktheory.information.memorization import (
    Training,
    masks_of,
    memorised,
    noisy_image_pack,
    random_label_pack,
)
from tests.cli.shared import complaint_of, run

MEMORISE = ("information", "memorise", "--seeds", "2", "--width", "12", "--epochs", "40")
IMP = (
    "information", "memorise", "--seeds", "4", "--width", "12", "--epochs", "25", "--method", "imp",
    "--density", "0.6", "--json",
)  # fmt: skip
DIGITS = (*MEMORISE, "--data", "digits")


@pytest.fixture(scope="module")
def by_default():
    """Return what IMP memorises with all options left out."""
    pack, training = random_label_pack(range(4), width=12, init="torch"), Training(epochs=25)
    found = memorised(pack, masks_of(pack, "imp", [0.6], training)[0.6], training)
    return (found.counts / 30).tolist()


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


@pytest.mark.parametrize(
    ("arguments", "pack", "training", "more"),
    [
        (("--samples", "20"), {"samples": 20}, {}, {}),
        (("--dim", "9"), {"dim": 9}, {}, {}),
        (("--layers", "1"), {"hidden_layers": 1}, {}, {}),
        (("--init", "he"), {"init": "he"}, {}, {}),
        (("--batch", "7"), {}, {"batch": 7}, {}),
        (("--lr", "0.003"), {}, {"lr": 0.003}, {}),
        (("--schedule", "cosine"), {}, {"schedule": "cosine"}, {}),
        (
            ("--optimizer", "sgd", "--momentum", "0.0"),
            {},
            {"optimizer": "sgd", "momentum": 0.0},
            {},
        ),
        (("--stop", "level", "--tolerance", "0.6"), {}, {"stop": "level", "tolerance": 0.6}, {}),
        (("--stop", "change", "--patience", "1"), {}, {"stop": "change", "patience": 1}, {}),
        (
            ("--stop", "level", "--tolerance", "0.6", "--patience", "0", "--look-every", "16"),
            {},
            {"stop": "level", "tolerance": 0.6, "patience": None, "look_every": 16},
            {},
        ),
        (("--drop", "0.7"), {}, {}, {"drop": 0.7}),
        (("--budget", "uniform"), {}, {}, {"budget": "uniform"}),
        (("--threshold", "0.3"), {}, {}, {"threshold_nats": 0.3}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_choices_reach_the_library_and_change_what_is_found(
    arguments, pack, training, more, by_default, capsys
):
    status, printed, _ = run(*IMP, *arguments, capsys=capsys)
    assert status == 0
    found = json.loads(printed)["memorised"]["imp"][0]
    data = random_label_pack(range(4), **({"width": 12, "init": "torch"} | pack))
    how = Training(**({"epochs": 25} | training))
    threshold = {k: v for k, v in more.items() if k == "threshold_nats"}
    choice = {k: v for k, v in more.items() if k not in threshold}
    wanted = memorised(data, masks_of(data, "imp", [0.6], how, **choice)[0.6], how, **threshold)
    assert found == pytest.approx((wanted.counts / wanted.samples).tolist())
    assert found != by_default


def test_rounds_of_a_scorer(capsys):
    options = ("--method", "snip", "--density", "0.1", "--rounds", "5", "--json")
    found = json.loads(run(*MEMORISE, *options, capsys=capsys)[1])
    pack, training = random_label_pack(range(2), width=12, init="torch"), Training(epochs=40)
    masks, once = (
        masks_of(pack, "snip", [0.1], training, rounds=rounds)[0.1] for rounds in (5, None)
    )
    assert any(not torch.equal(masks[name], once[name]) for name in masks)
    wanted = memorised(pack, masks, training).counts / 30
    assert found["memorised"]["snip"] == [pytest.approx(wanted.tolist())]
    assert found["rounds"] == 5


def test_noise_on_images_counts(capsys):
    options = ("--data", "digits", "--images", "40", "--method", "random", "--density", "1")
    found = [
        json.loads(run(*MEMORISE, *options, *more, "--lr", "0.03", "--json", capsys=capsys)[1])
        for more in (("--noise-variance", "0"), ("--noise-variance", "900"))
    ]
    assert [each["noise_variance"] for each in found] == [0, 900]
    assert found[0]["memorised"] != found[1]["memorised"]


def test_settings_without_effect_are_not_listed(capsys):
    options = ("--method", "random", "--density", "0.5", "--json")
    found = json.loads(run(*MEMORISE, *options, capsys=capsys)[1])
    for name in ("momentum", "tolerance", "patience", "look_every", "drop", "budget"):
        assert name not in found
    assert (found["schedule"], found["batch"], found["layers"]) == ("constant", None, 2)


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
        ((*MEMORISE, "--lr", "0"), "lr must be positive and finite, got 0.0"),
        ((*IMP, "--drop", "1"), "drop must be inside (0, 1), got 1.0"),
        ((*IMP, "--budget", "erk"), "budget must be one of 'global', 'uniform'"),
        ((*IMP, "--schedule", "linear"), "schedule must be one of 'constant', 'cosine'"),
        ((*IMP, "--threshold", "0"), "threshold_nats must be positive and finite, got 0.0"),
        ((*IMP, "--optimizer", "sgd", "--momentum", "1"), "momentum must be in [0, 1), got 1.0"),
        (
            (*IMP, "--stop", "level", "--tolerance", "-1"),
            "tolerance must be finite and not negative",
        ),
        ((*MEMORISE, "--noise-variance", "-1"), "--noise-variance must be left out without a data"),
        ((*MEMORISE, "--images", "40"), "--images must be left out without a data set, got 40"),
        ((*MEMORISE, "--data-dir", "x"), "--data-dir must be left out without a data set, got x"),
        ((*DIGITS, "--data-dir", "x"), "--data-dir must be left out for digits"),
        ((*DIGITS, "--samples", "9"), "--samples must be left out for a data set, got 9"),
        ((*DIGITS, "--dim", "9"), "--dim must be left out for a data set"),
        ((*MEMORISE, "--drop", "0.5"), "--drop must be left out without imp, got 0.5"),
        (
            (*MEMORISE, "--method", "snip", "--budget", "uniform"),
            "--budget must be left out without",
        ),
        ((*IMP, "--rounds", "5"), "--rounds must be left out without a scorer"),
        ((*IMP, "--momentum", "0.5"), "--momentum must be left out for adam"),
        ((*IMP, "--tolerance", "0"), "--tolerance must be left out where all steps are taken"),
        ((*IMP, "--patience", "0"), "--patience must be left out where all steps are taken"),
        ((*IMP, "--look-every", "2"), "--look-every must be left out where all steps are taken"),
    ],
)
def test_wrong_input_is_one_line(arguments, text, capsys):
    assert text in complaint_of(*arguments, capsys=capsys)
