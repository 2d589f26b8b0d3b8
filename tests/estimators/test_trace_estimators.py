"""Trace estimators on dense matrices: means and variances by enumeration, definitions, mutants."""

from typing import Any

import pytest
import torch

from ntktheory.estimators.diagonal import hutchinson_diagonal, slopes
from ntktheory.estimators.estimate import Estimate, standard_error
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.frobenius import hutchinson_frobenius, squared_norms
from ntktheory.estimators.hutchinson import (
    hutchinson_trace,
    quadratic_form_variance,
    quadratic_forms,
)
from ntktheory.estimators.hutchpp import captured_and_rest, hutchpp_trace
from ntktheory.estimators.reference_traces import (
    diagonal_estimate,
    hutchpp_by_definition,
    projector,
    squared_norm_samples,
    trace_samples,
    xtrace_by_definition,
)
from ntktheory.estimators.xtrace import leave_one_out, xtrace
from ntktheory.probes import all_signs, cubature5
from proofs_check.compare import relative_gap

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
EXACT = 1e-12  # sums over a design, against a formula
DEFINITION = 1e-10  # an algorithm, against its definition
DELTA = 1e-9
SAMPLES = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), **DOUBLE)


def with_eigenvalues(values, seed=0):
    values = torch.as_tensor(values, **DOUBLE)
    Q, _ = torch.linalg.qr(normal(len(values), len(values), seed=seed))
    return (Q * values) @ Q.T


def matrices(n):
    return {
        "flat": with_eigenvalues(torch.linspace(1, 3, n)),
        "decaying": with_eigenvalues(0.3 ** torch.arange(n)),
        "indefinite": with_eigenvalues(torch.linspace(-1, 2, n)),
        "rank 2": with_eigenvalues([3.0, 1.0] + [0.0] * (n - 2)),
        "zero": torch.zeros(n, n, **DOUBLE),
        "not symmetric": normal(n, n, seed=5),
    }


NAMES = list(matrices(2))


def times(matrix):
    return lambda V: matrix @ V


def signs(n, k):
    """All 2^(nk) matrices of signs, [2^(nk), n, k]: the Rademacher law itself."""
    return all_signs({"z": torch.empty(n, k, **DOUBLE)}).probes["z"]


def gaussian(n, k):
    """Points and weights that integrate polynomials of degree 5 in n·k normal numbers."""
    design = cubature5({"z": torch.empty(n, k, **DOUBLE)})
    return design.probes["z"], design.weights


def hutchinson_mean(products, Z):
    samples = quadratic_forms(products, Z)
    return samples.mean(), standard_error(samples)


def frobenius_mean(products, Z):
    samples = squared_norms(products, Z)
    return samples.mean(), standard_error(samples)


def hutchpp_mean(products, Z, sketch=1):
    captured, rest = captured_and_rest(products, Z[:, :sketch], Z[:, sketch:])
    return captured + rest.mean(), standard_error(rest)


def xtrace_mean(products, omega, rescale=False):
    samples = leave_one_out(products, omega, rescale=rescale)
    return samples.mean(), standard_error(samples)


def moments(estimator, matrix, points, weights=None):
    """Exact mean and variance of the estimate, and exact mean of the squared standard error."""
    values, errors = torch.func.vmap(lambda Z: estimator(times(matrix), Z))(points)
    if weights is None:
        weights = torch.full((len(points),), 1 / len(points), **DOUBLE)
    mean = torch.tensordot(weights, values, 1)
    spread = torch.tensordot(weights, (values - mean).square(), 1)
    return mean, spread, torch.tensordot(weights, errors.square(), 1)


def close(value, expected, scale):
    return bool(((value - expected).abs() <= EXACT * scale).all())


