"""E1 to E5 on made-up records whose verdicts are known."""

import random

import pytest

from proofs_check.claim import CLAIMS
from proofs_check.claims import spectra
from proofs_check.claims.spectra import COMPARED, RESNET

SEEDS, DENSITIES = range(10), (0.64, 0.0687, 0.018)
SMALL = "mlp:digits"
SCORERS = (*COMPARED, "synflow_l2")


def record(**measures):
    """Make a record; each measure is a function of (scorer, density, noise)."""
    noise = random.Random(0)
    plain = {
        "log_rms": lambda s, d, e: 1.0 + e,
        "l2": lambda s, d, e: 1.0,
        "l2_normalised": lambda s, d, e: 1.0,
        "log_top": lambda s, d, e: 0.1 + e,
        "log_rest": lambda s, d, e: 1.0 + e,
        "trace_ratio": lambda s, d, e: d + e,
        "edge_ratio": lambda s, d, e: d + e,
        "trained_distance": lambda s, d, e: 1.0 + e,
        "linearised_distance": lambda s, d, e: 1.0 + e,
        "widths": lambda s, d, e: [1.0, 0.5 + e],
    } | measures
    rows = [
        {"cell": cell, "seed": seed, "scorer": scorer, "density": density}
        | {m: f(scorer, density, 0.01 * noise.random()) for m, f in plain.items()}
        for cell in (SMALL, RESNET)
        for seed in SEEDS
        for scorer in SCORERS
        for density in DENSITIES
    ]
    return {"rows": rows}


def rank(scorer):
    return 0.1 * SCORERS.index(scorer)


def status(check, made, **subjects):
    return check("quick", load=lambda: made, **subjects).status


class TestClosestSpectrum:
    def judge(self, **measures):
        return status(spectra.closest_spectrum, record(**measures), compare=spectra.closest)

    def test_px_is_closest(self):
        assert self.judge(log_rms=lambda s, d, e: e + (s != "px")) == "supported"

    def test_px_is_farthest(self):
        assert self.judge(log_rms=lambda s, d, e: e + (s == "px")) == "opposite"

    def test_one_other_is_closer(self):
        far = {"px": 1, "snip": 0}
        assert self.judge(log_rms=lambda s, d, e: e + far.get(s, 2)) == "not-supported"

    def test_no_difference(self):
        assert self.judge() == "inconclusive"

    def test_other_densities_do_not_count(self):
        far = lambda s, d, e: e + (s != "px" if d == 0.0687 else s == "px")  # noqa: E731
        assert self.judge(log_rms=far) == "supported"


class TestEigenvalues:
    def judge(self, check, **measures):
        made = record(**measures)
        return check("quick", load=lambda: made, **{"margin": MARGINS[check]}).status

    def test_large_ones_stay(self):
        check = spectra.large_eigenvalues_stay
        assert self.judge(check) == "supported"
        assert self.judge(check, log_top=lambda s, d, e: 0.4 + e) == "opposite"
        one = lambda s, d, e: (0.4 if d == 0.018 else 0.1) + e  # noqa: E731
        assert self.judge(check, log_top=one) == "not-supported"

    def test_small_ones_drift(self):
        check = spectra.small_eigenvalues_drift
        assert self.judge(check) == "supported"
        assert self.judge(check, log_rest=lambda s, d, e: 0.05 + e) == "opposite"


MARGINS = {CLAIMS[id_].check: CLAIMS[id_].subjects["margin"] for id_ in ("E2", "E2.small_drift")}


class TestWhatGoesWithTheSpectrum:
    def judge(self, check, **measures):
        measures = {"log_rms": lambda s, d, e: rank(s) + e} | measures
        return status(check, record(**measures), correlate=spectra.spearman)

    def test_trace_and_bound(self):
        high = lambda s, d, e: 1 - rank(s) + e  # noqa: E731
        check = spectra.trace_and_spectrum
        assert self.judge(check, trace_ratio=high, edge_ratio=high) == "supported"
        low = lambda s, d, e: rank(s) + e  # noqa: E731
        assert self.judge(check, trace_ratio=low, edge_ratio=low) == "opposite"
        assert self.judge(check, trace_ratio=high, edge_ratio=low) == "not-supported"

    def test_density_alone_explains_nothing(self):
        check = spectra.trace_and_spectrum
        found = self.judge(check, log_rms=lambda s, d, e: 1 - d + e)
        assert found == "inconclusive"

    def test_training(self):
        far = lambda s, d, e: rank(s) + e  # noqa: E731
        check = spectra.spectrum_and_training
        assert self.judge(check, trained_distance=far, linearised_distance=far) == "supported"
        assert self.judge(check) == "inconclusive"

    @pytest.mark.parametrize(("diverges", "expected"), [("farthest", 1.0), ("closest", -0.5)])
    def test_what_diverges_counts_as_farthest(self, diverges, expected):
        """Distances 1, 2, 3 of both; one network has no distance along training."""
        gone = {"farthest": "c", "closest": "a"}[diverges]
        rows = {
            (s, 0.5): {"log_rms": float(d)} | ({} if s == gone else {"trained_distance": float(d)})
            for d, s in enumerate("abc", start=1)
        }
        found = spectra.within_density(rows, "trained_distance", "log_rms", spectra.spearman)
        assert found == pytest.approx(expected)

    def test_scorers_of_published_code_do_not_count_twice(self):
        rows = {
            (s, 0.5): {"log_rms": float(d), "trace_ratio": float(t)}
            for s, d, t in (("a", 1, 1), ("b", 2, 2), ("px_repo", 3, 0))
        }
        found = spectra.within_density(rows, "trace_ratio", "log_rms", spectra.spearman)
        assert found == pytest.approx(1.0)


class TestWidths:
    def judge(self, **measures):
        return status(spectra.stable_widths, record(**measures), width=spectra.narrowest)

    def test_px_has_no_bottleneck(self):
        narrow = lambda s, d, e: [1.0, (0.1 if s == "synflow_l2" else 0.9) + e]  # noqa: E731
        assert self.judge(widths=narrow) == "supported"

    def test_px_has_one(self):
        assert (
            self.judge(widths=lambda s, d, e: [1.0, (0.1 if s == "px" else 0.9) + e]) == "opposite"
        )

    def test_alike(self):
        assert self.judge() == "inconclusive"

    def test_narrowest(self):
        assert spectra.narrowest({"widths": [1.0, 0.5, 0.0]}) == 0.0
        assert spectra.narrowest({"widths": [0.2, 0.4]}) == pytest.approx(2 / 3)
        assert spectra.narrowest({"widths": [0.0, 0.0]}) == 0.0


def test_refused_rows_are_left_out():
    made = record()
    made["rows"].append({"cell": SMALL, "seed": 0, "scorer": "phew", "refused": "why"})
    assert all(
        scorer != "phew" for rows in spectra.table(made, SMALL).values() for scorer, _ in rows
    )
