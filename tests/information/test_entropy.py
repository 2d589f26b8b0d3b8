"""Entropy estimators: known values, their definitions sample by sample, and bad input."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from ntktheory.information.entropy import ESTIMATORS, entropy_estimate

COUNTS = (4, 2, 3, 0, 2, 4, 0, 0, 2, 1, 1)
KNOWN_NATS = {
    "plug_in": 1.9683824087,
    "miller_madow": 2.1525929350,
    "chao_shen": 2.2011371013,
    "jackknife": 2.2312743142,
}


def nats(counts, estimator, **options):
    return entropy_estimate(counts, estimator, **options).bits * math.log(2)


@pytest.mark.parametrize("estimator", KNOWN_NATS)
def test_known_values(estimator):
    assert nats(COUNTS, estimator) == pytest.approx(KNOWN_NATS[estimator], abs=1e-10)


def test_nsb_s_known_value():
    assert nats(COUNTS[:9], "nsb") == pytest.approx(1.94064673, abs=5e-9)
    assert nats((4, 2, 3, 2, 4, 2), "nsb", classes=9) == pytest.approx(1.94064673, abs=5e-9)


def test_jackknife_sample_by_sample():
    samples = [i for i, count in enumerate(COUNTS) for _ in range(count)]
    n = len(samples)

    def plug_in(drawn):
        shares = np.unique(drawn, return_counts=True)[1] / len(drawn)
        return -float((shares * np.log(shares)).sum())

    without = [plug_in(samples[:i] + samples[i + 1 :]) for i in range(n)]
    pseudo = [n * plug_in(samples) - (n - 1) * h for h in without]
    found = entropy_estimate(COUNTS, "jackknife")
    assert found.bits * math.log(2) == pytest.approx(np.mean(pseudo), rel=1e-12)
    error = float(np.std(pseudo, ddof=1)) / math.sqrt(n)
    reach = (found.high_bits - found.low_bits) / 2 * math.log(2)
    assert reach == pytest.approx(norm.ppf(0.975) * error, rel=1e-9)


def test_plug_in_s_interval_by_hand():
    found = entropy_estimate([3, 1], level=0.9)
    p = np.array([0.75, 0.25])
    deviation = math.sqrt(float((p * np.log2(p) ** 2).sum()) - found.bits**2) / 2
    assert found.high_bits - found.bits == pytest.approx(norm.ppf(0.95) * deviation, rel=1e-12)
    assert found.bits - found.low_bits == pytest.approx(norm.ppf(0.95) * deviation, rel=1e-9)


def test_chao_shen_by_hand():
    # n = 4, f₁ = 2: C = 1/2, p = (1/4, 1/8, 1/8)
    shares = [0.25, 0.125, 0.125]
    wanted = -sum(p * math.log(p) / (1 - (1 - p) ** 4) for p in shares)
    assert nats([2, 1, 1], "chao_shen") == pytest.approx(wanted, rel=1e-12)
    shares = [1 / 9] * 3  # all seen once: C = 1 − 2/3
    wanted = -sum(p * math.log(p) / (1 - (1 - p) ** 3) for p in shares)
    assert nats([1, 1, 1], "chao_shen") == pytest.approx(wanted, rel=1e-12)


def test_nsb_by_sampling_its_posterior():
    """Importance sampling: β from its prior by a grid of ξ, laws from the Dirichlet posterior."""
    from scipy.optimize import brentq
    from scipy.special import digamma, gammaln

    counts, k = np.array([3, 1, 0]), 3
    n = counts.sum()
    xi = (np.arange(200) + 0.5) / 200 * math.log(k)

    def gap(log_beta, target):
        return digamma(k * math.exp(log_beta) + 1) - digamma(math.exp(log_beta) + 1) - target

    beta = np.exp([brentq(gap, -40, 40, args=(target,)) for target in xi])
    at = beta[:, None]
    likelihood = gammaln(k * beta) - gammaln(n + k * beta)
    likelihood += (gammaln(counts + at) - gammaln(at)).sum(1)
    weights = np.exp(likelihood - likelihood.max())
    generator = np.random.default_rng(0)
    means, squares = [], []
    for b in beta:
        p = np.maximum(generator.dirichlet(counts + b, 4000), 1e-300)
        h = -(p * np.log(p)).sum(1)
        means.append(h.mean())
        squares.append((h**2).mean())
    mean = np.average(means, weights=weights)
    deviation = math.sqrt(np.average(squares, weights=weights) - mean**2)
    found = entropy_estimate(counts, "nsb")
    assert found.bits * math.log(2) == pytest.approx(mean, rel=0.005)
    reach = (found.high_bits - found.low_bits) / 2 * math.log(2)
    assert reach == pytest.approx(norm.ppf(0.975) * deviation, rel=0.01)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_converges_to_the_entropy_of_the_law(estimator):
    p = np.array([0.4, 0.3, 0.2, 0.05, 0.05])
    counts = np.random.default_rng(1).multinomial(200_000, p)
    found = entropy_estimate(counts, estimator)
    truth = -float((p * np.log2(p)).sum())
    assert found.low_bits < truth < found.high_bits
    assert found.high_bits - found.low_bits < 0.02


def test_plug_in_is_low_by_half_the_classes_over_the_samples():
    p = np.full(64, 1 / 64)
    drawn = np.random.default_rng(2).multinomial(1000, p, size=400)
    errors = [nats(counts, "plug_in") - math.log(64) for counts in drawn]
    assert np.mean(errors) == pytest.approx(-63 / 2000, rel=0.05)
    corrected = [nats(counts, "miller_madow") - math.log(64) for counts in drawn]
    assert abs(np.mean(corrected)) < 0.002


@pytest.mark.parametrize("estimator", ["plug_in", "miller_madow", "jackknife", "chao_shen"])
def test_one_class_has_no_entropy(estimator):
    found = entropy_estimate([7, 0, 0], estimator)
    assert (found.bits, found.low_bits, found.high_bits) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("counts", "options", "text"),
    [
        ([1, 0], {}, r"counts must be non-negative integers with a sum of at least 2"),
        ([2, -1], {}, "counts must be non-negative integers"),
        ([0.5, 1.5], {}, "counts must be non-negative integers"),
        ([], {}, "counts must be non-negative integers"),
        (3, {}, "counts must be non-negative integers .*, got 3"),
        ([2, 1], {"estimator": "grassberger"}, "estimator must be one of 'chao_shen', 'jackknife'"),
        ([2, 1], {"level": 95}, r"level must be inside \(0, 1\), got 95"),
        ([2, 1, 1], {"classes": 2}, "classes must be at least 3, got 2"),
        ([2], {"estimator": "nsb"}, "classes must be at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(counts, options, text):
    with pytest.raises(ValueError, match=text):
        entropy_estimate(counts, **options)
