"""Training of the linearised network: against explicit recursion, integration and real training."""

import copy
import math
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from ntktheory import NumericalError, functional
from ntktheory.models import mlp
from ntktheory.ntk import reference
from ntktheory.ntk.comparison import compare_with_training
from ntktheory.ntk.dynamics import displacements, linearized_predict, lost_fraction
from ntktheory.ntk.matrix import to_matrix
from proofs_check import cases
from proofs_check.compare import relative_gap

TOLERANCE = 1e-10
DOUBLE: dict[str, Any] = {"dtype": torch.float64}
CASES = [(name, masked) for name in cases.BUILDERS for masked in (False, True)]


def normal(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, **DOUBLE) for shape in shapes]


def linear(inputs, outputs, bias):
    net = nn.Linear(inputs, outputs, bias).double()
    with torch.no_grad():
        for p, values in zip(net.parameters(), normal((outputs, inputs), (outputs,)), strict=False):
            p.copy_(values)
    return net


class Problem:
    """A network with targets and a test batch, and its kernels by the reference."""

    def __init__(self, name, masked):
        net = cases.network(name)
        generator = torch.Generator().manual_seed(7)
        f = functional(net.model)
        self.model, self.x = net.model, net.x
        self.masks = cases.random_masks(net.model) if masked else None
        if net.x.is_floating_point():
            self.x_test = torch.randn(2, *net.x.shape[1:], generator=generator, **DOUBLE)
        else:
            self.x_test = net.x.flip(0)[:2].roll(1, -1)
        theta = self._kernel(f)
        self.y = torch.randn(theta.shape[1:3], generator=generator, **DOUBLE)
        effective = {
            k: p * self.masks[k] if self.masks and k in self.masks else p
            for k, p in f.params.items()
        }
        self.start, self.start_test = (
            f.model_fn(effective, x).detach() for x in (self.x, self.x_test)
        )
        self.theta, self.cross = to_matrix(theta), to_matrix(self._kernel(f, test=True))
        self.largest = float(torch.linalg.eigvalsh(self.theta).max())

    def _kernel(self, f, test=False):
        batches = (self.x_test, self.x) if test else (self.x,)
        return reference.ntk(f.model_fn, f.params, self.masks, *batches)

    def predict(self, **options):
        return linearized_predict(
            self.model, self.x, self.y, self.x_test, masks=self.masks, **options
        )


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def problem(request):
    problem = Problem(*request.param)
    problem.y = problem.y.view_as(problem.start)
    return problem


def test_descent_is_the_recursion(problem):
    rate, steps = 1.5 / problem.largest, [0, 1, 2, 30]
    f, f_test = problem.start.flatten(), problem.start_test.flatten()
    train, test = [], []
    for step in range(max(steps) + 1):
        if step in steps:
            train.append(f.view_as(problem.start))
            test.append(f_test.view_as(problem.start_test))
        residual = f - problem.y.flatten()
        f_test = f_test - rate * problem.cross @ residual
        f = f - rate * problem.theta @ residual
    predicted = problem.predict(steps=steps, learning_rate=rate)
    assert relative_gap(predicted.train, torch.stack(train)) < TOLERANCE
    assert relative_gap(predicted.test, torch.stack(test)) < TOLERANCE


def test_flow_is_the_matrix_exponential(problem):
    # exp of [[−Θ, 1], [0, 0]] t holds e^{−Θt} and its integral from 0 to t.
    n = len(problem.theta)
    times = [0.0, 0.3 / problem.largest, 20 / problem.largest]
    residual = (problem.start - problem.y).flatten()
    block = torch.zeros(2 * n, 2 * n, **DOUBLE)
    block[:n, :n], block[:n, n:] = -problem.theta / problem.largest, torch.eye(n)
    predicted = problem.predict(time=times)
    for i, time in enumerate(times):
        exponential = torch.matrix_exp(block * time * problem.largest)
        integral = exponential[:n, n:] / problem.largest
        train = problem.y.flatten() + exponential[:n, :n] @ residual
        test = problem.start_test.flatten() - problem.cross @ integral @ residual
        assert relative_gap(predicted.train[i].flatten(), train) < TOLERANCE
        assert relative_gap(predicted.test[i].flatten(), test) < TOLERANCE


