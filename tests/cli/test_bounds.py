"""The command ``ntktheory bounds``: what it prints, writes, and how it complains."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntktheory import PathBounds, empirical_ntk, path_bounds
from ntktheory.cli import bounds
from ntktheory.cli.ladder_plot import Rung, draw_ladder
from ntktheory.data import digits
from ntktheory.models import build_model
from tests.cli.shared import complaint_of, run

SMALL = ["bounds", "--samples", "4", "--arg", "hidden=5,4", "--arg", "outputs=3", "--seed", "2"]
KINDS = ("upper", "surrogate", "lower", "exact")


def small(name="mlp", **options):
    options = options or {"hidden": [5, 4], "outputs": 3}
    generator = torch.Generator().manual_seed(2)
    return build_model(name, (1, 8, 8), generator=generator, dtype=torch.float64, **options)


def inputs(count=4):
    return digits(count, dtype=torch.float64)[0]


def half(net):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in net.named_parameters()
    }


def rows(printed):
    """Return the rows of the table, split into cells."""
    lines = [line.split() for line in printed.splitlines()]
    return [cells for cells in lines if len(cells) > 1 and cells[1] in KINDS]


def json_of(*arguments, capsys):
    status, printed, err = run(*arguments, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(printed)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("masked", [False, True])
def test_json_holds_exactly_the_values_of_path_bounds(name, masked, tmp_path, capsys):
    options = {"outputs": 3}
    net = small(name, **options)
    masks = half(net) if masked else None
    arguments = ["bounds", "--model", name, "--arg", "outputs=3", "--seed", "2", "--samples", "4"]
    if masks:
        save_file(masks, tmp_path / "m.safetensors")
        arguments += ["--masks", str(tmp_path / "m.safetensors")]
    printed = json_of(*arguments, capsys=capsys)
    expected = path_bounds(net, inputs(), masks=masks)
    assert printed["upper"] == dict(expected.upper)
    assert printed["lower"] == dict(expected.lower)
    assert printed["t_sq"] == expected.t_sq
    assert printed["trace"] == expected.trace
    assert printed["kinks"] == expected.kinks
    assert {"edge", "px"} <= set(printed["upper"])
    assert set(printed["seconds"]) == {*expected.seconds, "trace"}
    kept = sum(int(m.sum()) for m in masks.values()) if masks else None
    total = sum(p.numel() for p in net.parameters())
    assert printed["density"] == (None if kept is None else kept / total)
    assert printed["data"] == "digits, 4 samples"


def test_the_trace_is_that_of_the_kernel(capsys):
    printed = json_of(*SMALL, capsys=capsys)
    trace = empirical_ntk(small(), inputs(), output="trace").trace()
    assert printed["trace"] == pytest.approx(float(trace), rel=1e-12)


def test_masks_of_bytes_are_those_of_truths(tmp_path, capsys):
    masks = half(small())
    save_file({k: m.to(torch.uint8) for k, m in masks.items()}, tmp_path / "m.safetensors")
    printed = json_of(*SMALL, "--masks", str(tmp_path / "m.safetensors"), capsys=capsys)
    assert printed["upper"] == dict(path_bounds(small(), inputs(), masks=masks).upper)


def test_density_counts_prunable_weights(tmp_path, capsys):
    # 64·2 + 2·3 weights; biases are no prunable weights, and what has no mask is kept.
    mask = torch.zeros(2, 64, dtype=torch.bool)
    mask[:, :32] = True
    save_file({"layer1.weight": mask}, tmp_path / "m.safetensors")
    arguments = ["--arg", "hidden=2", "--arg", "outputs=3", "--arg", "bias=true", "--samples", "2"]
    masks = ["--masks", str(tmp_path / "m.safetensors")]
    printed = json_of("bounds", *arguments, *masks, capsys=capsys)
    assert printed["density"] == (64 + 6) / (128 + 6)


def test_the_table(capsys):
    status, printed, _ = run(*SMALL, capsys=capsys)
    expected = path_bounds(small(), inputs())
    assert status == 0
    table = rows(printed)
    assert [row[1] for row in table] == sorted((row[1] for row in table), key=KINDS.index)
    values = {**expected.upper, **expected.lower, "t_sq": expected.t_sq, "trace": expected.trace}
    assert {row[0]: row[2] for row in table} == {k: f"{v:.6g}" for k, v in values.items()}
    for name, kind, _, ratio, seconds in table:
        assert float(ratio) == pytest.approx(values[name] / expected.trace, rel=1e-3)
        assert float(seconds) >= 0
        assert kind != "upper" or float(ratio) >= 1
        assert kind != "lower" or float(ratio) <= 1
    for kind in ("upper", "lower"):
        of_kind = [float(row[2]) for row in table if row[1] == kind]
        assert of_kind == sorted(of_kind, reverse=True)
        assert len(of_kind) > 1


def test_named_bounds_only(capsys):
    printed = json_of(*SMALL, "--names", "edge, last_layer", capsys=capsys)
    assert (list(printed["upper"]), list(printed["lower"])) == (["edge"], ["last_layer"])
    assert printed["t_sq"] is None
    table = rows(run(*SMALL, "--names", "t_sq,px", capsys=capsys)[1])
    assert [row[:2] for row in table] == [
        ["px", "upper"],
        ["t_sq", "surrogate"],
        ["trace", "exact"],
    ]


def test_without_the_trace_it_is_not_computed(capsys, monkeypatch):
    def fail(_):
        raise AssertionError("computed")

    monkeypatch.setattr(PathBounds, "trace", property(fail))
    printed = json_of(*SMALL, "--no-trace", capsys=capsys)
    assert printed["trace"] is None
    assert "trace" not in printed["seconds"]
    table = run(*SMALL, "--no-trace", capsys=capsys)[1]
    assert "÷ trace" not in table
    assert {len(row) for row in rows(table)} == {4}
    assert "exact" not in table


def test_kinks_are_shown_where_there_are_any(tmp_path, capsys):
    assert "kinks" not in run("bounds", "--samples", "2", capsys=capsys)[1]
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    arguments = ["bounds", "--arg", "hidden=5", "--data", str(tmp_path / "x.npy")]
    printed = json_of(*arguments, capsys=capsys)
    assert printed["kinks"] == 2 * 5
    assert "kinks  10" in run(*arguments, capsys=capsys)[1]


def test_a_dead_network(tmp_path, capsys):
    arguments = ["bounds", "--model", "tests.cli.shared:dead", "--samples", "2"]
    assert json_of(*arguments, capsys=capsys)["trace"] == 0
    plot = ["--plot", str(tmp_path / "b.svg")]
    status, printed, err = run(*arguments, *plot, capsys=capsys)
    assert (status, err) == (0, "")
    assert {row[3] for row in rows(printed)} == {"–"}
    assert "the exact trace is 0" in (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_plot_is_written(suffix, tmp_path, capsys):
    file = tmp_path / f"b.{suffix}"
    printed = json_of(*SMALL, "--plot", str(file), capsys=capsys)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert file.read_bytes().startswith(starts[suffix])
    assert file.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    assert printed["plot"] == str(file)


def test_the_plot_names_every_bound_with_its_ratio(tmp_path, capsys):
    file = tmp_path / "b.svg"
    printed = json_of(*SMALL, "--plot", str(file), capsys=capsys)
    text = file.read_text()
    for name, value in {**printed["upper"], **printed["lower"], "t_sq": printed["t_sq"]}.items():
        assert f"<!-- {name} -->" in text
        assert f"<!-- {value / printed['trace']:.3g} -->" in text
    for label in ("upper bound", "lower bound", "surrogate, no bound", "exact trace"):
        assert text.count(f"<!-- {label} -->") == 1
    assert "<!-- mlp on digits, 4 samples -->" in text
    assert text.index("<!-- px -->") < text.index("<!-- edge -->") < text.index("<!-- euler -->")


def test_the_plot_without_a_trace_shows_the_values(tmp_path, capsys):
    file = tmp_path / "b.svg"
    printed = json_of(*SMALL, "--no-trace", "--plot", str(file), capsys=capsys)
    text = file.read_text()
    assert f"<!-- {printed['upper']['edge']:.3g} -->" in text
    assert "<!-- bound on the trace -->" in text
    assert "exact trace" not in text


def test_what_a_log_axis_cannot_show_is_said(tmp_path):
    rungs = [Rung("px", "upper", 1e300), Rung("edge", "upper", 2.0), Rung("euler", "lower", 0.0)]
    draw_ladder(tmp_path / "b.svg", rungs, 1e-9, "extremes")
    text = (tmp_path / "b.svg").read_text()
    assert "<!-- inf -->" in text
    assert "<!-- 2e+09 -->" in text
    assert "<!-- 0 (off the axis) -->" in text


def test_a_failed_plot_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    file = tmp_path / "b.png"
    file.write_bytes(b"old")

    def broken(path, *_):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(bounds, "draw_ladder", broken)
    assert "no space left" in complaint_of(*SMALL, "--plot", str(file), capsys=capsys)
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]


@pytest.mark.parametrize("names", [[], ["--names", "edge"]])
def test_a_network_without_path_rules_is_refused(names, tmp_path, capsys):
    plot = tmp_path / "b.png"
    arguments = ["bounds", "--model", "tests.cli.shared:smooth", *names, "--plot", str(plot)]
    error = complaint_of(*arguments, "--samples", "2", capsys=capsys)
    assert "gelu" in error.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("--model must be one of mlp, convnet", ["--model", "vgg"]),
        ("--data must be one of digits", ["--data", "mnist"]),
        ("names must be one of", ["--names", "pxx"]),
        ("names must be one of", ["--names", "px,,edge"]),
        ("names must be one of", ["--names", ""]),
        ("'--samples'", ["--samples", "0"]),
        ("'--seed'", ["--seed", "-1"]),
        ("--plot must be a file ending in .png or .svg or .pdf", ["--plot", "b.jpg"]),
        ("--plot must be a file in an existing folder", ["--plot", "no/such/folder/b.png"]),
        ("No such option: --dtype", ["--dtype", "float32"]),
    ],
)
def test_bad_input_is_one_line(text, arguments, capsys):
    assert text in complaint_of("bounds", *arguments, capsys=capsys)


def test_a_wrong_name_lists_the_right_ones(capsys):
    error = complaint_of(*SMALL, "--names", "pxx", capsys=capsys)
    assert all(repr(name) in error for name in path_bounds(small(), inputs()).upper)


@pytest.mark.parametrize(
    ("text", "masks"),
    [
        ("masks must be named like the parameters", {"layer9.weight": torch.ones(4, 5)}),
        (r"masks['layer2.weight'] must be of shape [4, 5]", {"layer2.weight": torch.ones(5, 4)}),
        (
            "masks['layer2.weight'] must be made of 0 and 1",
            {"layer2.weight": torch.full((4, 5), 2, dtype=torch.uint8)},
        ),
        ("--masks must be a file of masks", {}),
    ],
)
def test_masks_that_do_not_fit(text, masks, tmp_path, capsys):
    save_file(masks, tmp_path / "m.safetensors")
    plot = ["--plot", str(tmp_path / "b.png")]
    file = ["--masks", str(tmp_path / "m.safetensors")]
    assert text in complaint_of(*SMALL, *file, *plot, capsys=capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_masks_that_cannot_be_read(tmp_path, capsys):
    missing = ["--masks", str(tmp_path / "none.safetensors")]
    assert "none.safetensors (no such file)" in complaint_of(*SMALL, *missing, capsys=capsys)
    torch.save({"layer2.weight": torch.ones(4, 5)}, tmp_path / "m.pt")
    for name in ("m.pt", ""):
        other = ["--masks", str(tmp_path / name)]
        assert "a readable safetensors file" in complaint_of(*SMALL, *other, capsys=capsys)
