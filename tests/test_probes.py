"""Designs have the moments they claim, and no more; samplers have those of their law."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement

import pytest
import torch
from scipy.stats import binom

from ntktheory.checks import NumericalError
from ntktheory.probes import (
    MAX_ALL_SIGNS,
    Design,
    all_signs,
    check_probes,
    cubature3,
    cubature5,
    hadamard_design,
    sample_gaussian,
    sample_rademacher,
)

MOMENTS = {
    "gaussian": lambda k: 0 if k % 2 else math.prod(range(1, k, 2)),
    "rademacher": lambda k: 1 - k % 2,
}
DESIGNS: dict[str, Callable[..., Design]] = {
    "hadamard": hadamard_design,
    "hadamard_paired": partial(hadamard_design, paired=True),
    "cubature3": cubature3,
    "cubature5": cubature5,
    "all_signs": all_signs,
}
LAWS = {  # the laws whose moments a design reproduces up to the degree given
    "hadamard": {"rademacher": 2, "gaussian": 2},
    "hadamard_paired": {"rademacher": 3, "gaussian": 3},
    "cubature3": {"rademacher": 3, "gaussian": 3},
    "cubature5": {"gaussian": 5},
    "all_signs": {"rademacher": 8, "gaussian": 3},
}
SIZES = {
    "hadamard": lambda d: 2 ** math.ceil(math.log2(d + 1)),
    "hadamard_paired": lambda d: 2 ** (1 + math.ceil(math.log2(d))),
    "cubature3": lambda d: 2 * d,
    "cubature5": lambda d: 2 * d * d + 1,
    "all_signs": lambda d: 2**d,
}


def params_of_size(d, dtype=torch.float64):
    """Split d numbers over a matrix, a vector and a scalar, as far as they go."""
    params = {"scalar": torch.zeros((), dtype=dtype)}
    if d >= 5:
        params["matrix"] = torch.zeros(2, 2, dtype=dtype)
    rest = d - sum(p.numel() for p in params.values())
    if rest:
        params["vector"] = torch.zeros(rest, dtype=dtype)
    return params


def flatten(probes):
    return torch.cat([p.reshape(len(p), -1) for p in probes.values()], dim=1)


def moment_error(design: Design, degree: int, law: str) -> float:
    """Return the largest error over all monomials of one degree."""
    points = flatten(design.probes)
    worst = 0.0
    for monomial in combinations_with_replacement(range(points.shape[1]), degree):
        actual = design.weights @ points[:, list(monomial)].prod(dim=1)
        exact = math.prod(MOMENTS[law](k) for k in Counter(monomial).values())
        worst = max(worst, abs(actual.item() - exact))
    return worst


@pytest.mark.parametrize("d", range(1, 7))
@pytest.mark.parametrize("name", DESIGNS)
class TestMoments:
    def test_exact_up_to_the_claimed_degree(self, name, d):
        design = DESIGNS[name](params_of_size(d))
        assert min(design.degree, 8) == LAWS[name][design.law]
        for law, top in LAWS[name].items():
            for degree in range(top + 1):
                assert moment_error(design, degree, law) < 1e-12

    def test_next_degree_fails(self, name, d):
        design = DESIGNS[name](params_of_size(d))
        for law, top in LAWS[name].items():
            # For few numbers the sign vectors are all 2^d, which fail at no degree (as signs) or
            # at degree 4 only (as Gaussians).
            complete = (name == "hadamard" and d < 3) or (
                law == "rademacher"
                and (
                    name == "all_signs"
                    or (name == "hadamard_paired" and d < 4)
                    or (name == "cubature3" and d == 1)
                )
            )
            if not complete:
                assert moment_error(design, top + 1, law) > 0.1

    def test_shapes_weights_and_sizes(self, name, d):
        params = params_of_size(d)
        design = DESIGNS[name](params)
        count = SIZES[name](d)
        assert design.weights.shape == (count,)
        assert design.weights.dtype == torch.float64
        assert abs(design.weights.sum().item() - 1) < 1e-14
        assert list(design.probes) == list(params)
        assert check_probes(design.probes, params) == count


def test_quadratic_form_mean_and_variance():
    """Trace and Gaussian variance 2||S||_F^2 of a quadratic form, for d = 7."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(7, 7, generator=g, dtype=torch.float64)
    s = a @ a.mT
    for name, design in DESIGNS.items():
        built = design(params_of_size(7))
        z = flatten(built.probes)
        q = ((z @ s) * z).sum(1)
        mean = built.weights @ q
        torch.testing.assert_close(mean, s.trace(), rtol=1e-12, atol=0)
        variance = built.weights @ (q - mean) ** 2
        if name == "cubature5":
            torch.testing.assert_close(variance, 2 * (s**2).sum(), rtol=1e-12, atol=0)
        if name == "all_signs":
            off = (s**2).sum() - (s.diagonal() ** 2).sum()
            torch.testing.assert_close(variance, 2 * off, rtol=1e-12, atol=0)