class TestEnumeration:
    """Over all sign vectors, or a Gaussian design: no luck involved."""

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("law", ["rademacher", "gaussian"])
    @pytest.mark.parametrize(
        ("estimator", "form"),
        [(hutchinson_mean, lambda A: A), (frobenius_mean, lambda A: A.T @ A)],
        ids=["trace", "frobenius"],
    )
    def test_quadratic_forms(self, name, law, estimator, form):
        A, k = matrices(4)[name], 3
        design = (signs(4, k),) if law == "rademacher" else gaussian(4, k)
        mean, variance, error = moments(estimator, A, *design)
        target, formula = form(A).trace(), quadratic_form_variance(form(A), law) / k
        scale = form(A).square().sum()
        assert close(mean, target, scale.sqrt())
        assert close(variance, formula, 100 * scale)  # weights of the design: |w| sums to 41
        assert close(error, formula, 100 * scale)

    @pytest.mark.parametrize("name", NAMES)
    def test_diagonal(self, name):
        A, k = matrices(4)[name], 3
        mean, variance, error = moments(slopes, A, signs(4, k))
        formula = (A.square().sum(1) - A.diagonal().square()) / k
        scale = A.square().sum()
        assert close(mean, A.diagonal(), scale.sqrt())
        assert close(variance, formula, scale)
        assert close(error, formula, scale)

    @pytest.mark.parametrize("name", NAMES)
    def test_hutchpp(self, name):
        A, probes = matrices(4)[name], 2
        mean, variance, error = moments(hutchpp_mean, A, signs(4, 1 + probes))
        formulas = []
        for S in signs(4, 1):
            rest = torch.eye(4, **DOUBLE) - projector(A @ S)
            formulas.append(quadratic_form_variance(rest @ A @ rest, "rademacher") / probes)
        formula, scale = torch.stack(formulas).mean(), A.square().sum()
        assert close(mean, A.trace(), scale.sqrt())
        assert close(variance, formula, scale)
        assert close(error, formula, scale)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(("n", "m"), [(3, 1), (4, 2), (3, 3), (4, 3)])
    def test_xtrace(self, name, n, m):
        A = matrices(n)[name]
        points, scale = signs(n, m), A.square().sum()

        def samples(omega):
            return leave_one_out(times(A), omega, rescale=False)

        values = torch.func.vmap(samples)(points)
        assert close(values.mean(0), A.trace(), scale.sqrt())  # every one of the m is unbiased
        symmetric = (A + A.T) / 2
        spread = values.mean(1).var(correction=0)
        assert spread <= 2 * symmetric.square().sum() * (1 + EXACT)

    def test_rademacher_never_does_worse_than_gaussian(self):
        for A in matrices(5).values():
            one, other = (quadratic_form_variance(A, law) for law in ("rademacher", "gaussian"))
            assert one <= other


