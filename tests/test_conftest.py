"""The seeding shim: torch's global generator is part of what Hypothesis reproduces."""

import hypothesis
import torch
from hypothesis import given
from hypothesis import strategies as st


def test_every_example_starts_from_the_same_torch_seed() -> None:
    drawn = []

    @hypothesis.settings(max_examples=10, database=None)
    @given(st.integers())
    def draw(_: int) -> None:
        drawn.append(torch.rand(()).item())

    draw()
    assert len(drawn) > 1
    assert len(set(drawn)) == 1


def test_torch_generator_is_restored_after_a_property_test() -> None:
    before = torch.get_rng_state()

    @hypothesis.settings(max_examples=3, database=None)
    @given(st.integers())
    def draw(_: int) -> None:
        torch.rand(5)

    draw()
    assert torch.equal(before, torch.get_rng_state())


def test_default_dtype_is_left_alone() -> None:
    assert torch.get_default_dtype() == torch.float32