def test_flattened_in_the_order_of_the_dict():
    params = {"b": torch.zeros(2), "a": torch.zeros(1, 2)}
    design = cubature3(params, names=["a", "b"])
    assert list(design.probes) == ["b", "a"]
    assert design.probes["b"][:2].tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert design.probes["a"][2:4].tolist() == [[[2.0, 0.0]], [[0.0, 2.0]]]


def test_names_select():
    params = {"a": torch.zeros(3), "b": torch.zeros(2)}
    g = torch.Generator().manual_seed(0)
    assert list(hadamard_design(params, names=["b"]).probes) == ["b"]
    assert list(sample_gaussian(params, 2, generator=g, names={"b"})) == ["b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_of_each_parameter(dtype):
    params = {"a": torch.zeros(3, dtype=dtype), "b": torch.zeros(2, dtype=torch.float64)}
    g = torch.Generator().manual_seed(0)
    for probes in (
        sample_rademacher(params, 4, generator=g),
        sample_gaussian(params, 4, generator=g),
        cubature5(params).probes,
    ):
        assert {n: p.dtype for n, p in probes.items()} == {"a": dtype, "b": torch.float64}
        assert check_probes(probes, params) == len(probes["a"])


class TestSamplers:
    def test_same_seed_same_probes(self):
        params = params_of_size(6)
        for sample in (sample_rademacher, sample_gaussian):
            one, two, other = (
                flatten(sample(params, 10, generator=torch.Generator().manual_seed(s)))
                for s in (3, 3, 4)
            )
            assert torch.equal(one, two)
            assert not torch.equal(one, other)

    def test_order_of_names_does_not_matter(self):
        params = params_of_size(6)
        one, two = (
            sample_gaussian(params, 3, generator=torch.Generator().manual_seed(0), names=names)
            for names in (["scalar", "vector"], ["vector", "scalar"])
        )
        assert list(one) == list(two)
        assert torch.equal(flatten(one), flatten(two))

    def test_global_seed_is_untouched(self):
        before = torch.get_rng_state()
        sample_gaussian(params_of_size(3), 3, generator=torch.Generator().manual_seed(0))
        sample_rademacher(params_of_size(3), 3, generator=torch.Generator().manual_seed(0))
        assert torch.equal(before, torch.get_rng_state())

    def test_rademacher_moments(self):
        """Signs; every product of up to 4 different entries is a fair coin.

        Each of the 56 counts leaves its binomial 1e-12 interval with probability 1e-12: the test
        fails by bad luck with probability below 1e-10.
        """
        n = 40_000
        g = torch.Generator().manual_seed(1)
        z = flatten(sample_rademacher(params_of_size(6), n, generator=g))
        assert set(z.unique().tolist()) == {-1.0, 1.0}
        low, high = binom.ppf(5e-13, n, 0.5), binom.isf(5e-13, n, 0.5)
        for degree in (1, 2, 3, 4):
            for chosen in combinations_with_replacement(range(6), degree):
                if len(set(chosen)) == degree:
                    positive = int((z[:, list(chosen)].prod(1) > 0).sum())
                    assert low <= positive <= high

    def test_gaussian_law(self):
        """Counts below fixed quantiles, and fair signs of products: every moment follows.

        71 binomial counts at 1e-12 each: fails by bad luck with probability below 1e-10.
        """
        n = 40_000
        g = torch.Generator().manual_seed(2)
        z = flatten(sample_gaussian(params_of_size(6), n, generator=g))
        normal = torch.distributions.Normal(0.0, 1.0)
        for p in (0.01, 0.1, 0.5, 0.9, 0.99):
            q = normal.icdf(torch.tensor(p, dtype=torch.float64))
            for below in (z <= q).sum(0).tolist():
                assert binom.ppf(5e-13, n, p) <= below <= binom.isf(5e-13, n, p)
        for i in range(6):
            for j in range(i):  # sums and differences of independent normals are normal
                inside = int(((z[:, i] + z[:, j]).abs() <= math.sqrt(2)).sum())
                p = math.erf(1 / math.sqrt(2))
                assert binom.ppf(5e-13, n, p) <= inside <= binom.isf(5e-13, n, p)


class TestErrors:
    params: dict[str, torch.Tensor] = {"w": torch.zeros(2, 3), "b": torch.zeros(3)}  # noqa: RUF012

    def test_check_probes_accepts_missing_names(self):
        assert check_probes({"b": torch.ones(4, 3)}, self.params) == 4

    @pytest.mark.parametrize(
        ("probes", "error", "text"),
        [
            ({}, ValueError, r"probes must be at least one probe, got none\."),
            ({"w": torch.ones(0, 2, 3)}, ValueError, "at least one probe, got none"),
            ({"c": torch.ones(1)}, ValueError, r"named like the parameters \(w, b\), got 'c'"),
            ({"w": [1.0]}, TypeError, r"probes\['w'\] must be a torch.Tensor, got list"),
            (
                {"w": torch.ones(2, 3)},
                ValueError,
                r"probes\['w'\] must be of shape \[K, 2, 3\], got \[2, 3\]\. Put the probe axis",
            ),
            ({"b": torch.tensor(1.0)}, ValueError, r"of shape \[K, 3\], got \[\]"),
            (
                {"w": torch.ones(4, 2, 3), "b": torch.ones(5, 3)},
                ValueError,
                r"probes\['b'\] must be 4 probes, as the entries before it, got 5",
            ),
            (
                {"w": torch.ones(4, 2, 3, dtype=torch.float64)},
                ValueError,
                r"torch.float32 on cpu, as its parameter, got torch.float64 on cpu",
            ),
            (
                {"b": torch.full((2, 3), math.nan)},
                NumericalError,
                r"probes\['b'\] must be finite, got 6 of 6 entries NaN or Inf",
            ),
        ],
    )
    def test_check_probes(self, probes, error, text):
        with pytest.raises(error, match=text):
            check_probes(probes, self.params)

    @pytest.mark.parametrize("sample", [sample_rademacher, sample_gaussian])
    def test_samplers(self, sample):
        g = torch.Generator().manual_seed(0)
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got NoneType"):
            sample(self.params, 3, generator=None)
        with pytest.raises(TypeError, match=r"count must be an int, got float"):
            sample(self.params, 3.0, generator=g)
        with pytest.raises(ValueError, match=r"count must be at least 1, got 0"):
            sample(self.params, 0, generator=g)
        with pytest.raises(ValueError, match=r"names must be among the parameters \(w, b\)"):
            sample(self.params, 3, generator=g, names=["c"])

    @pytest.mark.parametrize("design", DESIGNS.values())
    def test_designs(self, design):
        with pytest.raises(ValueError, match=r"names must be among .*, got 'c'\. Rename"):
            design(self.params, names=["c"])
        with pytest.raises(ValueError, match=r"params must be at least one number, got none"):
            design({})
        with pytest.raises(ValueError, match=r"params must be at least one number, got none"):
            design(self.params, names=[])
        with pytest.raises(TypeError, match=r"params\['i'\] must be a real floating-point tensor"):
            design({"i": torch.zeros(2, dtype=torch.int64)})

    def test_all_signs_names_the_bytes(self):
        assert len(all_signs({"w": torch.zeros(10)}).weights) == 1024
        assert MAX_ALL_SIGNS == 20
        with pytest.raises(ValueError, match=rf"21 numbers, whose .* take {8 * 21 * 2**21} bytes"):
            all_signs({"w": torch.zeros(21)})

    @pytest.mark.parametrize(
        ("design", "d", "points"),
        [
            (hadamard_design, 10_000, 2**14),
            (DESIGNS["hadamard_paired"], 10_000, 2**15),
            (cubature3, 10_000, 20_000),
            (cubature5, 500, 500_001),
        ],
    )
    def test_memory_is_planned(self, design, d, points):
        size = 8 * points * d
        with pytest.raises(ValueError, match=rf"{d} numbers, whose {points} points take {size} by"):
            design({"w": torch.zeros(d)})