class TestDefinitions:
    @pytest.mark.parametrize("name", NAMES)
    def test_single_probes(self, name):
        A, Z = matrices(6)[name], normal(6, 4, seed=1)
        torch.testing.assert_close(
            quadratic_forms(times(A), Z), torch.tensor(trace_samples(A, Z), **DOUBLE)
        )
        torch.testing.assert_close(
            squared_norms(times(A), Z), torch.tensor(squared_norm_samples(A, Z), **DOUBLE)
        )
        torch.testing.assert_close(slopes(times(A), Z)[0], diagonal_estimate(A, Z))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(("sketch", "probes"), [(1, 1), (2, 5), (12, 3)])
    def test_hutchpp(self, name, sketch, probes):
        A, Z = matrices(12)[name], normal(12, sketch + probes, seed=2)
        captured, rest = captured_and_rest(times(A), Z[:, :sketch], Z[:, sketch:])
        expected = hutchpp_by_definition(A, Z[:, :sketch], Z[:, sketch:])
        assert rest.shape == (probes,)
        assert abs(captured + rest.mean() - expected) <= DEFINITION * A.norm()

    @pytest.mark.parametrize("rescale", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("m", [1, 2, 5, 12])
    def test_xtrace(self, name, m, rescale):
        A, omega = matrices(12)[name], normal(12, m, seed=3)
        samples = leave_one_out(times(A), omega, rescale=rescale)
        expected = xtrace_by_definition(A, omega, rescale=rescale)
        assert (samples - expected).abs().max() <= DEFINITION * A.norm()

    @pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
    @pytest.mark.parametrize("rescale", [False, True])
    def test_xtrace_where_products_are_nearly_dependent(self, rate, rescale):
        A = with_eigenvalues(rate ** torch.arange(30))
        for m in (10, 20, 30):
            omega = normal(30, m, seed=m)
            samples = leave_one_out(times(A), omega, rescale=rescale)
            expected = xtrace_by_definition(A, omega, rescale=rescale)
            assert (samples - expected).abs().max() <= DEFINITION * A.trace()

    @pytest.mark.parametrize("columns", [[0, 0], [0, 0, 1], [0, 1, 1, 2, 0]])
    def test_xtrace_with_equal_probes(self, columns):
        A, omega = matrices(8)["flat"], normal(8, 3)[:, columns]
        samples = leave_one_out(times(A), omega, rescale=True)
        torch.testing.assert_close(samples, xtrace_by_definition(A, omega, rescale=True))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("products", [6, 10])
    @pytest.mark.parametrize("law", ["rademacher", "gaussian", "sphere"])
    def test_public_functions(self, law, products, name):
        """The same probes, drawn here without the library, put into the definitions."""
        A = matrices(12)[name]

        def drawn(count):
            if law == "rademacher":
                return torch.randint(0, 2, (count, 12), generator=generator(4), **DOUBLE).T * 2 - 1
            return torch.randn(count, 12, generator=generator(4), **DOUBLE).T

        def check(estimator, samples):
            estimate = estimator(A, products=products, law=law, generator=generator(4))
            error = samples.std(0) / len(samples) ** 0.5
            assert (estimate.value - samples.mean(0)).abs().max() <= DEFINITION * A.norm()
            assert (estimate.standard_error - error).abs().max() <= DEFINITION * A.norm()

        omega = drawn(products // 2)
        check(xtrace, xtrace_by_definition(A, omega, rescale=law == "sphere"))
        if law == "sphere":
            return
        Z = drawn(products)
        check(hutchinson_trace, torch.tensor(trace_samples(A, Z), **DOUBLE))
        check(hutchinson_frobenius, torch.tensor(squared_norm_samples(A, Z), **DOUBLE))
        Z, sketch = drawn(products - products // 3), products // 3
        singles = [hutchpp_by_definition(A, Z[:, :sketch], z[:, None]) for z in Z.T[sketch:]]
        check(hutchpp_trace, torch.stack(singles))

    @pytest.mark.parametrize("name", NAMES)
    def test_public_diagonal(self, name):
        A = matrices(12)[name]
        Z = torch.randn(7, 12, generator=generator(4), **DOUBLE).T
        estimate = hutchinson_diagonal(A, products=7, law="gaussian", generator=generator(4))
        torch.testing.assert_close(estimate.value, diagonal_estimate(A, Z))
        variances = []
        for z, row in zip(Z, A @ Z, strict=True):  # a regression through the origin, by lstsq
            slope = torch.linalg.lstsq(z[:, None], row[:, None]).solution[0, 0]
            variances.append((row - slope * z).square().sum() / 6 / z.square().sum())
        torch.testing.assert_close(estimate.standard_error, torch.stack(variances).sqrt())


class TestExactness:
    @pytest.mark.parametrize("law", ["rademacher", "gaussian"])
    @pytest.mark.parametrize("products", [9, 10, 11])
    def test_hutchpp_on_low_rank(self, law, products):
        for seed in range(5):
            A = with_eigenvalues([5.0, -3.0, 2.0] + [0.0] * 17, seed)
            estimate = hutchpp_trace(A, products=products, law=law, generator=generator(seed))
            assert relative_gap(estimate.value, A.trace()) < EXACT
            assert estimate.standard_error < EXACT

    def test_hutchpp_on_a_higher_rank_is_not_exact(self):
        A = with_eigenvalues([5.0, 4.0, 3.0, 2.0] + [0.0] * 16)
        estimate = hutchpp_trace(A, products=11, generator=generator())
        assert relative_gap(estimate.value, A.trace()) > 1e-3

    @pytest.mark.parametrize("law", ["sphere", "gaussian", "rademacher"])
    @pytest.mark.parametrize("products", [8, 10, 20, 40])
    def test_xtrace_on_low_rank(self, law, products):
        for seed in range(5):
            A = with_eigenvalues([5.0, -3.0, 2.0] + [0.0] * 17, seed)
            estimate = xtrace(A, products=products, law=law, generator=generator(seed))
            assert relative_gap(estimate.value, A.trace()) < EXACT
            assert estimate.standard_error < EXACT

    def test_xtrace_on_a_higher_rank_is_not_exact(self):
        A = with_eigenvalues([5.0, 4.0, 3.0, 2.0] + [0.0] * 16)
        estimate = xtrace(A, products=8, generator=generator())
        assert relative_gap(estimate.value, A.trace()) > 1e-3

    def test_the_whole_space(self):
        A = matrices(12)["flat"]
        full = hutchpp_trace(A, products=36, generator=generator())
        assert relative_gap(full.value, A.trace()) < EXACT
        # One direction is left out, and a rescaled form in one dimension is no longer random.
        sphere = xtrace(A, products=24, generator=generator())
        assert relative_gap(sphere.value, A.trace()) < EXACT

    def test_diagonal_matrices_leave_signs_no_variance(self):
        A = torch.diag(torch.arange(1.0, 6.0, **DOUBLE))
        for estimator, exact in (
            (hutchinson_trace, 15.0),
            (hutchinson_frobenius, 55.0),
            (hutchinson_diagonal, A.diagonal()),
        ):
            estimate = estimator(A, products=2, generator=generator())
            assert relative_gap(estimate.value, exact) < EXACT
            assert not estimate.standard_error.any()

    @pytest.mark.parametrize("scale", [1e-140, 1e140])
    def test_scales(self, scale):
        A = matrices(12)["decaying"]
        for estimator in (hutchinson_trace, hutchpp_trace, xtrace, hutchinson_diagonal):
            one = estimator(A, products=6, generator=generator())
            other = estimator(scale * A, products=6, generator=generator())
            torch.testing.assert_close(other.value / scale, one.value)
            torch.testing.assert_close(other.standard_error / scale, one.standard_error)


def trials(samples, shape, seed):
    """Independent estimates from Gaussian probes of one shape."""
    points = torch.randn(SAMPLES, *shape, generator=generator(seed), **DOUBLE)
    return torch.func.vmap(samples)(points)


class TestMonteCarlo:
    """Gaussian laws without a finite design: `check_mean`, each wrong with probability <= 1e-9."""

    @pytest.mark.parametrize("name", ["flat", "decaying", "indefinite", "not symmetric"])
    @pytest.mark.parametrize("rescale", [False, True])
    def test_xtrace_is_unbiased(self, name, rescale):
        A = matrices(5)[name]
        values = trials(lambda omega: xtrace_mean(times(A), omega, rescale)[0], (5, 3), seed=10)
        bound = quadratic_form_variance(A, "gaussian")
        verdict = check_mean(values, A.trace(), bound, delta=DELTA)
        print(verdict.summary)
        assert verdict.status == "pass", verdict.summary
        assert verdict.detectable_bias < 0.1 * bound.sqrt()
        assert values.var() <= bound

    @pytest.mark.parametrize("name", ["flat", "decaying", "indefinite", "not symmetric"])
    def test_hutchpp_is_unbiased(self, name):
        A = matrices(5)[name]
        values = trials(lambda Z: hutchpp_mean(times(A), Z, 2)[0], (5, 4), seed=11)
        bound = quadratic_form_variance(A, "gaussian") / 2
        verdict = check_mean(values, A.trace(), bound, delta=DELTA)
        print(verdict.summary)
        assert verdict.status == "pass", verdict.summary

    def test_diagonal_is_unbiased_and_its_variance_is_as_stated(self):
        A, k = matrices(5)["not symmetric"], 8
        values, errors = trials(lambda Z: slopes(times(A), Z), (5, k), seed=12)
        noise = A.square().sum(1) - A.diagonal().square()
        variance = noise / (k - 2)
        first = check_mean(values, A.diagonal(), variance, delta=DELTA)
        assert first.status == "pass", first.summary
        # Given z_j the error is normal with variance v/W, W chi-squared with k degrees of freedom:
        # E err^4 = 3 v^2 E W^-2 = 3 v^2 / ((k - 2)(k - 4)).
        fourth = 3 * noise.square() / ((k - 2) * (k - 4))
        squares = (values - A.diagonal()).square()
        second = check_mean(squares, variance, fourth - variance.square(), delta=DELTA)
        assert second.status == "pass", second.summary
        # Given z_j the squared standard error is v/W times a chi-squared of k - 1, over k - 1.
        spread = noise.square() * (k + 1) / ((k - 1) * (k - 2) * (k - 4)) - variance.square()
        third = check_mean(errors.square(), variance, spread, delta=DELTA)
        assert third.status == "pass", third.summary


# --- planted errors ------------------------------------------------------------------------------


def hutchpp_undivided(products, Z):
    captured, rest = captured_and_rest(products, Z[:, :1], Z[:, 1:])
    return captured + rest.sum(), rest.sum()


def hutchpp_same_probes(products, Z):
    captured, rest = captured_and_rest(products, Z[:, :2], Z[:, :2])
    return captured + rest.mean(), rest.sum()


def hutchpp_main_directions_only(products, Z):
    captured, rest = captured_and_rest(products, Z[:, :1], Z[:, 1:])
    return captured, rest.sum()


def xtrace_nothing_left_out(products, omega):
    captured, rest = captured_and_rest(products, omega, omega)
    return captured + rest.mean(), rest.sum()


def xtrace_projected_on_one_side(products, omega):
    """Forget that x_i leaves out s_i: the residual is that of the whole basis."""
    Q, R = torch.linalg.qr(products(omega))
    S = torch.linalg.inv(R).mT
    S = S / S.norm(dim=0)
    H = Q.mT @ products(Q)
    residual = omega - Q @ (Q.mT @ omega)
    rest = (residual * products(residual)).sum(0)
    return (H.trace() - (S * (H @ S)).sum(0) + rest).mean(), rest.sum()


def hutchinson_one_less(products, Z):
    samples = quadratic_forms(products, Z)
    return samples.sum() / (len(samples) - 1), standard_error(samples)


class TestPlantedErrors:
    A = matrices(4)["flat"]

    def unbiased(self, estimator, shape):
        mean, _, _ = moments(estimator, self.A, signs(*shape))
        return close(mean, self.A.trace(), self.A.norm())

    def test_the_right_ones_pass(self):
        assert self.unbiased(hutchinson_mean, (4, 3))
        assert self.unbiased(hutchpp_mean, (4, 3))
        assert self.unbiased(xtrace_mean, (4, 2))

    @pytest.mark.parametrize(
        ("mutant", "k"),
        [
            (hutchinson_one_less, 3),
            (hutchpp_undivided, 3),
            (hutchpp_same_probes, 2),
            (hutchpp_main_directions_only, 3),
            (xtrace_nothing_left_out, 2),
        ],
    )
    def test_the_wrong_ones_fail(self, mutant, k):
        assert not self.unbiased(mutant, (4, k))

    def test_a_forgotten_direction_in_the_residual(self):
        # Equal sign vectors make R singular: Gaussian probes, against the definition and the mean.
        A, omega = matrices(6)["flat"], normal(6, 3)
        expected = xtrace_by_definition(A, omega, rescale=False).mean()
        wrong, _ = xtrace_projected_on_one_side(times(A), omega)
        assert abs(wrong - expected) > 1e-3 * A.norm()
        bound = quadratic_form_variance(A, "gaussian")
        values = trials(
            lambda omega: xtrace_projected_on_one_side(times(A), omega)[0], (6, 3), seed=13
        )
        assert check_mean(values, A.trace(), bound, delta=DELTA).status == "fail"

    def test_a_wrong_dimension_in_the_rescaling(self):
        A, m = matrices(5)["flat"], 3
        bound = quadratic_form_variance(A, "gaussian")

        def wrong(omega):  # n in place of n - rank
            plain = leave_one_out(times(A), omega, rescale=False)
            right = leave_one_out(times(A), omega, rescale=True)
            Q, R = torch.linalg.qr(A @ omega)
            S = torch.linalg.inv(R).mT
            S = S / S.norm(dim=0)
            W = Q.mT @ omega
            length = (omega - Q @ (W - S * (S * W).sum(0))).square().sum(0)
            rest = (right - plain) / ((5 - m + 1) / length - 1)
            return (plain + (5 / length - 1) * rest).mean()

        values = trials(wrong, (5, m), seed=14)
        assert check_mean(values, A.trace(), bound, delta=DELTA).status == "fail"

    @pytest.mark.parametrize(
        ("estimator", "law"), [(hutchinson_mean, "gaussian"), (frobenius_mean, "rademacher")]
    )
    def test_a_wrong_variance_formula_is_seen(self, estimator, law):
        other = "rademacher" if law == "gaussian" else "gaussian"
        form = self.A if estimator is hutchinson_mean else self.A.T @ self.A
        design = (signs(4, 2),) if law == "rademacher" else gaussian(4, 2)
        _, variance, _ = moments(estimator, self.A, *design)
        assert close(variance, quadratic_form_variance(form, law) / 2, 100 * form.square().sum())
        assert abs(variance / (quadratic_form_variance(form, other) / 2) - 1) > 0.1


# --- randomness and results ----------------------------------------------------------------------

PUBLIC = {
    "hutchinson": hutchinson_trace,
    "hutchinson gaussian": lambda A, **o: hutchinson_trace(A, law="gaussian", **o),
    "frobenius": hutchinson_frobenius,
    "diagonal": hutchinson_diagonal,
    "diagonal gaussian": lambda A, **o: hutchinson_diagonal(A, law="gaussian", **o),
    "hutchpp": hutchpp_trace,
    "xtrace": xtrace,
    "xtrace rademacher": lambda A, **o: xtrace(A, law="rademacher", **o),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_seed_gives_one_estimate(name):
    A = matrices(10)["indefinite"]
    one, same, other = (
        PUBLIC[name](A, products=6, generator=generator(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one.value, same.value)
    assert torch.equal(one.standard_error, same.standard_error)
    assert not torch.equal(one.value, other.value)
    assert one.products == 6


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_follow_the_operator(name, dtype):
    A = matrices(10)["flat"]
    estimate = PUBLIC[name](A.to(dtype), products=6, generator=generator())
    assert estimate.value.dtype == estimate.standard_error.dtype == dtype
    shape = (10,) if "diagonal" in name else ()
    assert estimate.value.shape == estimate.standard_error.shape == shape


@pytest.mark.parametrize("rescale", [False, True])
def test_vmap_is_a_loop(rescale):
    As = torch.stack([matrices(7)[name] for name in ("flat", "rank 2", "not symmetric")])
    Zs = normal(3, 7, 5, seed=6)
    functions = [
        lambda A, Z: quadratic_forms(times(A), Z),
        lambda A, Z: squared_norms(times(A), Z),
        lambda A, Z: torch.stack(slopes(times(A), Z)),
        lambda A, Z: torch.stack(hutchpp_mean(times(A), Z, 2)),
        lambda A, Z: leave_one_out(times(A), Z, rescale=rescale),
    ]
    for function in functions:
        looped = torch.stack([function(A, Z) for A, Z in zip(As, Zs, strict=True)])
        assert relative_gap(torch.func.vmap(function)(As, Zs), looped) < EXACT


def test_one_sample_has_no_standard_error():
    A = matrices(5)["flat"]
    for estimator, products in (
        (hutchinson_trace, 1),
        (hutchinson_frobenius, 1),
        (hutchinson_diagonal, 1),
        (hutchpp_trace, 3),
        (xtrace, 2),
    ):
        estimate = estimator(A, products=products, generator=generator())
        assert estimate.value.isfinite().all()
        assert estimate.standard_error.isnan().all()
        assert estimate.products == products


def test_the_smallest_matrix():
    A = torch.tensor([[7.0]], **DOUBLE)
    for estimator, products in ((hutchpp_trace, 3), (xtrace, 2), (hutchinson_trace, 1)):
        estimate = estimator(A, products=products, generator=generator())
        assert isinstance(estimate, Estimate)
        assert abs(estimate.value - 7) < 1e-14
