"""``score``: it changes nothing, takes what scorers ask for, and refuses what it cannot do."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from ntktheory import NumericalError, functional, ntk_trace
from ntktheory.models import mlp
from ntktheory.pruning import (
    SCORERS,
    apply_masks,
    from_torch_prune,
    prune,
    register_scorer,
    score,
)
from ntktheory.pruning.scorers.registry import find_scorer

SMALL = {"ntk_sap": {"realizations": 1, "samples": 2}}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normed():
    """Return a convolution, a batch norm and a head; the modules a scorer could disturb."""
    generator, net = seeded(), nn.Sequential()
    net.add_module("conv1", nn.Conv2d(2, 3, 2))
    net.add_module("bn1", nn.BatchNorm2d(3))
    net.add_module("relu", nn.ReLU())
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(12, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return net.eval()


X, Y = torch.randn(4, 2, 3, 3, generator=seeded(1)), torch.tensor([0, 1, 0, 1])
NET = mlp([3, 4, 2], generator=seeded())
BATCH = (torch.randn(5, 3, generator=seeded(1)), torch.arange(5) % 2)


def state(model):
    """Return everything that a scorer could leave behind on a model."""
    modules = list(model.modules())
    return {
        "tensors": {n: t.clone() for n, t in model.state_dict().items()},
        "identities": [id(p) for p in model.parameters()] + [id(b) for b in model.buffers()],
        "modes": [m.training for m in modules],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [[len(v) for k, v in vars(m).items() if k.endswith("_hooks")] for m in modules],
        "attributes": [sorted(vars(m)) for m in modules],
        "momenta": [getattr(m, "momentum", None) for m in modules],
    }


def assert_same(before, after):
    for key, value in before.items():
        if key == "tensors":
            assert value.keys() == after[key].keys()
            assert all(torch.equal(t, after[key][n]) for n, t in value.items())
        elif key == "grads":
            for old, new in zip(value, after[key], strict=True):
                assert (old is None) == (new is None)
                assert old is None or torch.equal(old, new)
        else:
            assert value == after[key], key


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_scoring_changes_nothing(scorer):
    model = normed()
    with torch.no_grad():
        for name, b in model.named_buffers():
            if "mean" in name:
                b.copy_(torch.linspace(-1, 1, b.numel()))
    first, *others = model.parameters()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    before, outputs = state(model), model(X).detach()
    random_state, grad_mode = torch.get_rng_state(), torch.is_grad_enabled()
    for bn in ("eval", "train") if SCORERS[scorer].batch_norm else (None,):
        options = SMALL.get(scorer, {}) | ({} if bn is None else {"bn": bn})
        x = X.clone()
        found = score(model, scorer, batch=(x, Y), generator=seeded(), **options)
        assert torch.equal(x, X)
        assert list(found) == list(functional(model).prunable)
        for name, s in found.items():
            assert s.shape == model.get_parameter(name).shape
            assert s.dtype == torch.float32
            assert not s.requires_grad
    assert_same(before, state(model))
    assert torch.equal(random_state, torch.get_rng_state())
    assert torch.is_grad_enabled() == grad_mode
    assert torch.equal(outputs, model(X))


def test_a_change_would_be_noticed():
    model = normed()
    for change in (
        lambda m: m.train(),
        lambda m: m.conv1.weight.requires_grad_(False),
        lambda m: m.conv1.weight.data.mul_(2),
        lambda m: m.bn1.running_mean.add_(1),
        lambda m: m.conv1.register_forward_hook(print),
        lambda m: m.conv1.weight.sum().backward(),
    ):
        other = copy.deepcopy(model)
        before = state(other)
        change(other)
        with pytest.raises(AssertionError):
            assert_same(before, state(other))


def test_scores_do_not_depend_on_the_grad_mode():
    with torch.no_grad():
        without = score(NET, "snip", batch=BATCH)
    assert all(torch.equal(s, without[n]) for n, s in score(NET, "snip", batch=BATCH).items())


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_scores_do_not_depend_on_the_inference_mode(scorer):
    masks = {"conv1.weight": torch.ones(3, 2, 2, 2, dtype=torch.bool)}
    masks["conv1.weight"][0, 0] = False

    def found(model, batch, masks):
        options = SMALL.get(scorer, {})
        return score(model, scorer, batch=batch, masks=masks, generator=seeded(), **options)

    plain = found(normed(), (X, Y), masks)
    assert all(bool(s.any()) for s in plain.values())
    kept = prune(normed(), scorer, 0.5, rounds=2, batch=(X, Y), generator=seeded(),
                 **SMALL.get(scorer, {})).masks  # fmt: skip
    model = normed()
    with torch.inference_mode():
        others = {
            "inside": found(model, (X, Y), masks),
            "made inside": found(
                normed(), (X.clone(), Y.clone()), {n: m.clone() for n, m in masks.items()}
            ),
        }
        pruned = prune(model, scorer, 0.5, rounds=2, batch=lambda k: (X.clone(), Y.clone()),
                       generator=seeded(), **SMALL.get(scorer, {})).masks  # fmt: skip
        assert torch.is_inference_mode_enabled()
        made, batch = normed(), (X.clone(), Y.clone())
    others["made inside, scored outside"] = found(made, batch, masks)
    if scorer not in ("ntk_sap", "px_repo"):
        others["functional"] = found(functional(made), batch, masks)
    for case, s in others.items():
        assert all(torch.equal(t, plain[n]) and not t.is_inference() for n, t in s.items()), case
    assert all(torch.equal(m, kept[n]) for n, m in pruned.items())


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_a_masked_model_scores_like_the_dense_one_under_its_masks(scorer):
    dense, options = normed(), SMALL.get(scorer, {})
    masks = {"conv1.weight": torch.rand(3, 2, 2, 2, generator=seeded(2)) < 0.7,
             "head.weight": torch.rand(2, 12, generator=seeded(3)) < 0.7}  # fmt: skip
    more = {"head.weight": torch.rand(2, 12, generator=seeded(4)) < 0.7}
    model = apply_masks(dense, masks)
    before = state(model)

    def theta(name):
        return name.replace(".weight", ".parametrizations.weight.original")

    def found(model, masks, **more):
        return score(
            model, scorer, batch=(X, Y), masks=masks, generator=seeded(), **options, **more
        )

    for bn in ({}, {"bn": "train"}) if SCORERS[scorer].batch_norm else ({},):
        plain, own = found(dense, masks, **bn), found(model, None, **bn)
        assert list(own) == [theta(n) for n in plain] == list(functional(model).prunable)
        assert all(torch.equal(own[theta(n)], s) for n, s in plain.items())
    both = masks | {n: m & masks[n] for n, m in more.items()}
    plain = found(dense, both)
    own = found(model, {theta(n): m.float() for n, m in more.items()})
    assert all(torch.equal(own[theta(n)], s) for n, s in plain.items())
    at_random = {"random", "erk_random"}  # those that no mask changes
    assert scorer in at_random or any(
        bool((s != plain[n]).any()) for n, s in found(dense, None).items()
    )
    assert_same(before, state(model))


def test_masks_of_tied_and_of_other_parameters():
    """A tied weight is masked in both places; a masked bias is no weight, and stays as it is."""
    dense = mlp([3, 3, 3, 2], bias=True, generator=seeded())
    with torch.no_grad():
        dense.layer1.bias.fill_(1.0)
    dense.layer2.weight = dense.layer1.weight
    masks = {"layer1.weight": torch.eye(3, dtype=torch.bool)}
    bias = {"layer1.bias": torch.tensor([True, False, True])}
    model = apply_masks(dense, masks | bias)
    with torch.no_grad():
        dense.layer1.bias.mul_(bias["layer1.bias"])
    plain = score(dense, "snip", batch=BATCH, masks=masks)
    own = score(model, "snip", batch=BATCH)
    assert len(own) == 2
    assert all(torch.equal(a, b) for a, b in zip(own.values(), plain.values(), strict=True))


def test_a_functional_model_scores_like_its_module():
    for scorer in ("snip", "grasp", "synflow", "synflow_repo", "px"):
        one, two = (score(m, scorer, batch=BATCH) for m in (NET, functional(NET)))
        assert all(torch.equal(s, two[n]) for n, s in one.items())


def test_a_loss_of_ones_own():
    found = score(NET, "snip", batch=BATCH, loss_fn=lambda f, y: 0 * f.sum())
    assert not any(bool(s.any()) for s in found.values())


def test_the_shape_of_an_input_is_enough_for_synflow():
    one = score(NET, "synflow", input_shape=[3])
    two = score(NET, "synflow", batch=BATCH)
    assert all(torch.equal(s, two[n]) for n, s in one.items())


def test_synflow_of_a_deep_network_fits_float32():
    """R passes 1e38: computed in float64, all divided by one power of two."""
    deep = mlp([100] * 30 + [2], generator=seeded())
    found = score(deep, "synflow", input_shape=[100])
    assert all(bool(torch.isfinite(s).all()) and bool(s.any()) for s in found.values())
    sums = [float(s.double().sum()) for s in found.values()]
    assert max(sums) / min(sums) - 1 < 1e-4  # every layer carries the same flow


def test_a_scorer_of_ones_own():
    def outgoing(params, masks, names, scale=1.0):
        return {n: scale * params[n].abs().sum(0, keepdim=True).expand_as(params[n]) for n in names}

    entry = register_scorer("outgoing", outgoing, "sum of |w| that leaves the unit", rounds=3)
    try:
        assert (entry.needs, entry.options) == ({"params", "masks", "names"}, {"scale": 1.0})
        found = score(NET, "outgoing", scale=2.0)["layer2.weight"]
        assert torch.equal(found[0], 2 * NET.layer2.weight.detach().abs().sum(0))
    finally:
        del SCORERS["outgoing"]


# Bad input.

NAN = torch.full((5, 3), torch.nan)
MASKS = {n: torch.ones_like(p, dtype=torch.bool) for n, p in functional(NET).params.items()}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"scorer": "best"}, ValueError, r"scorer must be one of .*'snip'.*, got 'best'"),
        ({"batch": None}, ValueError, r"batch must be given for 'snip', got none \(the inputs of"),
        ({"batch": BATCH[0]}, ValueError, r"batch must be given for 'snip', got none \(labels\)"),
        ({"batch": (BATCH[0].tolist(), BATCH[1])}, TypeError, r"batch must be a torch\.Tensor"),
        ({"batch": (NAN, BATCH[1])}, NumericalError, r"batch must be finite, got 15 of 15"),
        ({"batch": (BATCH[0][:, :2], BATCH[1])}, ValueError, r"batch must be a batch that the mo"),
        ({"batch": (BATCH[0], BATCH[1][:2])}, ValueError, r"batch must be \(x, y\) with one label"),
        ({"batch": (BATCH[0], [0] * 5)}, ValueError, r"one label for each of 5 samples, got list"),
        ({"batch": (BATCH[0], NAN)}, NumericalError, r"labels must be finite"),
        ({"bn": "batch"}, ValueError, r"bn must be one of 'eval', 'train', got 'batch'"),
        (
            {"temperature": 1},
            ValueError,
            r"option of 'snip' must be one of 'bn', got 'temperature'",
        ),
        (
            {"scorer": "px", "power": 1},
            ValueError,
            r"option of 'px' must be left out, got 'power'\. It has no options",
        ),
        (
            {"scorer": "grasp", "power": 1},
            ValueError,
            r"option of 'grasp' must be one of 'bn', 'te",
        ),
        ({"scorer": "synflow_l2", "power": 3}, ValueError, r"power must be 1 or 2, got 3"),
        ({"scorer": "synflow_l2", "power": "2"}, ValueError, r"power must be 1 or 2, got '2'"),
        ({"scorer": "grasp", "temperature": -200}, ValueError, r"temperature must be a finite num"),
        ({"scorer": "grasp", "temperature": "hot"}, ValueError, r"temperature must be .*got 'hot'"),
        (
            {"scorer": "grasp", "temperature": torch.inf},
            ValueError,
            r"temperature must be .*got inf",
        ),
        ({"scorer": "prospr", "steps": -1}, ValueError, r"steps must be a whole number, 0 or more"),
        ({"scorer": "prospr", "steps": 1.5}, ValueError, r"steps must be a whole number.*got 1\.5"),
        ({"scorer": "prospr", "lr": -1}, ValueError, r"lr must be a finite number above 0, got -1"),
        ({"scorer": "prospr", "lr": 0}, ValueError, r"lr must be a finite number above 0, got 0"),
        ({"scorer": "prospr", "momentum": 1.0}, ValueError, r"momentum must be a number in \[0, 1"),
        ({"scorer": "prospr", "momentum": None}, ValueError, r"momentum must be .*, got None"),
        (
            {"batch": (BATCH[0], BATCH[1] + 5)},
            ValueError,
            r"labels must be classes from 0 to 1, .*6",
        ),
        ({"batch": (BATCH[0], BATCH[1] - 100)}, ValueError, r"labels must be classes .*, got -100"),
        (
            {"batch": (BATCH[0], BATCH[1].float())},
            TypeError,
            r"labels must be integers \[N\], or pr",
        ),
        (
            {"batch": (BATCH[0], BATCH[1] > 0)},
            TypeError,
            r"labels must be .*got torch\.bool of sha",
        ),
        (
            {"batch": (BATCH[0], BATCH[1][:, None])},
            ValueError,
            r"labels must be of shape \[N\], got",
        ),
        ({"scorer": "magnitude", "bn": "eval"}, ValueError, r"option of 'magnitude' must be left"),
        ({"scorer": "random"}, ValueError, r"generator must be given for 'random', got none"),
        ({"scorer": "random", "generator": 3}, TypeError, r"generator must be a torch\.Generator"),
        ({"scorer": "synflow", "batch": None}, ValueError, r"input_shape must be given for 'synfl"),
        (
            {"scorer": "synflow", "batch": None, "input_shape": [7]},
            ValueError,
            r"input_shape must be a batch that the model takes, got shape \[1, 7\]",
        ),
        ({"masks": [1]}, TypeError, r"masks must be a mapping from names to tensors, got list"),
        ({"masks": {"w": 1}}, ValueError, r"masks must be named like the parameters"),
        ({"masks": {"layer1.weight": 1}}, TypeError, r"masks\['layer1\.weight'\] must be a torch"),
        ({"masks": {"layer1.weight": Y}}, ValueError, r"must be of shape \[4, 3\], got \[4\]"),
        ({"masks": {"layer1.weight": torch.rand(4, 3)}}, ValueError, r"must be made of 0 and 1"),
        ({"model": nn.LayerNorm(3)}, ValueError, r"model must be a network with prunable weights"),
        ({"model": nn.BatchNorm1d(3)}, ValueError, r"model must be in eval mode"),
        ({"model": 3}, TypeError, r"model must be an nn\.Module or a FunctionalModel, got int"),
        (
            {"model": functional(NET), "bn": "train"},
            TypeError,
            r'model must be an nn\.Module for bn="train", got FunctionalModel',
        ),
        (
            {"model": functional(NET), "scorer": "px_repo"},
            TypeError,
            r'model must be an nn\.Module for bn="train", got FunctionalModel',
        ),
        (
            {"loss_fn": lambda f, y: f.sum() * torch.inf},
            NumericalError,
            r"score of 'layer1\.weight' by 'snip' must be finite, got \d+ of 12 entries NaN",
        ),
    ],
)
def test_bad_input(arguments, error, text):
    given = {"model": NET, "scorer": "snip", "batch": BATCH} | arguments
    model = given["model"]
    before = state(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error, match=text):
        score(**given)
    if before is not None:
        assert_same(before, state(model))


def test_classes_and_probabilities():
    """Any integer type will do, and probabilities of one class are that class."""
    x, y = BATCH
    wanted = score(NET, "snip", batch=BATCH)
    for labels in (y.int(), y.byte(), torch.eye(2)[y], torch.eye(2)[y].double()):
        found = score(NET, "snip", batch=(x, labels))
        for n, s in wanted.items():
            torch.testing.assert_close(found[n], s)
    assert score(NET, "snip", batch=(x, y + 5), loss_fn=lambda f, y: (f[:, 0] * y).sum())


def test_a_single_sample_has_no_variance_for_px_repo():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=r"batch must be one with a variance per channel, got sha"):
        score(net, "px_repo", batch=BATCH[0][:1])
    assert score(net, "px_repo", batch=BATCH[0][:2])


def test_token_ids():
    """What replaces the inputs needs real ones; what looks at them does not."""
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    x = torch.randint(0, 10, (5, 3), generator=seeded())
    with pytest.raises(TypeError, match=r"batch must be of real-valued inputs, got torch\.int64"):
        score(net, "px_repo", batch=x)
    with pytest.raises(TypeError, match=r"x must be of real-valued inputs, for noise in their pl"):
        score(net, "ntk_sap", batch=x, generator=seeded())
    assert score(net, "ntk_sap", batch=x, generator=seeded(), inputs="data", realizations=1)
    assert score(net, "snip", batch=(x, BATCH[1]))


# Layers whose weight is no parameter.


def first_layer(change):
    net = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    net[0] = change(net[0])
    return net.eval()


def computed(layer):
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = 2 * weight
    return layer


COMPUTED = {
    "weight_norm": (parametrizations.weight_norm, r"'0' with weight_norm\. Remove weight_norm"),
    "weight_norm by hooks": (nn.utils.weight_norm, r"'0' with weight_norm\. Remove weight_norm"),
    "pruned by torch": (
        lambda layer: torch_prune.random_unstructured(layer, "weight", 0.5),
        r"'0' with a mask of torch\.nn\.utils\.prune\. Take the masks by from_torch_prune",
    ),
    "an attribute": (computed, r"'0' with a computed weight\. Make the weight a parameter"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", COMPUTED)
def test_a_layer_with_a_computed_weight_does_not_drop_out_silently(name):
    change, text = COMPUTED[name]
    net = first_layer(change)
    for call in (lambda: score(net, "magnitude"), lambda: prune(net, "magnitude", 0.5)):
        with pytest.raises(ValueError, match=rf"model must be one whose layers hold.*{text}"):
            call()
    x = torch.ones(2, 1, 3)
    assert float(ntk_trace(net, x)) > 0  # a kernel does not mind


def test_the_remedy_for_a_network_pruned_by_torch():
    net = first_layer(COMPUTED["pruned by torch"][0])
    outputs, masks = net(torch.ones(1, 1, 3)), from_torch_prune(net)
    torch_prune.remove(net[0], "weight")
    again = apply_masks(net, masks)
    assert torch.equal(again(torch.ones(1, 1, 3)), outputs)
    assert len(score(again, "magnitude")) == 2


@pytest.mark.parametrize("change", [lambda layer: layer, parametrizations.spectral_norm])
def test_a_weight_that_is_a_parameter_is_scored(change):
    assert len(score(first_layer(change), "magnitude")) == 2


# Types.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scorer", ["random", "erk_random"])
def test_random_scores_of_half_a_type_are_those_of_float32(scorer, dtype):
    """Drawn in bfloat16, all of the 120 kept weights would be in the first layer."""
    net = mlp([100, 300, 100], generator=seeded())
    half = copy.deepcopy(net).to(dtype)
    wanted, found = (score(m, scorer, generator=seeded(1)) for m in (net, half))
    assert all(torch.equal(s, found[n]) for n, s in wanted.items())
    kept = prune(half, scorer, 0.002, generator=seeded(1)).history[-1].kept
    assert all(45 < k < 75 for k in kept.values())


def test_scores_of_half_a_type_are_not_rounded_to_it():
    def fine(params, names):
        return {n: 1 + torch.arange(params[n].numel()).view(params[n].shape) / 2**20 for n in names}

    register_scorer("fine", fine, "1 + i 2⁻²⁰")
    try:
        found = score(copy.deepcopy(NET).bfloat16(), "fine")["layer1.weight"]
        assert found.dtype == torch.float32
        assert len(found.unique()) == 12
    finally:
        del SCORERS["fine"]


def small_outputs(dtype):
    """Return 21 layers whose slopes are about 1e-20, so that their squares do not fit float32."""
    net, generator = mlp([16] * 21 + [3], generator=seeded()), seeded(1)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.1)
    return net.to(dtype), (torch.randn(8, 16, generator=generator).to(dtype), torch.arange(8) % 3)


@pytest.mark.parametrize("scorer", ["grasp", "ntk_trace", "ntk_trace_saliency"])
def test_squares_of_small_slopes_do_not_underflow(scorer):
    """In float32 98 % of GraSP's scores were 0, and ties went to the first layer."""
    found, wanted = (
        prune(net, scorer, 0.05, rounds=1, batch=batch)
        for net, batch in map(small_outputs, (torch.float32, torch.float64))
    )
    shared = sum(int((m & wanted.masks[n]).sum()) for n, m in found.masks.items())
    assert shared >= 0.99 * sum(int(m.sum()) for m in wanted.masks.values())
    assert found.history[-1].nonzero == wanted.history[-1].nonzero


