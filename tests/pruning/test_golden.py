"""Every golden score through ``score``. ``python tests/pruning/test_golden.py`` prints how near."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from ntktheory.pruning import score
from tests.pruning.golden import BUILDERS, Golden

PUBLISHED_NTK_SAP: dict[str, Any] = {"form": "finite_difference", "bn": "official", "sigma": 0.01}
SCORES = {
    "snip_bn_eval": lambda g: normalised(score(g.model, "snip", batch=g.batch, bn="eval")),
    "snip_bn_train": lambda g: normalised(score(g.model, "snip", batch=g.batch, bn="train")),
    "grasp_bn_eval": lambda g: normalised(score(g.model, "grasp", batch=g.batch, bn="eval")),
    "grasp_bn_train": lambda g: normalised(score(g.model, "grasp", batch=g.batch, bn="train")),
    "synflow": lambda g: score(g.model, "synflow_repo", batch=g.batch),
    "synflow_l2_px_repo": lambda g: score(g.model, "synflow_l2_repo", batch=g.batch),
    "ntk_sap": lambda g: score(g.model, "ntk_sap", draws=g.draws, **PUBLISHED_NTK_SAP),
    "px_repo_head": lambda g: score(g.model, "px_repo", batch=g.batch[0]),
}
# Zero but for rounding: every route of these passes batch norm, then average pooling.
ROUNDING = {("conv_bn", "px_repo_head", "c1.weight"), ("conv_bn", "px_repo_head", "c2.weight")}
CASES = [
    (name, key)
    for name in BUILDERS
    for key in SCORES
    if name == "conv_bn" or not key.endswith("_bn_train")  # the others have no batch norm
]


def normalised(scores):
    """Divide as the published code does; SNIP's sum is positive, and 1e-10 far below its rounding."""
    total = sum(s.sum() for s in scores.values())
    signed = any(bool((s < 0).any()) for s in scores.values())
    return {name: s / (total.abs() + (1e-10 if signed else 0)) for name, s in scores.items()}


def errors(name, key):
    """Return parameter -> (largest relative error of an entry, largest absolute one)."""
    golden = Golden(name)
    expected, found = golden.under(f"score/{key}/"), SCORES[key](golden)
    assert set(found) == set(expected)
    result = {}
    for parameter, s in expected.items():
        gap = (found[parameter] - s).abs()
        relative = torch.where(gap == 0, gap, gap / s.abs())  # infinite where only s is 0
        result[parameter] = (
            float(relative.max()),
            max(float(found[parameter].abs().max()), float(s.abs().max())),
        )
    return result


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_golden_score(name, key):
    for parameter, (relative, largest) in errors(name, key).items():
        if (name, key, parameter) in ROUNDING:
            assert largest < 1e-10
        else:
            assert relative <= 1e-10, parameter


@pytest.mark.parametrize("name", BUILDERS)
def test_no_key_of_a_file_is_left_out(name):
    assert Golden(name).keys == {key for file, key in CASES if file == name}


def test_the_batch_norm_modes_are_told_apart():
    golden = Golden("conv_bn")
    for key in ("snip", "grasp"):
        wrong = SCORES[f"{key}_bn_eval"](golden)
        expected = golden.under(f"score/{key}_bn_train/")
        assert all((wrong[n] - s).abs().max() > 1e-3 * s.abs().max() for n, s in expected.items())


@pytest.mark.parametrize("key", ["synflow", "synflow_l2_px_repo"])
def test_without_batch_norm_the_formula_is_the_published_code(key):
    name, options = {"synflow": ("synflow", {})}.get(key, ("synflow_l2", {"power": 1}))
    for file in ("mlp", "mlp_bias", "conv"):
        golden = Golden(file)
        found = score(golden.model, name, batch=golden.batch, **options)
        for parameter, s in golden.under(f"score/{key}/").items():
            assert float(((found[parameter] - s).abs() / s).max()) <= 1e-10
    golden = Golden("conv_bn")
    found = score(golden.model, name, batch=golden.batch, **options)
    expected = golden.under(f"score/{key}/")
    assert any((found[n] - s).abs().max() > 1e-3 * s.max() for n, s in expected.items())


def worst(name, key):
    """Return the largest relative error, in words."""
    found = errors(name, key).items()
    return f"{max(r for p, (r, _) in found if (name, key, p) not in ROUNDING):.1e}"


def main():
    """Print the largest relative error per file and key."""
    print(f"{'key':20}" + "".join(f"{name:>12}" for name in BUILDERS))
    for key in SCORES:
        row = [worst(name, key) if (name, key) in CASES else "–" for name in BUILDERS]
        print(f"{key:20}" + "".join(f"{cell:>12}" for cell in row))
    for name, key, parameter in sorted(ROUNDING):
        print(f"{key} {name} {parameter}: at most {errors(name, key)[parameter][1]:.1e}")


if __name__ == "__main__":
    main()
