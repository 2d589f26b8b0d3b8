"""The NTK as a linear operator: products Θ V without the kernel or the Jacobian."""

from typing import Any

import torch
from torch import Tensor, nn

from ntktheory.calls import METADATA, Watch, call_name, soundly, tensors_in
from ntktheory.checks import check_batch, check_finite, check_masks, complaint
from ntktheory.functional import (
    FunctionalModel,
    Masks,
    ModelFn,
    Params,
    Select,
    batch_size,
    check_network,
    functional,
    masked,
    selected,
    take,
)
from ntktheory.ntk.attention import exact_attention

CHUNK_BYTES = 1 << 30
CPU_NUMBERS = 1 << 23  # per chunk of vectors: larger ones leave the caches and lose to one by one
SCIPY_DTYPES = (torch.float32, torch.float64)


class NTKOperator:
    """The matrix Θ = J Jᵀ of one batch, known by its products only.

    ``J[n·C + c, j] = ∂f_c(x_n)/∂θ_j`` over the selected parameters, so that row and column index
    n·C + c; sums, never means. With masks the network is f(θ⊙m, x) and J is ``J(θ⊙m) diag(m)``. A
    product is a vector–Jacobian product to parameters and a Jacobian–vector product back.

    Args:
        model: A module in eval mode, or a FunctionalModel, with outputs [N, C].
        x: N samples, sample axis first.
        select: None for all parameters, "prunable", names, or ``predicate(name, tensor)``.
        masks: Parameter name -> mask; missing names are unmasked.

    Attributes:
        shape: (N·C, N·C).
        dtype: The dtype of vectors and products: that of the network's outputs.
        device: The device of vectors and products.

    Raises:
        TypeError: If ``model``, ``x`` or a mask is of the wrong type.
        ValueError: If the batch, a mask or ``select`` does not fit, or the model is in train mode.
        NumericalError: If the batch or the outputs are not finite.

    Cost:
        For K vectors: two forward passes, K backward and K forward-mode passes over the batch.
        Memory K·P numbers, and the activations of a chunk of samples for each of a chunk of
        vectors; both chunks are planned from a budget of 1 GiB.

    Source:
        NTK-SAP §4 (Θ = J Jᵀ). Tested against ``ntk/reference.py``.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> theta = NTKOperator(net, torch.ones(1, 3))
        >>> theta.shape, theta.matvec(torch.tensor([1.0, -2.0]))
        ((2, 2), tensor([ 3., -6.]))
    """

    def __init__(
        self,
        model: nn.Module | FunctionalModel,
        x: Tensor,
        *,
        select: Select = None,
        masks: Masks | None = None,
    ) -> None:
        self.model = functional(model)
        check_masks(masks, self.model.params)
        self.names = selected(self.model, select)
        check_batch("x", x)
        self.masks, self.x = masks, x
        effective = masked(self.model.params, masks)
        outputs = check_network(self.model, effective, x)
        self.dtype, self.device = outputs.dtype, outputs.device
        self.shape = (x.shape[0] * outputs.shape[1],) * 2
        self._activations = activation_count(self.model.model_fn, effective, x[:1])

    def matvec(self, v: Tensor) -> Tensor:
        """Return Θ v for ``v`` of shape [NC].

        Raises:
            TypeError: If ``v`` is not a tensor.
            ValueError: If its shape, dtype or device does not fit.
            NumericalError: If ``v`` or the product is not finite.
        """
        _check_vectors("v", v, (self.shape[0],), self)
        return self._products(v[:, None])[:, 0]

    def matmat(self, V: Tensor) -> Tensor:
        """Return Θ V for K columns ``V`` of shape [NC, K].

        Raises:
            TypeError: If ``V`` is not a tensor.
            ValueError: If its shape, dtype or device does not fit, or it has no column.
            NumericalError: If ``V`` or a product is not finite.
        """
        _check_vectors("V", V, (self.shape[0], "K"), self)
        return self._products(V)

    def to_scipy(self) -> Any:
        """Return a symmetric ``scipy.sparse.linalg.LinearOperator``: NumPy in and out, on the CPU.

        Raises:
            ValueError: If the network computes in another precision than float32 or float64.
        """
        if self.dtype not in SCIPY_DTYPES:
            raise ValueError(
                complaint(
                    "model",
                    "in torch.float32 or torch.float64 for scipy",
                    self.dtype,
                    "Convert it with model.double().",
                )
            )
        from scipy.sparse.linalg import LinearOperator

        def apply(array: Any) -> Any:
            vectors = torch.as_tensor(array, device=self.device).to(self.dtype)
            return (
                self.matmat(vectors.reshape(self.shape[0], -1))
                .detach()
                .cpu()
                .numpy()
                .reshape(array.shape)
            )

        name = str(self.dtype).removeprefix("torch.")
        return LinearOperator(
            self.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=name
        )

    def _products(self, vectors: Tensor) -> Tensor:
        numel = sum(self.model.params[name].numel() for name in self.names)
        columns, samples = planned_chunks(
            vectors.shape[1],
            batch_size(self.x),
            numel,
            self._activations,
            element_bytes=vectors.element_size(),
            on_cpu=self.device.type == "cpu",
        )
        f = self.model
        with exact_attention():
            parts = [
                ntk_products(f.model_fn, f.params, self.masks, self.x, part, self.names, samples)
                for part in vectors.split(columns, dim=1)
            ]
        products = torch.cat(parts, dim=1)
        check_finite(
            "Theta V", products, "The inputs were finite: rescale the parameters or use float64."
        )
        return products