def test_flow_is_the_solution_of_its_equation():
    problem = Problem("MLP with biases", True)
    theta, cross = problem.theta.numpy(), problem.cross.numpy()
    y, n = problem.y.flatten().numpy(), problem.y.numel()
    start = torch.cat([problem.start.flatten(), problem.start_test.flatten()]).numpy()

    def velocity(_, f):
        residual = f[:n] - y
        return [*-(theta @ residual), *-(cross @ residual)]

    time = 5 / problem.largest
    solved = solve_ivp(velocity, (0, time), start, rtol=1e-11, atol=1e-12, method="DOP853")
    predicted = problem.predict(time=time)
    assert relative_gap(predicted.train.flatten(), solved.y[:n, -1]) < 1e-8
    assert relative_gap(predicted.test.flatten(), solved.y[n:, -1]) < 1e-8


def test_the_limit_is_the_pseudo_inverse():
    # 6 samples and 3 outputs, but a kernel of rank 12: some directions never move.
    net, (x, y, x_test) = linear(4, 3, False), normal((6, 4), (6, 3), (2, 4), seed=1)
    start, start_test = net(x).detach(), net(x_test).detach()
    solution = torch.linalg.pinv(x) @ (y - start)
    largest = float(torch.linalg.eigvalsh(x @ x.T).max())
    for options in (
        {"time": math.inf},
        {"time": 1e6 / largest},
        {"steps": math.inf, "learning_rate": 1.9 / largest},
        {"steps": 10**6, "learning_rate": 1.9 / largest},
    ):
        predicted = linearized_predict(net, x, y, x_test, **options)
        assert relative_gap(predicted.train, start + x @ solution) < TOLERANCE
        assert relative_gap(predicted.test, start_test + x_test @ solution) < 1e-8


def test_directions_that_do_not_move():
    # The second sample is 0: its output has no gradient, at any time.
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    x, y = torch.tensor([[1.0], [0.0]], **DOUBLE), torch.ones(2, 1, **DOUBLE)
    for moment in (0, 1, 1e9, math.inf):
        flow = linearized_predict(net, x, y, x, time=moment)
        assert flow.train.flatten().tolist() == [-math.expm1(-moment), 0.0]
        assert flow.test.flatten().tolist() == flow.train.flatten().tolist()


def test_hand_values():
    # f = w x, x = 2, w = 1, y = 6: Θ = 4, r = −4; f(t) = 6 − 4 e^{−4t}. At x' = 3: Θ' = 6,
    # f'(t) = 3 + 6 (1 − e^{−4t}), with the limit 9 = 3·w, w = 3. With η = 1/8 each step halves r.
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(net.weight)
    x, y, x_test = (torch.full((1, 1), v, **DOUBLE) for v in (2.0, 6.0, 3.0))
    flow = linearized_predict(net, x, y, x_test, time=[0, 0.25, math.inf])
    decay = math.exp(-1)
    assert flow.train.flatten().tolist() == pytest.approx([2, 6 - 4 * decay, 6], rel=1e-14)
    assert flow.test.flatten().tolist() == pytest.approx([3, 9 - 6 * decay, 9], rel=1e-14)
    steps = linearized_predict(net, x, y, x_test, steps=[0, 1, 2, 3], learning_rate=1 / 8)
    assert steps.train.flatten().tolist() == pytest.approx([2, 4, 5, 5.5], rel=1e-14)
    assert steps.test.flatten().tolist() == pytest.approx([3, 6, 7.5, 8.25], rel=1e-14)
    single = linearized_predict(net, x, y, steps=2, learning_rate=1 / 8)
    assert single.train.shape == (1, 1)
    assert single.test is None


