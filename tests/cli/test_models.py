"""``ntktheory models``."""

from ntktheory.cli.inputs import read_options
from ntktheory.models import MODELS
from tests.cli.shared import run


def test_every_model_with_its_options_as_arg_takes_them(capsys):
    status, printed, _ = run("models", capsys=capsys)
    assert status == 0
    lines = printed.splitlines()
    for (name, entry), first, second in zip(MODELS.items(), lines[::2], lines[1::2], strict=True):
        assert first.split() == [name, *entry.description.split()]
        options = read_options(second.split())
        expected = {k: list(v) if isinstance(v, tuple) else v for k, v in entry.options.items()}
        assert options == expected
