"""Every example in a docstring runs and gives what it shows."""

import doctest
import importlib
import pkgutil

import pytest
import torch
from torch import nn

import ntktheory

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples(name):
    """Return the examples of one module's docstrings, with torch and nn at hand."""
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, name, extraglobs={"torch": torch, "nn": nn})
    return [test for test in found if test.examples]


def failures(test):
    """Return what the examples of one docstring print that they do not show."""
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    return "".join(report)


NAMES = [info.name for info in pkgutil.walk_packages(ntktheory.__path__, "ntktheory.")]
EXAMPLES = {
    test.name: test for name in NAMES if not name.endswith("__main__") for test in examples(name)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    assert failures(EXAMPLES[name]) == ""


def test_the_examples_are_found():
    assert {"ntktheory.ntk.kernel.empirical_ntk", "ntktheory.functional.functional"} <= set(
        EXAMPLES
    )


def test_a_wrong_example_is_noticed():
    def parse(text):
        return doctest.DocTestParser().get_doctest(text, {"torch": torch}, "made up", None, None)

    assert failures(parse(">>> torch.ones(2).sum().item()\n2.0\n")) == ""
    assert "Expected:" in failures(parse(">>> torch.ones(2).sum().item()\n3.0\n"))