def test_small_fractions_keep_their_digits():
    small = torch.tensor([1e-300, 1e-20, 1e-9], **DOUBLE)
    assert relative_gap(lost_fraction(small, 2.0, None)[:2], 2 * small[:2]) < 1e-15
    assert relative_gap(lost_fraction(small, 3, 0.5)[:2], 1.5 * small[:2]) < 1e-15
    near = lost_fraction(torch.tensor([0.49999999, 0.5, 1.0, 1.9], **DOUBLE), 3, 1.0)
    assert near.tolist() == pytest.approx([1 - 0.50000001**3, 0.875, 1.0, 1.729], rel=1e-14)


def test_the_limit_of_phi_at_zero():
    # Between batches of one network such directions have no kernel; rounding gives them one.
    zero, one = torch.zeros(1, **DOUBLE), torch.ones(1, 1, **DOUBLE)
    moments = torch.tensor([3.0, math.inf], **DOUBLE)
    for rate, limit in ((None, 3.0), (0.5, 1.5)):
        train, test = displacements(zero, one, one[0], one, moments, rate)
        assert train.flatten().tolist() == [0.0, 0.0]
        assert test.flatten().tolist() == [-limit, 0.0]


def test_selected_parameters():
    problem = Problem("MLP", False)
    f = functional(problem.model)
    name = list(f.params)[-1]
    theta = reference.ntk(f.model_fn, f.params, None, problem.x, names=(name,))
    residual = (problem.start - problem.y).flatten()
    expected = problem.start.flatten() - 1e-3 * to_matrix(theta) @ residual
    predicted = problem.predict(steps=1, learning_rate=1e-3, select=[name])
    assert relative_gap(predicted.train.flatten(), expected) < TOLERANCE


def test_float32():
    net = mlp([5, 7, 3], generator=torch.Generator().manual_seed(0))
    x, y = (t.float() for t in normal((4, 5), (4, 3)))
    single = linearized_predict(net, x, y, x, time=[0.1, 1.0, 10.0])
    double = linearized_predict(net.double(), x.double(), y.double(), x.double(), time=[0.1, 1, 10])
    assert single.train.dtype == single.test.dtype == torch.float32
    assert relative_gap(single.train, double.train) < 1e-5
    assert relative_gap(single.test, double.test) < 1e-4


# --- the comparison with training


@pytest.mark.parametrize("masked", [False, True])
def test_linear_models_train_as_predicted(masked):
    net, (x, y, x_test) = linear(4, 3, True), normal((6, 4), (6, 3), (2, 4), seed=1)
    masks = cases.random_masks(net) if masked else None
    result = compare_with_training(
        net, x, y, x_test, steps=[50, 0, 1, 50], learning_rate=0.02, masks=masks, progress=True
    )
    assert result.steps == (0, 1, 50)
    assert result.train_distance.shape == result.test_distance.shape == (3,)
    assert float(torch.cat([result.train_distance, result.test_distance]).max()) < 1e-12


