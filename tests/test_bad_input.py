"""Bad input is refused: with the right error, in words that name it, and with nothing changed."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntktheory import (
    NumericalError,
    UnsupportedModule,
    apply_masks,
    empirical_ntk,
    functional,
    ntk_sap_objective,
    ntk_trace,
    path_bounds,
)
from ntktheory.data import digits
from ntktheory.estimators.moments import smooth_bias_coefficient, subset_bias, with_fixed_gates
from ntktheory.models import convnet, mlp
from ntktheory.paths.reference import decompose
from ntktheory.pruning.scorers import px, px_bound

X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]], dtype=torch.float64)
NAN, INF = float("nan"), float("inf")
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


def net(bias=True):
    return nn.Sequential(nn.Linear(3, 4, bias), nn.ReLU(), nn.Linear(4, 2, bias)).double()


class Scaled(nn.Module):
    """Multiplies by a parameter outside of any layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.weight


def filled(model, value):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    return model


def with_entry(value):
    x = X.clone()
    x[1, 2] = value
    return x


def ones(shape, **options):
    return torch.ones(shape, dtype=torch.float64, **options)


def sap(model, x, **options):
    """Call ntk_sap_objective with one probe of ones."""
    probes = {name: torch.ones_like(p)[None] for name, p in functional(model).params.items()}
    return ntk_sap_objective(model, x, **{"sigma": 0.1, "probes": probes} | options)


def ntk_of_pair(model, x):
    return empirical_ntk(model, X, x)


def assert_refused(call, error, text):
    """Check that ``call()`` raises exactly ``error``, with ``text`` in its message."""
    with pytest.raises(error, match=re.escape(text)) as caught:
        call()
    assert caught.type is error


class Applies(nn.Module):
    """A Linear layer, then ``function(h, x)``, then a Linear layer."""

    def __init__(self, function):
        super().__init__()
        self.first, self.head = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.first(x), x))


class BatchMean(nn.Module):
    """A network that mixes samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Halves(nn.Module):
    """A network that calls its layer once for one sample, and twice for more."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return torch.cat([self.layer(part) for part in x.split([1, len(x) - 1]) if len(part)])


class Fickle(nn.Module):
    """A network that is another function at every call."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x if self.calls % 2 else x + x)


class Shortcut(nn.Module):
    """A layer and a shortcut around it: no layer carries all of f, and no Linear ends it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) + x


