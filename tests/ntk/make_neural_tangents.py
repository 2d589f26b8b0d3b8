"""Write ``neural_tangents.json``: the kernels of three small networks by neural-tangents, in float32.

Run it with an interpreter that has jax and neural-tangents (0.6.5 needs jax 0.4.25 or so), without
arguments. Parameters and inputs are cosines of their index, so that every side makes the same numbers;
``test_neural_tangents.py`` makes them with torch. Here images are channels-last (NHWC) and kernels
HWIO; numbers are laid out as torch has them (NCHW, OIHW, Linear weights [outputs, inputs]), then moved.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np

Network = Callable[[dict[str, Any], Any], Any]
IMPLEMENTATIONS = {
    "jacobian contraction": nt.NtkImplementation.JACOBIAN_CONTRACTION,
    "structured derivatives": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
}


def numbers(shape: tuple[int, ...], phase: float, scale: float = 1.0) -> np.ndarray:
    """Return ``scale · cos(phase + 0.7 i + 0.01 i²)`` for i = 0, 1, …, in torch's layout."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    return (scale * np.cos(phase + 0.7 * i + 0.01 * i * i)).astype(np.float32).reshape(shape)


def parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return weights of size about 1/√fan_in and biases of about 0.3, in this file's layout."""
    made = {}
    for phase, (name, shape) in enumerate(shapes.items()):
        scale = 0.3 if len(shape) == 1 else 2 / np.prod(shape[1:]) ** 0.5
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[len(shape)]
        made[name] = jnp.asarray(numbers(shape, 1.0 + phase, scale).transpose(axes))
    return made


def images(shape: tuple[int, ...], phase: float) -> Any:
    """Return a batch; images as NHWC."""
    x = numbers(shape, phase)
    return jnp.asarray(x.transpose(0, 2, 3, 1) if len(shape) == 4 else x)


def convolution(x: Any, params: dict[str, Any], name: str, stride: int, padding: int) -> Any:
    """Return a convolution with its bias."""
    made = jax.lax.conv_general_dilated(
        x,
        params[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return made + params[f"{name}.bias"]


def dense(x: Any, params: dict[str, Any], name: str) -> Any:
    """Return a linear layer with its bias."""
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"]


def mlp(params: dict[str, Any], x: Any) -> Any:
    """Return the outputs of an MLP 4-6-5-3 with ReLU, then tanh."""
    h = jnp.maximum(dense(x, params, "first"), 0)
    return dense(jnp.tanh(dense(h, params, "second")), params, "head")


def strided(params: dict[str, Any], x: Any) -> Any:
    """Return the outputs of two convolutions with stride 2, then 1, and a head on all of the map."""
    h = jnp.maximum(convolution(x, params, "first", 2, 1), 0)
    h = jnp.maximum(convolution(h, params, "second", 1, 0), 0)
    return dense(h.transpose(0, 3, 1, 2).reshape(len(x), -1), params, "head")


def pooled(params: dict[str, Any], x: Any) -> Any:
    """Return the outputs of convolutions around 2×2 average pooling, then the mean and a head."""
    h = jnp.tanh(convolution(x, params, "first", 1, 1))
    n, height, width, channels = h.shape
    h = h.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    h = jnp.maximum(convolution(h, params, "second", 1, 1), 0)
    return dense(h.mean((1, 2)), params, "head")


NETWORKS: dict[str, tuple[Network, dict[str, tuple[int, ...]], tuple[int, ...]]] = {
    "MLP": (
        mlp,
        {
            "first.weight": (6, 4), "first.bias": (6,), "second.weight": (5, 6),
            "second.bias": (5,), "head.weight": (3, 5), "head.bias": (3,),
        },
        (3, 4),
    ),
    "strided": (
        strided,
        {
            "first.weight": (3, 2, 3, 3), "first.bias": (3,), "second.weight": (4, 3, 2, 2),
            "second.bias": (4,), "head.weight": (3, 16), "head.bias": (3,),
        },
        (3, 2, 5, 5),
    ),
    "pooled": (
        pooled,
        {
            "first.weight": (3, 1, 3, 3), "first.bias": (3,), "second.weight": (5, 3, 3, 3),
            "second.bias": (5,), "head.weight": (2, 5), "head.bias": (2,),
        },
        (3, 1, 4, 4),
    ),
}  # fmt: skip


def kernels(name: str) -> dict[str, Any]:
    """Return [N, N, C, C] of a batch, [N, M, C, C] of two, and how far the implementations differ."""
    network, shapes, batch = NETWORKS[name]
    params, x, other = parameters(shapes), images(batch, 0.0), images((2, *batch[1:]), 0.5)
    found = {}
    for label, implementation in IMPLEMENTATIONS.items():
        theta = nt.empirical_ntk_fn(
            network, trace_axes=(), vmap_axes=0, implementation=implementation
        )
        found[label] = [np.asarray(theta(x, x2, params)) for x2 in (None, other)]
    first, second = found.values()
    gaps = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(first, second)]  # noqa: B905
    if max(gaps) > 1e-6 or any(theta.dtype != np.float32 for theta in first):
        raise RuntimeError(f"the implementations differ by {max(gaps)} on {name}")
    one, two = first
    return {
        "inputs": list(batch),
        "parameters": {name: list(shape) for name, shape in shapes.items()},
        "kernel": as_list(one),
        "kernel_of_two_batches": as_list(two),
        "gap_between_implementations": float(max(gaps)),
    }


def as_list(theta: np.ndarray) -> dict[str, Any]:
    """Return a kernel's shape and its entries, row by row, with the nine digits of float32."""
    return {"shape": list(theta.shape), "values": [float(f"{v:.9g}") for v in theta.ravel()]}


def main() -> None:
    """Write the file next to this one."""
    record = {
        "versions": {
            "neural-tangents": nt.__version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        "dtype": "float32",
        "numbers": "scale * cos(phase + 0.7 i + 0.01 i^2), i = 0, 1, ... in torch's layout",
        "networks": {name: kernels(name) for name in NETWORKS},
    }
    path = Path(__file__).with_name("neural_tangents.json")
    text = json.dumps(record, indent=1)
    path.write_text(re.sub(r"\[[^][]*\]", lambda m: re.sub(r"\s+", " ", m[0]), text) + "\n")


if __name__ == "__main__":
    main()
