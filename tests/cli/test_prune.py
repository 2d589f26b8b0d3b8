"""The command ``ntktheory prune``: its masks, its report, and how it complains."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntktheory.cli.shared import DRAWS
from ntktheory.data import digits
from ntktheory.models import build_model
from ntktheory.pruning import load_masks, mask_health, mask_notes, prune
from tests.cli.shared import complaint_of, run

SMALL = ["--batch", "4", "--arg", "hidden=5,4", "--seed", "2", "--dtype", "float64"]
WEIGHTS = 64 * 5 + 5 * 4 + 4 * 10


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def small():
    options = {"hidden": [5, 4], "dtype": torch.float64}
    return build_model("mlp", (1, 8, 8), generator=seeded(2), **options)


def expected(scorer, density, **given):
    return prune(
        small(), scorer, density, batch=digits(4, dtype=torch.float64), input_shape=[1, 8, 8],
        generator=seeded(2 + DRAWS), **given,
    )  # fmt: skip


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def json_of(*arguments, capsys):
    status, printed, err = run(*arguments, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(printed)


@pytest.mark.parametrize(
    ("scorer", "arguments", "given"),
    [
        ("px", ["--rounds", "3"], {"rounds": 3}),
        ("snip", [], {}),
        ("random", ["--budget", "erk"], {"budget": "erk"}),
        ("ntk_sap", ["--rounds", "2", "--schedule", "linear"], {"rounds": 2, "schedule": "linear"}),
        ("magnitude", ["--floor", "7"], {"floor": 7}),
        ("synflow_l2", ["--option", "power=1", "--rounds", "2"], {"power": 1, "rounds": 2}),
    ],
)
def test_masks_and_record_are_those_of_the_function(scorer, arguments, given, tmp_path, capsys):
    file = tmp_path / "m.safetensors"
    command = ["prune", scorer, "--density", "0.2", *SMALL, *arguments, "--out", str(file)]
    printed = json_of(*command, capsys=capsys)
    wanted = expected(scorer, 0.2, **given)
    assert same(load_masks(file), wanted.masks)
    assert printed["density"] == wanted.density == round(0.2 * WEIGHTS) / WEIGHTS
    assert printed["rounds"] == len(printed["history"]) == len(wanted.history)
    assert printed["history"][-1]["threshold"] == wanted.history[-1].threshold
    health = mask_health(small(), wanted.masks, input_shape=[1, 8, 8])
    for name, mask in wanted.masks.items():
        layer = printed["layers"][name]
        assert (layer["kept"], layer["density"]) == (int(mask.sum()), wanted.per_layer[name])
        assert layer["live"] == int(health.live[name].sum())
        assert layer["outputs"] - layer["dead_outputs"] == health.widths[name]
    assert printed["health"]["effective_density"] == health.effective_density
    notes = mask_notes(file)
    assert (notes["scorer"], notes["density"], notes["seed"]) == (scorer, wanted.density, 2)
    assert notes["options"] == printed["options"] == wanted.settings["options"]
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_other_commands_read_the_masks(tmp_path, capsys):
    file = str(tmp_path / "m.safetensors")
    printed = json_of("prune", "px", "--density", "0.3", *SMALL, "--out", file, capsys=capsys)
    arguments = ["--samples", "4", "--arg", "hidden=5,4", "--seed", "2", "--masks", file]
    assert json_of("bounds", *arguments, capsys=capsys)["density"] == printed["density"]


@pytest.mark.parametrize(
    "arguments", [["--density", "0.05"], ["--sparsity", "0.95"], ["--compression", "20"]]
)
def test_three_ways_to_say_it(arguments, capsys):
    printed = json_of("prune", "magnitude", *arguments, *SMALL, capsys=capsys)
    assert printed["density"] == 19 / WEIGHTS


def test_a_budget_from_masks(tmp_path, capsys):
    file = tmp_path / "m.safetensors"
    masks = expected("px", 0.2, rounds=2).masks
    save_file(masks, file)
    command = ["prune", "random", "--density", "0.2", *SMALL, "--budget", str(file)]
    printed = json_of(*command, capsys=capsys)
    kept = {name: layer["kept"] for name, layer in printed["layers"].items()}
    assert kept == {name: int(mask.sum()) for name, mask in masks.items()}
    assert printed["budget"] == str(file)


def test_masks_to_start_from(tmp_path, capsys):
    first, out = tmp_path / "first.safetensors", tmp_path / "m.safetensors"
    masks = expected("random", 0.5).masks
    save_file(masks, first)
    command = ["prune", "px", "--density", "0.2", "--rounds", "2", *SMALL, "--masks", str(first)]
    printed = json_of(*command, "--out", str(out), capsys=capsys)
    found = load_masks(out)
    assert same(found, expected("px", 0.2, rounds=2, masks=masks).masks)
    assert all(bool((found[name] <= mask).all()) for name, mask in masks.items())
    assert not same(found, expected("px", 0.2, rounds=2).masks)
    assert printed["density"] == round(0.2 * WEIGHTS) / WEIGHTS
    assert printed["first_masks"] == mask_notes(out)["first_masks"] == str(first)
    command[command.index("0.2")] = "0.6"
    assert "density must be at most 0.5, what the first masks keep" in complaint_of(
        *command, capsys=capsys
    )


def test_the_table(capsys):
    command = ["prune", "px", "--density", "0.2", "--rounds", "2", *SMALL]
    status, printed, err = run(*command, capsys=capsys)
    assert (status, err) == (0, "")
    wanted = expected("px", 0.2, rounds=2)
    health = mask_health(small(), wanted.masks, input_shape=[1, 8, 8])
    rows = [line.split() for line in printed.splitlines() if line.startswith("layer")]
    assert rows[0] == ["layer", "weights", "kept", "density", "live", "outputs", "dead", "outputs"]
    for row, (name, layer) in zip(rows[1:], health.layers.items(), strict=True):
        assert row == [
            name, str(layer.weights), str(layer.kept), f"{wanted.per_layer[name]:.4g}",
            str(layer.live), str(layer.outputs), str(layer.dead_outputs),
        ]  # fmt: skip
    assert f"paths              10^{health.log10_paths:.2f}" in printed
    assert f"effective density  {health.effective_density:.6g}" in printed
    assert "collapsed          no layer" in printed


def test_a_collapsed_network(tmp_path, capsys):
    """All of the budget in one layer leaves no path."""
    masks = {
        "layer1.weight": torch.ones(5, 64), "layer2.weight": torch.zeros(4, 5),
        "layer3.weight": torch.ones(10, 4),
    }  # fmt: skip
    save_file(masks, tmp_path / "m.safetensors")
    command = [
        "prune",
        "random",
        "--density",
        "0.1",
        *SMALL,
        "--budget",
        str(tmp_path / "m.safetensors"),
    ]
    found = json_of(*command, capsys=capsys)["health"]
    assert found == {"log10_paths": None, "effective_density": 0.0, "collapsed": ["layer2.weight"]}
    printed = run(*command, capsys=capsys)[1]
    assert "paths              none" in printed
    assert "collapsed          layer2.weight" in printed


def test_a_network_without_path_rules_is_pruned_without_health(capsys):
    command = ["prune", "magnitude", "--density", "0.5", "--model", "tests.cli.shared:attending"]
    printed = json_of(*command, "--batch", "2", capsys=capsys)
    assert "made of functions with a path rule" in printed["health"]["refused"]
    assert printed["density"] == 0.5
    text = run(*command, "--batch", "2", capsys=capsys)[1]
    assert "live" not in text
    assert "health  model" in text


def test_a_run_is_continued(tmp_path, capsys):
    run_file, file = tmp_path / "run.safetensors", tmp_path / "m.safetensors"
    command = ["prune", "ntk_sap", "--density", "0.2", "--rounds", "3", *SMALL]
    command += ["--resume", str(run_file)]
    first = json_of(*command, capsys=capsys)
    again = json_of(*command, "--out", str(file), capsys=capsys)
    assert again["history"] == first["history"]
    assert same(load_masks(file), expected("ntk_sap", 0.2, rounds=3).masks)
    error = complaint_of(*command, "--floor", "2", capsys=capsys)
    assert "resume must be a file of this run" in error
    assert "with floor 0 for 2" in error


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("Missing argument 'SCORER'", []),
        ("--density must be given once", ["px"]),
        ("got --density and --sparsity", ["px", "--density", "0.1", "--sparsity", "0.9"]),
        ("density must be a fraction in (0, 1], got 0", ["px", "--density", "0"]),
        ("density must be a fraction in (0, 1], got 1.5", ["px", "--density", "1.5"]),
        ("density must be at least", ["px", "--density", "1e-9"]),
        ("--sparsity must be a fraction in [0, 1), got 1", ["px", "--sparsity", "1"]),
        ("--sparsity must be a fraction in [0, 1), got 95", ["px", "--sparsity", "95"]),
        ("--compression must be at least 1, got 0.5", ["px", "--compression", "0.5"]),
        ("--compression must be at least 1, got 0", ["px", "--compression", "0"]),
        ("--compression must be at least 1, got nan", ["px", "--compression", "nan"]),
        ("density must be a fraction in (0, 1], got 0.0", ["px", "--compression", "inf"]),
        ("scorer must be one of", ["pxx", "--density", "0.1"]),
        ("schedule must be one of", ["px", "--density", "0.1", "--schedule", "cosine"]),
        ("budget must be one of", ["px", "--density", "0.1", "--budget", "layer"]),
        ("no such file", ["px", "--density", "0.1", "--budget", "none.safetensors"]),
        ("no such file", ["px", "--density", "0.1", "--masks", "none.safetensors"]),
        ("floor must be affordable", ["px", "--density", "0.1", "--floor", "9999"]),
        ("'--rounds'", ["px", "--density", "0.1", "--rounds", "0"]),
        ("labels must be classes", ["grasp", "--density", "0.1", "--arg", "outputs=5"]),
        ("--option of 'px' must be left out", ["px", "--density", "0.1", "--option", "power=2"]),
        (
            "--out must be a file ending in .safetensors",
            ["px", "--density", "0.1", "--out", "m.pt"],
        ),
        (
            "--resume must be a file in an existing",
            ["px", "--density", "0.1", "--resume", "no/r.safetensors"],
        ),
        (
            "--resume must be another file than --out",
            ["px", "--density", "0.1", "--out", "m.safetensors", "--resume", "m.safetensors"],
        ),
    ],
)
def test_bad_input_is_one_line(text, arguments, capsys):
    assert text in complaint_of("prune", *arguments, capsys=capsys)


def test_a_failed_run_leaves_nothing(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.full((2, 64), np.nan))
    out = tmp_path / "m.safetensors"
    command = [
        "prune",
        "px",
        "--density",
        "0.1",
        "--data",
        str(tmp_path / "x.npy"),
        "--out",
        str(out),
    ]
    assert "finite" in complaint_of(*command, capsys=capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_the_conversion_is_exact_enough():
    from ntktheory.cli.shared import read_density

    assert read_density(0.1, None, None) == 0.1
    assert read_density(None, 0.0, None) == 1.0
    assert math.isclose(read_density(None, 0.98, None), 0.02)
    assert read_density(None, None, 4.0) == 0.25