class PositionsFirst(nn.Module):
    """ReLUs whose first axis is not the samples."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(F.relu(self.inner(x.transpose(0, 1)))).mean(0)


# Batches and models, at every entry.

ENTRIES = {
    "empirical_ntk": (empirical_ntk, "x1"),
    "empirical_ntk, second batch": (ntk_of_pair, "x2"),
    "ntk_trace": (ntk_trace, "x"),
    "path_bounds": (path_bounds, "x"),
    "ntk_sap_objective": (sap, "x"),
    "smooth_bias_coefficient": (smooth_bias_coefficient, "x"),
}
BATCHES = {
    "list": (X.tolist(), TypeError, "must be a torch.Tensor, got list. Convert it"),
    "array": (X.numpy(), TypeError, "must be a torch.Tensor, got ndarray. Convert it"),
    "no samples": (X[:0], ValueError, "must be a non-empty batch of shape [N, ...], got shape [0,"),
    "no features": (X[:, :0], ValueError, "must be a non-empty batch of shape [N, ...], got shape"),
    "a number": (X[0, 0], ValueError, "must be a non-empty batch of shape [N, ...], got shape []"),
    "NaN": (
        with_entry(NAN), NumericalError, "must be finite, got 1 of 6 entries NaN or Inf. Clean"
    ),
    "Inf": (
        with_entry(-INF), NumericalError, "must be finite, got 1 of 6 entries NaN or Inf. Clean"
    ),
    "wrong width": (
        ones((2, 5)), ValueError,
        "must be a batch that the model takes, got shape [1, 5], torch.float64 on cpu. Give it",
    ),
    "no sample axis": (X[0], ValueError, "must be a batch that the model takes, got shape [1]"),
}  # fmt: skip
MODELS = {
    "train-mode batch norm": (
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), ValueError,
        "model must be in eval mode, got train-mode BatchNorm1d at '1'. Call model.eval()",
    ),
    "train-mode dropout": (
        nn.Sequential(nn.Sequential(nn.Linear(3, 2), nn.Dropout())), ValueError,
        "model must be in eval mode, got train-mode Dropout at '0.1'",
    ),
    "train-mode dropout alone": (
        nn.Dropout(), ValueError, "model must be in eval mode, got train-mode Dropout at 'the top'"
    ),
    "train-mode random ReLU": (
        nn.Sequential(nn.Linear(3, 2), nn.RReLU()), ValueError, "got train-mode RReLU at '1'"
    ),
    "batch norm without statistics": (
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval(),
        ValueError,
        "whose samples do not mix, got BatchNorm1d at '1' without running statistics",
    ),
    "mixed samples": (
        BatchMean(), ValueError, "model must be a function that treats samples independently and"
    ),
    "one output axis": (
        nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), ValueError,
        "model must be a network with outputs of shape [N, C], N = 1, got shape [1]",
    ),
    "three output axes": (
        nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1))), ValueError,
        "with outputs of shape [N, C], N = 1, got shape [1, 2, 1]",
    ),
    "outputs in a tuple": (nn.RNN(3, 2), ValueError, "outputs of shape [N, C], N = 1, got tuple"),
    "too many outputs": (
        nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(0, 1)), ValueError,
        "with outputs of shape [N, C], N = 1, got shape [2, 2]",
    ),
    "no parameters": (nn.ReLU(), ValueError, "model must be a network with parameters, got none"),
    "a function": (
        torch.relu, TypeError,
        "model must be an nn.Module or a FunctionalModel, got builtin_function_or_method. Wrap a",
    ),
    "overflowing outputs": (
        filled(net(), 1e200), NumericalError,
        "model outputs must be finite, got 2 of 2 entries NaN or Inf. The input was finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_batch(entry, batch):
    call, argument = ENTRIES[entry]
    x, error, text = BATCHES[batch]
    assert_refused(lambda: call(net(), x), error, f"{argument} {text}")


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "path_bounds"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.long])
def test_wrong_dtype(entry, dtype):
    call, argument = ENTRIES[entry]
    text = f"{argument} must be a batch that the model takes, got shape [1, 3], {dtype} on cpu."
    assert_refused(lambda: call(net(), X.to(dtype)), ValueError, text)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "entry", [name for name in ENTRIES if name != "empirical_ntk, second batch"]
)
def test_bad_model(entry, model):
    call, _ = ENTRIES[entry]
    module, error, text = MODELS[model]
    bad = module.double() if isinstance(module, nn.Module) else module
    assert_refused(lambda: call(bad, X), error, text)


# Masks, at every entry that takes them.

MASKED = {
    "empirical_ntk": lambda masks: empirical_ntk(net(), X, masks=masks),
    "ntk_trace": lambda masks: ntk_trace(net(), X, masks=masks),
    "path_bounds": lambda masks: path_bounds(net(), X, masks=masks),
    "ntk_sap_objective": lambda masks: sap(net(), X, masks=masks),
    "apply_masks": lambda masks: apply_masks(net(), masks),
}
MASKS = {
    "unknown name": (
        {"3.weight": ones((4, 3))}, ValueError,
        f"masks must be named like the parameters ({', '.join(NAMES)}), got '3.weight'. Rename",
    ),
    "not a tensor": (
        {"0.bias": [True] * 4}, TypeError, "masks['0.bias'] must be a torch.Tensor, got list."
    ),
    "wrong shape": (
        {"0.bias": ones(4), "0.weight": ones((3, 4))}, ValueError,
        "masks['0.weight'] must be of shape [4, 3], got [3, 4]. Give it the shape of its",
    ),
}  # fmt: skip


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("entry", MASKED)
def test_bad_mask(entry, masks):
    bad, error, text = MASKS[masks]
    assert_refused(lambda: MASKED[entry](bad), error, text)


# Options.


def ntk(**options):
    return lambda: empirical_ntk(net(), X, **options)


def trace(**options):
    return lambda: ntk_trace(net(), X, **options)


def probed(**probes):
    return lambda: ntk_sap_objective(nn.Linear(3, 2).double(), X, sigma=0.1, probes=probes)


OPTIONS = {
    "engine": (
        ntk(engine="fast"),
        "engine must be one of 'auto', 'jacobian', 'layerwise', 'ntk_vp', got 'fast'",
    ),
    "output": (
        ntk(output="sum"),
        "output must be one of 'diagonal', 'full', 'trace', got 'sum'",
    ),
    "per": (
        trace(per="class"),
        "per must be one of 'layer', 'parameter', 'sample', 'total', got 'class'",
    ),
    "form": (lambda: sap(net(), X, form="vjp"), "one of 'finite_difference', 'jvp', got 'vjp'"),
    "bound": (
        lambda: path_bounds(net(), X, names=["edge", "Edge"]), "'px_per_output', 't_sq', got 'Edge'"
    ),
    "select, a word": (
        trace(select="all"), "select must be one of 'prunable', got 'all'"
    ),
    "select, a name": (
        ntk(select=["0.weight", "1.weight"]),
        "select must be one of '0.bias', '0.weight', '2.bias', '2.weight', got '1.weight'",
    ),
    "select, nothing": (
        trace(select=lambda name, p: p.ndim == 3),
        f"a choice of at least one parameter, got none. The parameters are {', '.join(NAMES)}.",
    ),
    "chunk_size 0": (
        trace(chunk_size=0),
        "chunk_size must be a positive integer or None, got 0. Leave it out",
    ),
    "chunk_size -1": (ntk(chunk_size=-1), "integer or None, got -1"),
    "chunk_size 1.5": (trace(chunk_size=1.5), "integer or None, got 1.5"),
    **{
        f"sigma {value}": (
            lambda value=value: sap(net(), X, sigma=value),
            f"sigma must be a positive standard deviation, got {value}. The published epsilon",
        )
        for value in (0, -0.1, NAN, INF)
    },
    "no probes": (probed(), "probes must be at least one probe, got none"),
    "probe, unknown name": (
        probed(w=ones((1, 2, 3))), "probes must be named like the parameters (weight, bias), got 'w'"
    ),
    "probe, wrong shape": (
        probed(weight=ones((2, 3))), "probes['weight'] must be of shape [K, 2, 3], got [2, 3]"
    ),
    "probe, other number": (
        probed(weight=ones((4, 2, 3)), bias=ones((5, 2))),
        "probes['bias'] must be 4 probes, as the entries before it, got 5",
    ),
    "mlp, one width": (lambda: mlp([3]), "widths must be at least two positive numbers, got [3]"),
    "mlp, no units": (lambda: mlp([3, 0, 2]), "at least two positive numbers, got [3, 0, 2]"),
    "convnet, one channel": (lambda: convnet([3], 2, image_size=8), "channels must be at least two"),
    "convnet, too many strides": (
        lambda: convnet([1, 4, 4], 2, image_size=8, stride=[1, 2, 2]),
        "stride must be a positive number or 2 of them for [1, 4, 4] channels, got [1, 2, 2]",
    ),
    "convnet, head": (
        lambda: convnet([1, 4], 2, image_size=8, head="max"),
        "head must be one of 'average', 'flatten', got 'max'",
    ),
    "convnet, small image": (
        lambda: convnet([1, 4], 2, image_size=2, padding=0),
        "image_size must be large enough for the layers, got 2",
    ),
    "digits, none": (lambda: digits(0), "count must be an integer between 1 and 1797, got 0"),
    "digits, too many": (lambda: digits(1798), "count must be an integer between 1 and 1797, got 1798"),
    "subset_bias, large": (
        lambda: subset_bias(mlp([4, 5], dtype=torch.float64), ones((1, 4)), 0.1),
        "model must be a network of at most 16 parameters, got 20",
    ),
    "decompose, large": (
        lambda: decompose(mlp([30, 30, 30]), torch.ones(1, 30)),
        "model must be a network with at most 20000 paths, got more. Use path_bounds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_bad_option(option):
    call, text = OPTIONS[option]
    assert_refused(call, ValueError, text)


# What the theory does not cover.


def bounds_of(model, name, x=X):
    return lambda: path_bounds(model, x, names=name)


def twice():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(3, 2))


UNSUPPORTED = {
    "layerwise": (
        lambda: empirical_ntk(
            nn.Sequential(nn.Linear(3, 2), Scaled()).double(), X, engine="layerwise"
        ),
        "model must be made of layers that have a rule, got other uses of '1.weight'. Use",
    ),
    "calls by batch size": (
        lambda: empirical_ntk(Halves().double(), X, engine="layerwise"),
        "model must be made of layers that have a rule, got other uses of",
    ),
    **{
        f"{name}, weight used twice": (
            bounds_of(twice(), ["edge", name]),
            f"bounds that are defined for this network, got {name!r}: '0.weight' is used twice",
        )
        for name in ("px", "px_per_output", "t_sq")
    },
    "abs, positions first": (
        bounds_of(PositionsFirst(), "abs", ones((2, 5, 3))),
        "got 'abs': its ReLUs do not have the sample axis first",
    ),
    "last_layer, shortcut": (
        bounds_of(Shortcut(), "last_layer"), "got 'last_layer': the outputs are not those of a Linear"
    ),
    "euler, biases": (
        bounds_of(net(), "euler"), "got 'euler': biases or shortcuts bypass every layer. Leave"
    ),
    "euler, shortcut": (bounds_of(Shortcut(), "euler"), "got 'euler': biases or shortcuts bypass"),
    "decompose": (
        lambda: decompose(nn.Sequential(nn.Sequential(nn.Linear(3, 2), nn.Tanh())), X),
        "AvgPool2d and Flatten, padded by numbers of zeros, got Tanh at '0.1'. Enumerate a simpler",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_unsupported(what):
    call, text = UNSUPPORTED[what]
    assert_refused(call, UnsupportedModule, text)


FUNCTIONS = [
    ("gelu", lambda h, x: F.gelu(h)),
    ("tanh", lambda h, x: h.tanh()),
    ("clamp", lambda h, x: h.clamp(min=0)),
    ("softmax", lambda h, x: h.softmax(1)),
    ("abs", lambda h, x: torch.abs(h)),
    ("maximum", lambda h, x: torch.maximum(h, x)),
    ("layer_norm", lambda h, x: F.layer_norm(h, (3,))),
    ("pad with a constant", lambda h, x: F.pad(h[:, 1:], (1, 0), value=1.0)),
    ("mul", lambda h, x: torch.mul(h, x)),
    ("matmul", lambda h, x: torch.matmul(h, x.mT)[:, [0, 0, 0]]),
    ("detach", lambda h, x: h.detach()),
    ("ones_like", lambda h, x: torch.cat([h[:, 1:], torch.ones_like(h[:, :1])], 1)),
    (
        "linear of two tensors that both depend on the data",
        lambda h, x: F.linear(h, x.expand(3, 3)),
    ),
]
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(FUNCTIONS)]


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=IDS)
def test_function_without_a_path_rule(name, function):
    """Refused by name and place; with one sample, so that nothing is noticed earlier."""
    line = function.__code__.co_firstlineno
    place = rf"test_bad_input\.py:{line} \(<lambda>\)\. Replace it"
    with pytest.raises(UnsupportedModule, match=rf"path rule, got {re.escape(name)} at {place}"):
        path_bounds(Applies(function), X[:1])


MODULES = {
    "gelu": nn.GELU(),
    "softmax": nn.Softmax(1),
    "hardtanh": nn.ReLU6(),
    "sigmoid": nn.Sigmoid(),
    "prelu": nn.PReLU(),
    "layer_norm": nn.LayerNorm(3),
}


@pytest.mark.parametrize("name", MODULES)
def test_module_without_a_path_rule(name):
    model = nn.Sequential(nn.Linear(3, 3), MODULES[name], nn.Linear(3, 2)).double().eval()
    with pytest.raises(
        UnsupportedModule, match=rf"got {name} (.*)at test_bad_input.py:\d+ \(test_"
    ):
        path_bounds(model, X)


def test_relu_of_a_parameter():
    model = Applies(lambda h, x: F.linear(h, F.relu(model.first.weight)))
    assert_refused(lambda: path_bounds(model, X), UnsupportedModule, "relu of a parameter at test_")


def scored(scorer):
    def call(model, x):
        model = functional(model)
        return scorer(model.model_fn, model.params, None, x)

    return call


@pytest.mark.parametrize(
    "entry", [scored(px), scored(px_bound), with_fixed_gates], ids=["px", "px_bound", "gates"]
)
def test_whatever_records_gates_refuses_what_has_no_path_rule(entry):
    model = Applies(lambda h, x: F.gelu(h))
    text = "model must be made of functions with a path rule, got gelu at test_bad_input.py:"
    assert_refused(lambda: entry(model, X), UnsupportedModule, text)


# Numbers that stop being finite, and a network that is not one function.


def with_three_probes(second, **options):
    probes = {"weight": ones((3, 2, 3))}
    probes["weight"][1] *= second
    return lambda: sap(nn.Linear(3, 2).double(), X, probes=probes, **options)


def test_overflow_of_the_kernel():
    text = "Theta must be finite, got 16 of 16 entries NaN or Inf. The inputs were finite: rescale"
    model = filled(nn.Linear(3, 2).double(), 0.0)
    assert_refused(lambda: empirical_ntk(model, 1e200 * X), NumericalError, text)


@pytest.mark.parametrize(
    ("per", "what"),
    [
        ("total", "trace"),
        ("sample", "trace"),
        ("layer", "trace weight"),
        ("parameter", "trace weight"),
    ],
)
def test_overflow_of_the_trace(per, what):
    model = filled(nn.Linear(3, 2).double(), 0.0)
    text = f"{what} must be finite, got NaN or Inf. The inputs were finite: rescale"
    assert_refused(lambda: ntk_trace(model, 1e200 * X, per=per), NumericalError, text)


def test_overflow_of_a_bound():
    """f is about 1e220, and px about 1e200 · 1e120."""
    model = filled(net(bias=False), 1e60)
    text = "bound 'px' must be finite in float64, got inf. The input was finite: rescale"
    assert_refused(lambda: path_bounds(model, 1e100 * X.abs()), NumericalError, text)


@pytest.mark.parametrize("form", ["jvp", "finite_difference"])
def test_objective_names_the_perturbation_that_overflows(form):
    text = "objective must be finite, got inf for perturbation 1. The input was finite: use a"
    assert_refused(with_three_probes(1e200, form=form), NumericalError, text)


def test_probe_that_is_not_finite():
    text = "probes['weight'] must be finite, got 6 of 18 entries NaN or Inf"
    assert_refused(with_three_probes(NAN), NumericalError, text)


def test_probe_that_is_not_a_tensor():
    assert_refused(
        probed(weight=[1.0]), TypeError, "probes['weight'] must be a torch.Tensor, got list"
    )


def test_network_that_is_not_one_function():
    text = "model must be a network that its gates replay, got outputs that differ by"
    assert_refused(lambda: path_bounds(Fickle(), X[:1]), NumericalError, text)


# An error changes nothing.


def normalised():
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).double()


def state(model, x):
    tensors = {name: t.clone() for name, t in model.state_dict(keep_vars=True).items()} | {
        "x": x.clone()
    }
    flags = [module.training for module in model.modules()]
    parameters = [(name, id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()]
    return tensors, flags, parameters


FAILURES = {
    "train mode": lambda m, x: ntk_trace(m.train(), x),
    "unsupported by an engine": lambda m, x: empirical_ntk(
        nn.Sequential(m, Scaled().double()), x, engine="layerwise"
    ),
    "unsupported by the paths": lambda m, x: path_bounds(nn.Sequential(m, nn.GELU()), x),
    "wrong mask": lambda m, x: apply_masks(m, {"0.weight": ones((3, 3)), "3.weight": ones(1)}),
    "wrong batch": lambda m, x: empirical_ntk(m, x, x[:, :2]),
    "overflow": lambda m, x: sap(m, x, sigma=1e308),
    "overflow of the kernel": lambda m, x: empirical_ntk(m, x * 1e200),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_changes_nothing(failure):
    model, x = normalised().eval(), X.clone()
    if failure == "train mode":
        model.train()
    model[3].requires_grad_(False)
    tensors, flags, parameters = state(model, x)
    with pytest.raises((ValueError, TypeError)):
        FAILURES[failure](model, x)
    after, flags_after, parameters_after = state(model, x)
    assert after.keys() == tensors.keys()
    assert all(torch.equal(after[name], t) for name, t in tensors.items())
    assert (flags_after, parameters_after) == (flags, parameters)


# Lazy modules, parameters that are not real, budgets, and integers where a network takes them.


@pytest.mark.parametrize(
    "entry", [name for name in ENTRIES if name != "empirical_ntk, second batch"]
)
def test_lazy_module(entry):
    call, _ = ENTRIES[entry]
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.LazyLinear(2))).double()
    text = "model must be initialised, got lazy LazyLinear at '1.1'. Run it once on a batch"
    if entry == "ntk_sap_objective":
        assert_refused(lambda: ntk_sap_objective(model, X, sigma=0.1, probes={}), ValueError, text)
    else:
        assert_refused(lambda: call(model, X), ValueError, text)


class ComplexInside(nn.Module):
    """Real outputs of complex parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3, dtype=torch.complex128))

    def forward(self, x):
        return (x.to(self.weight.dtype) @ self.weight.T).real