def ntk_products(
    model_fn: ModelFn,
    params: Params,
    masks: Masks | None,
    x: Any,
    vectors: Tensor,
    names: tuple[str, ...] | None = None,
    samples: int | None = None,
) -> Tensor:
    """Return ``J (Jᵀ V)``: the pure function behind ``NTKOperator``.

    vmap-able over ``params``, ``masks`` and ``vectors``. Nothing is checked.

    Args:
        model_fn: The network; it must treat samples independently.
        params: θ, unmasked.
        masks: The network is f(θ⊙m, x), differentiated with respect to θ.
        x: The batch (a tensor, or a tree of tensors).
        vectors: V, [NC, K].
        names: Which parameters to differentiate; None means all.
        samples: How many to differentiate at a time; None means all.

    Returns:
        Θ V, [NC, K].
    """
    varied = {name: params[name] for name in names or params}
    n = batch_size(x)
    size, single = samples or n, vectors.shape[1] == 1
    chunks = [take(x, i, i + size) for i in range(0, n, size)]
    rows = vectors.split(size * (vectors.shape[0] // n))

    def outputs(theta: Params, chunk: Any) -> Tensor:
        return soundly(model_fn)(masked(params | theta, masks), chunk).flatten()

    def pulled(chunk: Any, v: Tensor) -> Params:
        _, pullback = torch.func.vjp(lambda theta: outputs(theta, chunk), varied)  # type: ignore[misc]
        if single:
            return pullback(v[:, 0])[0]
        return torch.func.vmap(lambda column: pullback(column)[0], in_dims=1)(v)

    def pushed(chunk: Any, directions: Params) -> Tensor:
        def product(d: Params) -> Tensor:
            return torch.func.jvp(lambda theta: outputs(theta, chunk), (varied,), (d,))[1]

        if single:
            return product(directions)[:, None]
        return torch.func.vmap(product, out_dims=1)(directions)

    directions = pulled(chunks[0], rows[0])
    for chunk, v in zip(chunks[1:], rows[1:], strict=True):
        more = pulled(chunk, v)
        directions = {name: d + more[name] for name, d in directions.items()}
    return torch.cat([pushed(chunk, directions) for chunk in chunks])


def planned_chunks(
    columns: int,
    samples: int,
    parameters: int,
    activations: int,
    *,
    element_bytes: int,
    on_cpu: bool,
) -> tuple[int, int]:
    """Plan how many vectors and how many samples to differentiate at a time.

    Half of the budget holds four copies of θ per vector (the pulled-back direction, its sum, and
    their temporaries), half four copies of the activations per sample and vector.

    Args:
        columns: Vectors to multiply by.
        samples: Samples in the batch.
        parameters: Numbers in the selected parameters.
        activations: Numbers in one sample's activations.
        element_bytes: Bytes per number.
        on_cpu: Whether to keep a chunk of vectors near the caches too.

    Returns:
        Vectors at a time and samples at a time, each at least 1.
    """
    half = CHUNK_BYTES // (8 * element_bytes)
    at_once = max(1, min(columns, half // max(parameters, activations)))
    if on_cpu:
        at_once = max(1, min(at_once, CPU_NUMBERS // (parameters + samples * activations)))
    return at_once, max(1, min(samples, half // max(1, activations * at_once)))


def activation_count(model_fn: ModelFn, params: Params, sample: Any) -> int:
    """Count the numbers that a forward pass on ``sample`` computes, by running it once."""
    count = 0

    def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal count
        result = func(*args, **kwargs)
        if call_name(func) not in METADATA:
            count += sum(t.numel() for t in tensors_in(result))
        return result

    with Watch(handle):
        model_fn(params, sample)
    return count


def _check_vectors(
    argument: str, v: Tensor, shape: tuple[int | str, ...], operator: NTKOperator
) -> None:
    if not isinstance(v, Tensor):
        raise TypeError(
            complaint(
                argument, "a torch.Tensor", type(v).__name__, "Convert it with torch.as_tensor."
            )
        )
    if v.ndim != len(shape) or v.shape[0] != shape[0] or v.numel() == 0:
        expected = ", ".join(map(str, shape))
        raise ValueError(
            complaint(
                argument,
                f"of shape [{expected}]",
                list(v.shape),
                "Put entry (n, c) at index n·C + c; matvec takes one vector, matmat K columns.",
            )
        )
    if (v.dtype, v.device) != (operator.dtype, operator.device):
        raise ValueError(
            complaint(
                argument,
                f"{operator.dtype} on {operator.device}, as the outputs of the model",
                f"{v.dtype} on {v.device}",
                "Convert it with .to(operator.device, operator.dtype).",
            )
        )
    check_finite(argument, v, "The vectors themselves are non-finite.")
