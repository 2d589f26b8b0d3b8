"""The command ``ntktheory estimate``: what it prints, and how it complains."""

import json

import numpy as np
import pytest
import torch

from ntktheory import ntk_trace
from ntktheory.cli import inputs
from ntktheory.data import digits
from ntktheory.estimators import (
    finite_difference_bias,
    hutchinson_trace,
    hutchpp_trace,
    mask_stability,
    output_probe_trace,
    realization_scores,
    sample_draws,
    sigma_for_bias,
    xtrace,
)
from ntktheory.estimators.difference_bias import sampled_bias
from ntktheory.models import build_model
from ntktheory.ntk import NTKOperator
from ntktheory.probes import sample_gaussian
from tests.cli.shared import complaint_of, dead, run, shell

BY = ["trace", "--method"]
SMALL = ["--samples", "4", "--arg", "hidden=5", "--arg", "outputs=3"]


def setting():
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    return build_model("mlp", (1, 8, 8), hidden=5, outputs=3, **options), digits(
        4, dtype=torch.float64
    )[0]


def printed(*arguments, capsys):
    status, out, err = run("estimate", *arguments, "--json", capsys=capsys)
    assert status == 0, err
    return json.loads(out)


def tiny(tmp_path, monkeypatch):
    """Choose a network of six parameters and three inputs; return both, and the options."""
    generator = torch.Generator().manual_seed(0)
    net = build_model("mlp", (2,), hidden=2, outputs=1, generator=generator, dtype=torch.float64)
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    np.save(tmp_path / "x.npy", x.numpy())
    monkeypatch.setattr(inputs, "build_network", lambda *_: net)
    return net, x, ["--data", str(tmp_path / "x.npy")]


def test_help_in_a_shell(tmp_path):
    done = shell("estimate", "trace", "-h", cwd=tmp_path)
    assert done.returncode == 0
    assert "output-probe" in done.stdout


class TestTrace:
    @pytest.mark.parametrize(
        ("method", "estimator"),
        [("hutchinson", hutchinson_trace), ("hutchpp", hutchpp_trace), ("xtrace", xtrace)],
    )
    def test_products(self, method, estimator, capsys):
        options = ["--method", method, "--products", "6", "--probe-seed", "5", "--exact"]
        found = printed("trace", *SMALL, *options, capsys=capsys)
        net, x = setting()
        generator = torch.Generator().manual_seed(5)
        expected = estimator(NTKOperator(net, x), products=6, generator=generator)
        assert found["value"] == pytest.approx(float(expected.value), rel=1e-12)
        assert found["standard_error"] == pytest.approx(float(expected.standard_error), rel=1e-9)
        assert found["products"] == 6
        assert found["exact"] == pytest.approx(float(ntk_trace(net, x)), rel=1e-12)

    def test_output_probes(self, capsys):
        options = ["--method", "output-probe", "--products", "2"]
        found = printed("trace", *SMALL, *options, capsys=capsys)
        net, x = setting()
        expected = output_probe_trace(net, x, probes=2, generator=torch.Generator().manual_seed(0))
        assert found["value"] == pytest.approx(float(expected.value), rel=1e-12)
        assert found["exact"] is None

    def test_one_probe_has_no_error(self, capsys):
        assert printed("trace", *SMALL, "--products", "1", capsys=capsys)["standard_error"] is None

    def test_a_table_is_printed(self, capsys):
        status, out, _ = run("estimate", "trace", *SMALL, capsys=capsys)
        assert status == 0
        assert "standard error" in out

    def test_masks(self, tmp_path, capsys):
        from safetensors.torch import save_file

        net, x = setting()
        masks = {"layer1.weight": torch.zeros(5, 64, dtype=torch.bool)}
        masks["layer1.weight"][:2] = True
        save_file(masks, tmp_path / "m.safetensors")
        options = ["--masks", str(tmp_path / "m.safetensors"), "--exact"]
        found = printed("trace", *SMALL, *options, capsys=capsys)
        assert found["exact"] == pytest.approx(float(ntk_trace(net, x, masks=masks)), rel=1e-12)