class IntegerInside(nn.Module):
    """A layer, and a parameter of integers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.factor = nn.Parameter(torch.tensor([1, 2]), requires_grad=False)

    def forward(self, x):
        return self.layer(x) * self.factor


def test_complex_batch():
    text = "must be real, got torch.complex128. Split real and imaginary parts."
    for entry in ("empirical_ntk", "ntk_trace", "path_bounds", "ntk_sap_objective"):
        call, argument = ENTRIES[entry]
        assert_refused(lambda c=call: c(net(), X + 0j), TypeError, f"{argument} {text}")


@pytest.mark.parametrize("entry", [empirical_ntk, ntk_trace])
@pytest.mark.parametrize("model", [ComplexInside(), IntegerInside()], ids=["complex", "integer"])
def test_parameters_that_are_not_real(entry, model):
    with pytest.raises((TypeError, ValueError), match=r"must be .*real"):
        entry(model, X)


@pytest.mark.parametrize("engine", ["auto", "jacobian"])
def test_budget_too_small_for_one_row(engine):
    """The least budget that the message names is taken, and one byte less is not."""
    model = net()
    with pytest.raises(ValueError, match=r"^budget_bytes must be at least \d+ for one row of") as e:
        empirical_ntk(model, X, engine=engine, budget_bytes=1)
    least = int(re.findall(r"at least (\d+) for", str(e.value))[0])
    text = f"at least {least} for one row of this kernel, got {least - 1}. Raise it, select fewer"
    assert_refused(
        lambda: empirical_ntk(model, X, engine=engine, budget_bytes=least - 1), ValueError, text
    )
    exact = empirical_ntk(model, X, engine="jacobian")
    value = empirical_ntk(model, X, engine=engine, budget_bytes=least)
    torch.testing.assert_close(value, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("budget", [0, -1, 1.5])
def test_budget_that_is_no_number_of_bytes(budget):
    text = f"budget_bytes must be a positive integer or None, got {budget}. Leave it out"
    assert_refused(lambda: empirical_ntk(net(), X, budget_bytes=budget), ValueError, text)


def test_integers_with_an_embedding_are_taken():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    tokens = torch.tensor([[0, 1], [3, 3]])
    theta = empirical_ntk(model, tokens)
    assert theta.dtype == torch.float64
    torch.testing.assert_close(theta, empirical_ntk(model, tokens, engine="ntk_vp"))
    text = "x1 must be a batch that the model takes, got shape [1, 2], torch.int64 on cpu. Give it"
    assert_refused(lambda: empirical_ntk(model, tokens + 4), ValueError, text)
