"""neural-tangents, with the networks written in jax; images and kernels channels-last, as XLA likes.

Its ``trace_axes`` divide by the number of classes: the full kernel takes none, the trace multiplies
by C. The trace goes through the kernel [N, N]: with ``diagonal_axes=(0,)`` it takes as long, and its
float32 sums are off by 1e-3. Compilation is not part of the times.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np

Tensors = dict[str, Any]
Call = Callable[[], np.ndarray]


def _relu(x: Any) -> Any:
    return jnp.maximum(x, 0)


def _mlp(params: Tensors, fixed: Tensors, x: Any) -> Any:
    h = _relu(x @ params["layer1.weight"])
    h = _relu(h @ params["layer2.weight"])
    return h @ params["layer3.weight"]


def _conv(x: Any, weight: Any, stride: int = 1, padding: int = 1) -> Any:
    pads = [(padding, padding)] * 2
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), pads, dimension_numbers=axes)


def _convnet(params: Tensors, fixed: Tensors, x: Any) -> Any:
    for layer in (1, 2, 3):
        x = _relu(_conv(x, params[f"conv{layer}.weight"]))
    return x.reshape(len(x), -1) @ params["head.weight"]


def _resnet(params: Tensors, fixed: Tensors, x: Any) -> Any:
    def norm(h: Any, name: str) -> Any:
        mean, variance = fixed[f"{name}.running_mean"], fixed[f"{name}.running_var"]
        scaled = (h - mean) / jnp.sqrt(variance + 1e-5)
        return scaled * params[f"{name}.weight"] + params[f"{name}.bias"]

    x = _relu(norm(_conv(x, params["conv1.weight"]), "bn1"))
    for stage in (1, 2, 3):
        for i in range(3):
            at, stride = f"stage{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            h = _relu(norm(_conv(x, params[f"{at}.conv1.weight"], stride), f"{at}.bn1"))
            h = norm(_conv(h, params[f"{at}.conv2.weight"]), f"{at}.bn2")
            if f"{at}.shortcut.conv.weight" in params:
                shortcut = _conv(x, params[f"{at}.shortcut.conv.weight"], stride, 0)
                x = norm(shortcut, f"{at}.shortcut.bn")
            x = _relu(h + x)
    return x.mean((1, 2)) @ params["head.weight"] + params["head.bias"]


NETWORKS = {"mlp": _mlp, "conv": _convnet, "resnet20": _resnet}


def _last_axes(tensor: np.ndarray) -> np.ndarray:
    """Return a matrix as [inputs, outputs], a kernel as HWIO."""
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(tensor.ndim)
    return tensor.transpose(axes) if axes else tensor


def _load(work: str, folder: Path) -> tuple[Tensors, Tensors, Any]:
    """Read a workload; kernels become HWIO, images NHWC, a flattened head's rows follow."""
    with np.load(folder / f"{work}.npz") as file:
        tensors = dict(file)
    x = tensors.pop("x")
    if work == "conv":
        head = tensors["head.weight"].reshape(10, 32, 32, 32)
        tensors["head.weight"] = head.transpose(0, 2, 3, 1).reshape(10, -1)
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    tensors = {k: _last_axes(v) for k, v in tensors.items()}
    fixed = {k: jnp.asarray(v) for k, v in tensors.items() if "running" in k}
    params = {
        k: jnp.asarray(v) for k, v in tensors.items() if k not in fixed and "num_batches" not in k
    }
    return params, fixed, jnp.asarray(x)


def _side(implementation: nt.NtkImplementation, work: str, quantity: str, folder: Path) -> Call:
    params, fixed, x = _load(work, folder)

    def network(params: Tensors, x: Any) -> Any:
        return NETWORKS[work](params, fixed, x)

    kernel = partial(nt.empirical_ntk_fn, network, vmap_axes=0, implementation=implementation)
    theta = kernel(trace_axes=() if quantity == "full" else (-1,))

    def compute(x: Any, params: Tensors) -> Any:
        kernel_of_x = theta(x, None, params)
        return kernel_of_x if quantity == "full" else 10 * jnp.trace(kernel_of_x)

    compiled = jax.jit(compute).lower(x, params).compile()
    return lambda: np.asarray(jax.block_until_ready(compiled(x, params)))


SIDES = {
    "neural-tangents structured": partial(_side, nt.NtkImplementation.STRUCTURED_DERIVATIVES),
    "neural-tangents jacobian": partial(_side, nt.NtkImplementation.JACOBIAN_CONTRACTION),
    "neural-tangents ntk-vp": partial(_side, nt.NtkImplementation.NTK_VECTOR_PRODUCTS),
}