class TestBias:
    def test_of_a_tiny_network(self, tmp_path, capsys, monkeypatch):
        net, x, options = tiny(tmp_path, monkeypatch)
        more = ["--sigma", "0.1", "--tolerance", "0.01", "--probes", "500"]
        found = printed("bias", *options, *more, capsys=capsys)
        params = dict(net.named_parameters())
        probes = sample_gaussian(params, 500, generator=torch.Generator().manual_seed(0))
        measured, trace = sampled_bias(net, x, 0.1, probes), float(ntk_trace(net, x))
        assert found["relative_bias"] == pytest.approx(measured.mean / (0.01 * trace), rel=1e-9)
        assert found["standard_error"] == pytest.approx(measured.standard_error / (0.01 * trace))
        assert found["polynomial"] == pytest.approx(finite_difference_bias(net, x).relative(0.1))
        assert found["sigma_for_tolerance"] == sigma_for_bias(net, x, 0.01, probes=probes)

    def test_of_a_larger_one_without_the_polynomial(self, capsys):
        found = printed("bias", *SMALL, "--tolerance", "0.5", capsys=capsys)
        assert found["polynomial"] is None
        assert 0 < found["sigma_for_tolerance"] <= 1


class TestStability:
    def test_the_overlaps(self, capsys):
        options = ["--density", "0.2", "--realizations", "6", "--probe-seed", "3"]
        found = printed("stability", *SMALL, *options, capsys=capsys)
        net, x = setting()
        generator = torch.Generator().manual_seed(3)
        draws = sample_draws(net, realizations=6, samples=4, x=x, generator=generator)
        expected = mask_stability(realization_scores(net, draws), 0.2)
        assert found["realizations"] == [1, 2, 4, 6]
        assert found["with_last"] == list(expected.with_last)
        assert found["between_halves"] == [None, *expected.between_halves[1:]]
        assert found["stable_from"] == expected.stable_from

    def test_other_draws_are_used(self, capsys):
        options = ["--weights", "fixed", "--inputs", "data", "--form", "finite_difference"]
        found = printed("stability", *SMALL, *options, "--realizations", "2", capsys=capsys)
        assert (found["weights"], found["inputs"]) == ("fixed", "data")
        assert found["form"] == "finite_difference"

    def test_a_table_is_printed(self, capsys):
        status, out, _ = run("estimate", "stability", *SMALL, "--realizations", "3", capsys=capsys)
        assert status == 0
        assert "between halves" in out
        assert "stable from" in out


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("products must be a number of at least 3, got 2", [*BY, "hutchpp", "--products", "2"]),
        ("products must be an even number of at least 2, got 3", [*BY, "xtrace", "--products", "3"]),
        ("probes must be a number of at least 1, got 0", [*BY, "output-probe", "--products", "0"]),
        ("'--method'", ["trace", "--method", "lanczos"]),
        ("--masks must be a readable safetensors file", ["trace", "--masks", "none.safetensors"]),
        ("sigma must be a positive standard deviation, got 0.0", ["bias", "--sigma", "0"]),
        ("tolerance must be a positive number, got -1.0", ["bias", "--tolerance", "-1"]),
        ("'--probes'", ["bias", "--probes", "1"]),
        ("density must be in (0, 1], got 0.0", ["stability", "--density", "0"]),
        ("level must be", ["stability", "--level", "1.5"]),
        ("sigma must be a positive standard deviation", ["stability", "--sigma", "-0.1"]),
        ("'--realizations'", ["stability", "--realizations", "0"]),
        ("--model must be one of", ["trace", "--model", "vgg"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(text, arguments, capsys):
    small = SMALL if "--model" not in arguments else []
    assert text in complaint_of("estimate", *arguments, *small, capsys=capsys)


def test_a_dead_network_has_no_relative_bias(capsys, monkeypatch):
    monkeypatch.setattr(inputs, "build_network", lambda *_: dead().double())
    error = complaint_of("estimate", "bias", "--samples", "2", capsys=capsys)
    assert "model must be a network with a positive trace, got 0.0" in error