def test_training_is_that_of_the_optimiser():
    problem = Problem("CNN", False)
    before = copy.deepcopy(problem.model.state_dict())
    rate, names = 0.5 / problem.largest, [next(iter(functional(problem.model).params))]
    for select in (None, names):
        model = copy.deepcopy(problem.model)
        chosen = [p for n, p in model.named_parameters() if select is None or n in select]
        optimiser, outputs = torch.optim.SGD(chosen, lr=rate), []
        for _ in range(4):
            optimiser.zero_grad()
            outputs.append(model(problem.x))
            (0.5 * (outputs[-1] - problem.y).square().sum()).backward()
            optimiser.step()
        result = compare_with_training(
            problem.model, problem.x, problem.y, steps=[0, 1, 2, 3], learning_rate=rate,
            select=select,
        )  # fmt: skip
        assert relative_gap(result.trained.train, torch.stack(outputs).detach()) < TOLERANCE
        assert result.test_distance is None
        gap = result.linearized.train - result.trained.train
        expected = gap.flatten(1).norm(dim=1) / result.trained.train.flatten(1).norm(dim=1)
        assert relative_gap(result.train_distance, expected) < TOLERANCE
    after = problem.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_wider_networks_train_more_like_their_linearisation():
    # NTK parametrisation: a width-n network moves by O(1/√n) from its linearisation.
    class Wide(nn.Module):
        def __init__(self, n, generator):
            super().__init__()
            self.inner = nn.Parameter(torch.randn(n, 3, generator=generator, **DOUBLE))
            self.outer = nn.Parameter(torch.randn(1, n, generator=generator, **DOUBLE))

        def forward(self, x):
            n = len(self.inner)
            return torch.tanh(x @ self.inner.T / 3**0.5) @ self.outer.T / n**0.5

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, d, generator=generator, **DOUBLE) for d in (3, 1))
    distances = [
        float(
            compare_with_training(
                Wide(n, generator), x, y, steps=[20], learning_rate=0.2
            ).train_distance
        )
        for n in (16, 256, 4096)
    ]
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_training_that_leaves_the_numbers_is_reported():
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([[1.0]], **DOUBLE))

        def forward(self, x):
            return (x @ self.w) ** 9

    x, y = torch.ones(1, 1, **DOUBLE), torch.full((1, 1), 1e3, **DOUBLE)
    with pytest.raises(NumericalError, match=r"training must be finite, got NaN or Inf .* steps"):
        compare_with_training(Steep(), x, y, steps=[20], learning_rate=0.02)


# --- bad input

X, Y = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.ones(2, 3)
STEP = {"steps": 1, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {},
            ValueError,
            "time must be given alone, or steps and learning_rate instead, got neither",
        ),
        ({"time": 1.0} | STEP, ValueError, "got time and steps and learning_rate"),
        ({"time": 1.0, "learning_rate": 0.1}, ValueError, "got time and learning_rate"),
        ({"steps": 1}, ValueError, "got steps. Give time="),
        ({"learning_rate": 0.1}, ValueError, "got learning_rate"),
        ({"time": -1.0}, ValueError, "time must be numbers ≥ 0, got -1.0"),
        ({"time": [math.nan]}, ValueError, "time must be numbers ≥ 0"),
        ({"time": []}, ValueError, "time must be numbers ≥ 0"),
        (STEP | {"steps": 1.5}, ValueError, "steps must be whole numbers ≥ 0, got 1.5"),
        (STEP | {"learning_rate": 0.0}, ValueError, "learning_rate must be a positive number"),
        (STEP | {"learning_rate": math.nan}, ValueError, "learning_rate must be a positive number"),
        (
            STEP | {"learning_rate": 9.0},
            ValueError,
            r"learning_rate must be below 2/λ_max = .*, got 9",
        ),
        (STEP | {"y_train": Y[:1]}, ValueError, r"y_train must be of shape \[2, 3\] on cpu"),
        (STEP | {"y_train": [1.0]}, TypeError, "y_train must be a torch.Tensor, got list"),
        (STEP | {"y_train": math.inf * Y}, NumericalError, "y_train must be finite"),
        (STEP | {"x_test": X[:, :1]}, ValueError, "x_test must be a batch that the model takes"),
        (STEP | {"x_train": math.nan * X}, NumericalError, "x_train must be finite"),
        (STEP | {"masks": {"no": Y}}, ValueError, "masks must be named like the parameters"),
        (STEP | {"select": ["no"]}, ValueError, "select must be one of"),
    ],
)
def test_wrong_arguments(options, error, text):
    with pytest.raises(error, match=text):
        linearized_predict(nn.Linear(2, 3), **{"x_train": X, "y_train": Y} | options)


def test_wrong_precision():
    with pytest.raises(ValueError, match=r"model must be in torch\.float32 or torch\.float64, got"):
        linearized_predict(nn.Linear(2, 3).bfloat16(), X.bfloat16(), Y.bfloat16(), time=1.0)


@pytest.mark.parametrize("steps", [[], [-1], [1.0], [True]])
def test_wrong_steps_to_compare(steps):
    with pytest.raises(ValueError, match="steps must be whole numbers ≥ 0, got"):
        compare_with_training(nn.Linear(2, 3), X, Y, steps=steps, learning_rate=0.01)
