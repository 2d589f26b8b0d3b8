"""The commands ``ntktheory score`` and ``ntktheory scorers``."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ntktheory.cli.shared import DRAWS
from ntktheory.data import digits
from ntktheory.models import build_model
from ntktheory.pruning import SCORERS, score
from tests.cli.shared import complaint_of, run

SMALL = ["--batch", "4", "--arg", "hidden=5,4", "--seed", "2", "--dtype", "float64"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def small():
    options = {"hidden": [5, 4], "dtype": torch.float64}
    return build_model("mlp", (1, 8, 8), generator=seeded(2), **options)


def json_of(*arguments, capsys):
    status, printed, err = run(*arguments, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(printed)


def expected(scorer, **given):
    return score(
        small(), scorer, batch=digits(4, dtype=torch.float64), input_shape=[1, 8, 8],
        generator=seeded(2 + DRAWS), **given,
    )  # fmt: skip


@pytest.mark.parametrize("scorer", ["px", "snip", "magnitude", "random", "ntk_sap", "synflow"])
def test_the_file_holds_the_scores(scorer, tmp_path, capsys):
    file = tmp_path / "s.safetensors"
    printed = json_of("score", scorer, *SMALL, "--out", str(file), capsys=capsys)
    found, wanted = load_file(file), expected(scorer)
    assert list(printed["layers"]) == list(wanted)
    assert set(found) == set(wanted)
    total = sum(float(s.abs().sum()) for s in wanted.values())
    for name, s in wanted.items():
        assert torch.equal(found[name], s)
        layer = printed["layers"][name]
        assert (layer["weights"], layer["zeros"]) == (s.numel(), int((s == 0).sum()))
        assert layer["minimum"] == float(s.min())
        assert layer["median"] == float(s.median())
        assert layer["maximum"] == float(s.max())
        assert layer["mass"] == pytest.approx(float(s.abs().sum()) / total, rel=1e-12)
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["notes"])["scorer"] == scorer
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]
    seen = scorer in ("px", "snip")
    data = "digits, 4 samples" if seen else "only the shape of digits, 4 samples"
    assert (printed["scorer"], printed["data"]) == (scorer, data)
    assert set(printed["versions"]) == {"python", "ntktheory", "torch", "numpy"}


def test_what_is_seen_of_the_data_depends_on_the_options(capsys):
    for arguments, data in [
        (["--option", "inputs=noise"], "only the shape of digits, 4 samples"),
        (["--option", "inputs=data"], "digits, 4 samples"),
    ]:
        printed = json_of("score", "ntk_sap", *SMALL, *arguments, capsys=capsys)
        assert printed["data"] == data


def test_options_left_at_their_defaults_are_recorded(tmp_path, capsys):
    file = tmp_path / "s.safetensors"
    printed = json_of("score", "grasp", *SMALL, "--out", str(file), capsys=capsys)
    assert printed["options"] == {"temperature": 200.0, "bn": "eval"}
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["notes"])["options"] == printed["options"]


def test_draws_are_not_those_of_the_weights():
    """With one seed for both, random scores would be a function of the weights."""
    weights = small().layer1.weight
    scores = expected("random")["layer1.weight"]
    pairs = torch.stack([weights.detach().flatten(), scores.flatten()])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / 320**0.5
    same = score(small(), "random", generator=seeded(2))["layer1.weight"]
    assert not torch.equal(same, scores)


def test_masks_and_options(tmp_path, capsys):
    masks = {"layer2.weight": torch.rand(4, 5, generator=seeded(0)) < 0.5}
    save_file(masks, tmp_path / "m.safetensors")
    arguments = ["--masks", str(tmp_path / "m.safetensors"), "--option", "power=1"]
    printed = json_of("score", "synflow_l2", *SMALL, *arguments, capsys=capsys)
    wanted = expected("synflow_l2", masks=masks, power=1)
    assert printed["options"] == {"power": 1}
    for name, s in wanted.items():
        assert printed["layers"][name]["maximum"] == float(s.max())
    assert printed["layers"]["layer2.weight"]["zeros"] >= int((~masks["layer2.weight"]).sum())
    other = json_of("score", "synflow_l2", *SMALL, capsys=capsys)
    assert other["layers"] != printed["layers"]


def test_the_table(capsys):
    status, printed, _ = run("score", "px", *SMALL, capsys=capsys)
    assert status == 0
    wanted = expected("px")
    rows = [
        line.split() for line in printed.splitlines() if line.split()[:1][0:1] and ".weight" in line
    ]
    assert [row[:2] for row in rows] == [[name, str(s.numel())] for name, s in wanted.items()]
    for row, s in zip(rows, wanted.values(), strict=True):
        assert row[2:5] == [f"{float(v):.4g}" for v in (s.min(), s.median(), s.max())]
    assert sum(float(row[-1]) for row in rows) == pytest.approx(1, abs=2e-4)
    assert "options" not in printed
    printed = run("score", "snip", *SMALL, "--option", "bn=eval", capsys=capsys)[1]
    assert "options  bn=eval" in printed


def test_a_file_of_inputs(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((3, 6)))
    file = ["--data", str(tmp_path / "x.npy"), "--arg", "hidden=5"]
    assert json_of("score", "px", *file, capsys=capsys)["layers"]["layer1.weight"]["weights"] == 30
    error = complaint_of("score", "snip", *file, capsys=capsys)
    assert error.startswith("error: --data must be one with labels for snip, got ")


def test_type_and_batch(capsys):
    printed = json_of("score", "px", "--samples", "3", capsys=capsys)
    assert (printed["dtype"], printed["data"]) == ("float32", "digits, 3 samples")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("Missing argument 'SCORER'", []),
        ("scorer must be one of", ["pxx"]),
        ("--model must be one of mlp, convnet", ["px", "--model", "vgg"]),
        ("--data must be one of digits", ["px", "--data", "mnist"]),
        ("--option must be KEY=VALUE, got 'bn'", ["snip", "--option", "bn"]),
        ("--option of 'snip' must be one of 'bn'", ["snip", "--option", "power=2"]),
        ("--option of 'px' must be left out, got 'power'", ["px", "--option", "power=2"]),
        ("labels must be classes from 0 to 4", ["snip", "--arg", "outputs=5"]),
        ("steps must be a whole number", ["prospr", "--option", "steps=1.5"]),
        ("temperature must be a finite number", ["grasp", "--option", "temperature=hot"]),
        ("bn must be one of 'eval', 'train', got 'both'", ["snip", "--option", "bn=both"]),
        ("'--batch'", ["px", "--batch", "0"]),
        ("'--seed'", ["px", "--seed", "-1"]),
        ("'--dtype'", ["px", "--dtype", "float16"]),
        ("--out must be a file ending in .safetensors", ["px", "--out", "s.pt"]),
        ("--out must be a file in an existing folder", ["px", "--out", "no/such/s.safetensors"]),
        ("No such option: --density", ["px", "--density", "0.5"]),
    ],
)
def test_bad_input_is_one_line(text, arguments, capsys):
    assert text in complaint_of("score", *arguments, capsys=capsys)


@pytest.mark.parametrize(
    ("text", "masks"),
    [
        ("masks must be named like the parameters", {"layer9.weight": torch.ones(4, 5)}),
        ("masks['layer2.weight'] must be of shape [4, 5]", {"layer2.weight": torch.ones(5, 4)}),
        ("made of 0 and 1", {"layer2.weight": torch.full((4, 5), 2.0)}),
        ("--masks must be a file of masks", {}),
    ],
)
def test_masks_that_do_not_fit_leave_nothing(text, masks, tmp_path, capsys):
    save_file(masks, tmp_path / "m.safetensors")
    files = ["--masks", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "s.safetensors")]
    assert text in complaint_of("score", "px", *SMALL, *files, capsys=capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_network_without_path_rules_is_refused(tmp_path, capsys):
    out = ["--out", str(tmp_path / "s.safetensors")]
    arguments = ["--model", "tests.cli.shared:smooth", "--batch", "2", *out]
    assert "gelu" in complaint_of("score", "px", *arguments, capsys=capsys).lower()
    assert list(tmp_path.iterdir()) == []


# The list.


def test_the_list_has_every_scorer(capsys):
    status, printed, _ = run("scorers", capsys=capsys)
    lines = printed.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines] == ["name", *SCORERS]
    for line, entry in zip(lines[1:], SCORERS.values(), strict=True):
        assert line.endswith(entry.summary)
        assert f" {entry.rounds} " in line
        assert entry.cost in line


def test_the_list_says_what_each_needs(capsys):
    records = json_of("scorers", capsys=capsys)
    assert list(records) == list(SCORERS)
    assert records["snip"]["needs"] == ["inputs", "labels"]
    assert records["px"]["needs"] == ["inputs"]
    assert records["synflow_l2"]["needs"] == ["shape"]
    assert records["random"]["needs"] == ["seed"]
    assert records["magnitude"]["needs"] == []
    assert records["snip"]["options"] == ["bn"]
    assert {k: records["force"][k] for k in ("rounds", "regrows")} == {
        "rounds": SCORERS["force"].rounds, "regrows": True,
    }  # fmt: skip
