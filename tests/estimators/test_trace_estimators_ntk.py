"""Trace estimators on kernels: operators of every kind, real images, random outputs."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import nn

from ntktheory import NTKOperator, empirical_ntk, functional, ntk_trace
from ntktheory.data import digits
from ntktheory.estimators import output_probes
from ntktheory.estimators.diagonal import hutchinson_diagonal, slopes
from ntktheory.estimators.evidence import check_mean
from ntktheory.estimators.frobenius import hutchinson_frobenius
from ntktheory.estimators.hutchinson import (
    hutchinson_trace,
    quadratic_form_variance,
    quadratic_forms,
)
from ntktheory.estimators.hutchpp import captured_and_rest, hutchpp_trace
from ntktheory.estimators.linear_operator import Products
from ntktheory.estimators.output_probes import output_probe_trace, squared_pullbacks
from ntktheory.estimators.reference_traces import output_probe_norms
from ntktheory.estimators.xtrace import leave_one_out, xtrace
from ntktheory.models import convnet, mlp
from ntktheory.ntk import reference
from ntktheory.ntk.matrix import to_matrix
from ntktheory.probes import all_signs, cubature5, sample_gaussian, sample_rademacher
from proofs_check import cases
from proofs_check.compare import relative_gap

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
EXACT = 1e-12
DELTA = 1e-9
ESTIMATORS = {
    "hutchinson": hutchinson_trace,
    "frobenius": hutchinson_frobenius,
    "diagonal": hutchinson_diagonal,
    "hutchpp": hutchpp_trace,
    "xtrace": xtrace,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def small():
    """A small convolutional network on real images, its kernel as a matrix and its trace."""
    images, _ = digits(4, **DOUBLE)
    net = convnet([1, 4, 8], 10, image_size=8, stride=[1, 2], generator=generator(), **DOUBLE)
    return net, images, to_matrix(empirical_ntk(net, images)), ntk_trace(net, images)


class TestOperators:
    @pytest.mark.parametrize("name", ESTIMATORS)
    def test_every_form_of_one_matrix_gives_one_estimate(self, name, small):
        net, images, theta, _ = small
        operator = NTKOperator(net, images)

        class OneByOne:
            shape, dtype = theta.shape, theta.dtype

            def matvec(self, v):
                return theta @ v

        class Bare:
            shape = theta.shape

            def matmat(self, V):
                return theta @ V

        forms = [
            operator,
            operator.to_scipy(),
            aslinearoperator(theta.numpy()),
            aslinearoperator(csr_array(theta.numpy())),
            LinearOperator(theta.shape, matvec=lambda v: theta.numpy() @ v, dtype=np.float64),
            OneByOne(),
            Bare(),
        ]
        expected = ESTIMATORS[name](theta, products=12, generator=generator())
        for form in forms:
            estimate = ESTIMATORS[name](form, products=12, generator=generator())
            assert relative_gap(estimate.value, expected.value) < EXACT
            assert relative_gap(estimate.standard_error, expected.standard_error) < 1e-10
            assert estimate.products == expected.products == 12

    @pytest.mark.parametrize("name", ESTIMATORS)
    @pytest.mark.parametrize("products", [6, 12, 18])
    def test_products_are_what_the_operator_was_asked(self, name, products):
        taken = []

        class Counting:
            shape, dtype = (20, 20), torch.float64

            def matmat(self, V):
                taken.append(V.shape[1])
                return 3 * V

        estimate = ESTIMATORS[name](Counting(), products=products, generator=generator())
        assert sum(taken) == estimate.products == products

    def test_number_types_of_scipy(self):
        whole = aslinearoperator(np.diag(np.arange(1, 5)))
        estimate = hutchinson_trace(whole, products=1, generator=generator())
        assert (estimate.value.item(), estimate.value.dtype) == (10.0, torch.float64)
        single = aslinearoperator(np.diag(np.arange(1, 5)).astype(np.float32))
        estimate = hutchinson_trace(single, products=1, generator=generator())
        assert (estimate.value.item(), estimate.value.dtype) == (10.0, torch.float32)

    @pytest.mark.parametrize("name", ESTIMATORS)
    def test_products_in_another_precision_are_converted(self, name):
        class Mixed:
            shape, dtype = (10, 10), torch.float32

            def matmat(self, V):
                return 2 * V.double()

        estimate = ESTIMATORS[name](Mixed(), products=6, generator=generator())
        assert estimate.value.dtype == estimate.standard_error.dtype == torch.float32


class TestRealKernels:
    """Digits and a small convolutional network, N = 4, C = 10; the trace from `ntk_trace`."""

    def check(self, values, expected, variance):
        verdict = check_mean(values, expected, variance, delta=DELTA)
        print(verdict.summary)
        assert verdict.status == "pass", verdict.summary

    @pytest.mark.parametrize("law", ["rademacher", "gaussian"])
    def test_quadratic_forms(self, law, small):
        net, images, theta, trace = small
        operator = Products(NTKOperator(net, images))
        sample = sample_gaussian if law == "gaussian" else sample_rademacher
        Z = sample({"z": theta[0]}, 3000, generator=generator(1))["z"].T
        self.check(quadratic_forms(operator, Z), trace, quadratic_form_variance(theta, law))
        assert operator.count == 3000

    @pytest.mark.parametrize("rescale", [False, True])
    def test_xtrace(self, rescale, small):
        *_, theta, trace = small
        points = torch.randn(4000, len(theta), 6, generator=generator(2), **DOUBLE)
        values = torch.func.vmap(
            lambda omega: leave_one_out(lambda V: theta @ V, omega, rescale=rescale).mean(),
            chunk_size=500,
        )(points)
        self.check(values, trace, quadratic_form_variance(theta, "gaussian"))

    def test_hutchpp(self, small):
        *_, theta, trace = small
        points = torch.randn(4000, len(theta), 9, generator=generator(3), **DOUBLE)

        def value(Z):
            captured, rest = captured_and_rest(lambda V: theta @ V, Z[:, :3], Z[:, 3:])
            return captured + rest.mean()

        values = torch.func.vmap(value, chunk_size=500)(points)
        self.check(values, trace, quadratic_form_variance(theta, "gaussian") / 6)

    def test_diagonal(self, small):
        *_, theta, _ = small
        Z = torch.stack([
            sample_rademacher({"z": theta[0]}, 2, generator=generator(seed))["z"].T
            for seed in range(3000)
        ])  # fmt: skip
        values = torch.func.vmap(lambda z: slopes(lambda V: theta @ V, z)[0])(Z)
        variance = (theta.square().sum(1) - theta.diagonal().square()) / 2
        self.check(values, theta.diagonal(), variance)

    def test_all_products_give_the_exact_trace(self, small):
        net, images, theta, trace = small
        operator, n = NTKOperator(net, images), len(theta)
        for estimator, products in ((xtrace, 2 * n), (hutchpp_trace, 3 * n)):
            estimate = estimator(operator, products=products, generator=generator())
            assert relative_gap(estimate.value, trace) < 1e-10

    def test_a_linear_network_has_a_kernel_of_low_rank(self):
        # f(x) = W x, W [3, 2]: the kernel is X Xᵀ ⊗ I_3, of rank 2·3.
        net, x = nn.Linear(2, 3, bias=False).double(), torch.randn(9, 2, **DOUBLE)
        operator, trace = NTKOperator(net, x), ntk_trace(net, x)
        assert operator.shape == (27, 27)
        for estimator, products in ((hutchpp_trace, 18), (xtrace, 14)):
            estimate = estimator(operator, products=products, generator=generator())
            assert relative_gap(estimate.value, trace) < EXACT


def norms_by_definition(f, masks, x, u, names=None):
    """Return ‖J_nᵀ u_n‖² from the explicit Jacobian."""
    rows = reference.jacobian(f.model_fn, f.params, masks, x)
    chosen = [j.flatten(2) for name, j in rows.items() if names is None or name in names]
    return output_probe_norms(torch.cat(chosen, dim=2), u)


class TestOutputProbes:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("name", list(cases.BUILDERS))
    def test_enumeration_of_all_signs(self, name, masked):
        net = cases.network(name)
        f = functional(net.model)
        masks = cases.random_masks(net.model) if masked else None
        theta = reference.ntk(f.model_fn, f.params, masks, net.x)
        blocks = theta.diagonal(dim1=0, dim2=1).movedim(-1, 0)  # Θ_nn, [N, C, C]
        n, c = blocks.shape[:2]
        u = all_signs({"u": torch.empty(c, **DOUBLE)}).probes["u"]

        def norms(v):
            return squared_pullbacks(
                f.model_fn, f.params, masks, net.x, v.expand(n, c), tuple(f.params)
            )

        values = torch.func.vmap(norms)(u)
        assert relative_gap(values, torch.stack([norms(v) for v in u])) < EXACT
        assert (
            relative_gap(values[0], norms_by_definition(f, masks, net.x, u[0].expand(n, c))) < EXACT
        )
        exact = ntk_trace(net.model, net.x, per="sample", masks=masks)
        assert relative_gap(values.mean(0), exact) < EXACT
        formula = torch.stack([quadratic_form_variance(b, "rademacher") for b in blocks])
        scale = float(blocks.square().sum((1, 2)).max())
        assert float((values.var(0, correction=0) - formula).abs().max()) < EXACT * scale

    def test_gaussian_variance(self):
        net = cases.network("MLP with biases")
        f = functional(net.model)
        theta = reference.ntk(f.model_fn, f.params, None, net.x)
        n, _, c, _ = theta.shape
        design = cubature5({"u": torch.empty(c, **DOUBLE)})
        values = torch.stack([
            squared_pullbacks(f.model_fn, f.params, None, net.x, u.expand(n, c), tuple(f.params))
            for u in design.probes["u"]
        ])  # fmt: skip
        mean = design.weights @ values
        variance = design.weights @ (values - mean).square()
        assert relative_gap(mean, ntk_trace(net.model, net.x, per="sample")) < EXACT
        formula = [quadratic_form_variance(theta[i, i], "gaussian") for i in range(n)]
        assert relative_gap(variance, torch.stack(formula)) < 1e-11

    @pytest.mark.parametrize("chunks", [None, (2, 3), (1, 1)])
    @pytest.mark.parametrize("law", ["rademacher", "gaussian"])
    @pytest.mark.parametrize("select", [None, "prunable", ["layer2.bias"]], ids=str)
    def test_estimate_and_standard_error(self, law, chunks, select, monkeypatch):
        net = mlp([5, 7, 4], bias=True, generator=generator(), **DOUBLE)
        x, f, K = torch.randn(8, 5, generator=generator(1), **DOUBLE), functional(net), 6
        if chunks is not None:
            monkeypatch.setattr(output_probes, "planned_chunks", lambda *args, **kwargs: chunks)
        sample = sample_gaussian if law == "gaussian" else sample_rademacher
        U = sample({"u": torch.empty(8, 4, **DOUBLE)}, K, generator=generator(2))["u"]
        names = f.prunable if select == "prunable" else select
        norms = torch.stack([norms_by_definition(f, None, x, u, names) for u in U])
        variance = norms.var(0) / K
        options: dict[str, Any] = {"probes": K, "law": law, "select": select}

        total = output_probe_trace(net, x, generator=generator(2), **options)
        assert relative_gap(total.value, norms.sum(1).mean()) < EXACT
        assert relative_gap(total.standard_error, variance.sum().sqrt()) < 1e-10
        sample_terms = output_probe_trace(net, x, per="sample", generator=generator(2), **options)
        assert relative_gap(sample_terms.value, norms.mean(0)) < EXACT
        assert relative_gap(sample_terms.standard_error, variance.sqrt()) < 1e-10
        assert total.products == sample_terms.products == K

    def test_on_real_images(self, small):
        net, images, theta, trace = small
        blocks = [theta[10 * n : 10 * n + 10, 10 * n : 10 * n + 10] for n in range(len(images))]
        variance = torch.stack([quadratic_form_variance(b, "rademacher") for b in blocks]).sum()
        f = functional(net)
        U = sample_rademacher({"u": torch.empty(4, 10, **DOUBLE)}, 2000, generator=generator(5))[
            "u"
        ]
        values = torch.func.vmap(
            lambda u: squared_pullbacks(
                f.model_fn, f.params, None, images, u, tuple(f.params)
            ).sum(),
            chunk_size=100,
        )(U)
        verdict = check_mean(values, trace, variance, delta=DELTA)
        print(verdict.summary)
        assert verdict.status == "pass", verdict.summary
        assert variance < quadratic_form_variance(theta, "rademacher")

    def test_probes_shared_by_the_samples_are_a_different_estimator(self, small):
        """Planted error: one u for all samples keeps the mean but not the stated variance."""
        *_, theta, _ = small
        blocks = theta.reshape(4, 10, 4, 10)
        shared = sum(blocks[n, :, n] for n in range(4))
        separate = sum(quadratic_form_variance(blocks[n, :, n], "rademacher") for n in range(4))
        assert quadratic_form_variance(shared, "rademacher") > 1.5 * separate

    def test_one_probe_has_no_standard_error(self, small):
        net, images, *_ = small
        estimate = output_probe_trace(net, images, probes=1, generator=generator())
        assert estimate.value > 0
        assert estimate.standard_error.isnan()

    def test_one_output_needs_no_luck(self):
        net, x = mlp([5, 7, 1], generator=generator(), **DOUBLE), torch.ones(3, 5, **DOUBLE)
        estimate = output_probe_trace(net, x, probes=2, generator=generator())
        assert relative_gap(estimate.value, ntk_trace(net, x)) < EXACT
        assert estimate.standard_error <= EXACT * estimate.value

    def test_numbers_follow_the_model(self):
        net = mlp([5, 7, 3], generator=generator())
        estimate = output_probe_trace(net, torch.ones(2, 5), probes=3, generator=generator())
        assert estimate.value.dtype == estimate.standard_error.dtype == torch.float32

    def test_vmap_over_parameters_and_masks_is_a_loop(self):
        net = cases.network("CNN")
        f = functional(net.model)
        sets = [
            {k: torch.randn(p.shape, generator=generator(i), **DOUBLE) for k, p in f.params.items()}
            for i in range(3)
        ]
        masks = [cases.random_masks(net.model, 0.8, seed) for seed in range(3)]
        u = torch.randn(len(net.x), 3, generator=generator(7), **DOUBLE)

        def norms(params, mask):
            return squared_pullbacks(f.model_fn, params, mask, net.x, u, tuple(f.params))

        looped = torch.stack([norms(*pair) for pair in zip(sets, masks, strict=True)])
        stacked = [
            {k: torch.stack([s[k] for s in many]) for k in f.params} for many in (sets, masks)
        ]
        assert relative_gap(torch.func.vmap(norms)(*stacked), looped) < EXACT