@pytest.mark.parametrize("returned", [3, {}, {"layer1.weight": torch.ones(2)}])
def test_a_scorer_that_returns_something_else(returned):
    register_scorer("odd", lambda names: returned, "nothing")
    try:
        with pytest.raises(ValueError, match=r"scorer 'odd' must be a function that returns a sco"):
            score(NET, "odd")
    finally:
        del SCORERS["odd"]


def test_a_failure_of_the_scorer_itself_passes_through():
    def failing(like, names):
        raise ValueError("my own")

    register_scorer("failing", failing, "none")
    try:
        with pytest.raises(ValueError, match="my own"):
            score(NET, "failing", input_shape=[3])
    finally:
        del SCORERS["failing"]


def fine(names):
    return {}


@pytest.mark.parametrize(
    ("name", "function", "published", "error", "text"),
    [
        ("snip", fine, {}, ValueError, r"name must be a new scorer's, got 'snip'\. It is taken"),
        ("new", 3, {}, TypeError, r"function must be a function, got int\. Pass it uncalled"),
        ("new", fine, {"round": 2}, ValueError, r"published attribute must be one of .*'rounds'"),
        ("new", fine, {"schedule": "slow"}, ValueError, r"schedule must be one of .*'linear'"),
        ("new", fine, {"budget": "all"}, ValueError, r"budget must be one of 'erk', 'global'"),
        ("new", fine, {"rounds": 0}, ValueError, r"rounds must be a positive integer, got 0"),
        ("new", fine, {"rounds": True}, ValueError, r"rounds must be a positive integer, got True"),
        ("new", lambda w: {}, {}, ValueError, r"function must be one of parameters named model"),
        ("new", lambda x, /: {}, {}, ValueError, r"given by name in score\(…\), got 'x'"),
        ("new", lambda batch=1: {}, {}, ValueError, r"given by name in score\(…\), got 'batch'"),
    ],
)
def test_bad_registrations(name, function, published, error, text):
    known = set(SCORERS)
    with pytest.raises(error, match=text):
        register_scorer(name, function, "nothing", **published)
    assert set(SCORERS) == known


def test_an_unknown_scorer_lists_the_known():
    with pytest.raises(ValueError, match=r"'grasp'.*'synflow_repo'.*got 'none'"):
        find_scorer("none")
