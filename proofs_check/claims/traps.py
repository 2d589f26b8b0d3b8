"""N4: errors seen in other libraries, as formulas: each is really wrong, and ours makes none."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntktheory import empirical_ntk, functional, ntk_trace
from ntktheory.ntk import reference
from proofs_check import cases
from proofs_check.claim import Level, Outcome, claim
from proofs_check.claims.kernel import real_rows
from proofs_check.compare import Worst, relative_gap

Kernel = Callable[..., Tensor]
Rule = Callable[[nn.Conv2d, Tensor, Tensor], Tensor]
DIFFERENT = 1e-3  # relative: a trap that is off by less would be no trap


def class_mean(theta: Tensor) -> Tensor:
    """Return the mean over classes of ``Theta[n, m, c, c]``, which a library calls its trace."""
    return torch.einsum("nmcc->nm", theta) / theta.shape[-1]


def class_sum(theta: Tensor) -> Tensor:
    """Return the sum over classes of ``Theta[n, m, c, c]``."""
    return torch.einsum("nmcc->nm", theta)


def hadamard(a: Tensor, g: Tensor) -> Tensor:
    """Pair each position of a convolution only with itself: ``Σ_s ⟨A_ns, A_ms⟩⟨G_ncs, G_mc's⟩``.

    Args:
        a: Unfolded inputs [N, D, S].
        g: Cotangents [N, C, O, S].

    Returns:
        A kernel [N, M, C, C]; wrong unless S = 1.
    """
    return torch.einsum("nds,mds,ncos,meos->nmce", a, a, g, g)


def every_pair_of_positions(a: Tensor, g: Tensor) -> Tensor:
    """Return ``⟨G_nc A_nᵀ, G_mc' A_mᵀ⟩``, the kernel of a convolution's weight."""
    block = torch.einsum("ncos,nds->ncod", g, a)
    return torch.einsum("ncod,meod->nmce", block, block)


def ungrouped_norm(layer: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """Return ``Σ_{n,c} ‖G_nc A_nᵀ‖²`` with every input channel against every output channel."""
    return torch.einsum("ncos,nds->ncod", g, a).square().sum()


def grouped_norm(layer: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """Return ``Σ_{n,c} ‖G_nc A_nᵀ‖²`` group by group."""
    a = a.unflatten(1, (layer.groups, -1))
    g = g.unflatten(2, (layer.groups, -1))
    return torch.einsum("nckos,nkds->nckod", g, a).square().sum()


def first_convolution(net: nn.Sequential, x: Tensor) -> tuple[str, nn.Conv2d, Tensor, Tensor]:
    """Return name, layer, unfolded inputs [N, D, S] and cotangents [N, C, O, S], by autograd."""
    place, layer = next((i, m) for i, m in enumerate(net) if isinstance(m, nn.Conv2d))
    name = f"{next(k for k, m in net.named_children() if m is layer)}.weight"
    z = net[:place](x).detach()
    a = F.unfold(z, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    out = layer(z).detach().requires_grad_()
    f = net[place + 1 :](out)
    rows = [
        torch.autograd.grad(f[:, c].sum(), out, retain_graph=True)[0] for c in range(f.shape[1])
    ]
    return name, layer, a, torch.stack(rows, dim=1).flatten(3)


def _convolutional() -> list[cases.Network]:
    return [cases.enumerable_networks()[2], cases.network("CNN"), cases.real_networks(8)[1]]


def _grouped() -> list[cases.Network]:
    generator = torch.Generator().manual_seed(4)
    found = []
    for groups, channels in ((2, 4), (4, 4)):
        net = nn.Sequential(
            nn.Conv2d(4, channels, 3, stride=2, padding=1, groups=groups, bias=False),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(9 * channels, 3),
        ).double().eval()  # fmt: skip
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
        x = torch.randn(3, 4, 6, 6, generator=generator, dtype=torch.float64)
        found.append(cases.Network(f"CNN of {groups} groups", net, x))
    return found


def _exact(net: cases.Network, **options: Any) -> Tensor:
    f = functional(net.model)
    return reference.ntk(f.model_fn, f.params, None, net.x, **options)


def _kernel_by_class_mean(model: Any, x: Tensor, **options: Any) -> Tensor:
    theta = empirical_ntk(model, x, **options)
    return theta / model(x).shape[1] if options.get("output") == "trace" else theta


def _kernel_by_hadamard(model: Any, x: Tensor, **options: Any) -> Tensor:
    theta = empirical_ntk(model, x, **options)
    if not options.get("select"):
        return theta
    _, _, a, g = first_convolution(model, x)
    return hadamard(a, g)


def _trace_ungrouped(model: Any, x: Tensor, **options: Any) -> Tensor:
    _, layer, a, g = first_convolution(model, x)
    return ungrouped_norm(layer, a, g)


@claim(
    "N4",
    subjects={
        "kernel": empirical_ntk,
        "trace": ntk_trace,
        "mean": class_mean,
        "shortcut": hadamard,
        "norm": ungrouped_norm,
    },
    mutants={
        "our trace is a mean over classes": {"kernel": _kernel_by_class_mean},
        "our convolution is the elementwise shortcut": {"kernel": _kernel_by_hadamard},
        "our norms ignore groups": {"trace": _trace_ungrouped},
        "the mean over classes is the sum": {"mean": class_sum},
        "the shortcut pairs all positions": {"shortcut": every_pair_of_positions},
        "the norms split by group": {"norm": grouped_norm},
    },
)
def traps(
    level: Level,
    kernel: Kernel,
    trace: Callable[..., Any],
    mean: Callable[[Tensor], Tensor],
    shortcut: Callable[[Tensor, Tensor], Tensor],
    norm: Rule,
) -> Outcome:
    """Every trap is off by at least 0.1 % on every network it applies to; our engines are right."""
    worst = Worst()
    sizes: dict[str, dict[str, float]] = {
        "class mean": {},
        "elementwise shortcut": {},
        "ungrouped norms": {},
    }
    for net in (*cases.real_networks(8), cases.network("MLP")):
        theta = _exact(net)
        ours = kernel(net.model, net.x, output="trace")
        worst.see(f"{net.name}: sum over classes", ours, class_sum(theta))
        sizes["class mean"][net.name] = relative_gap(mean(theta), class_sum(theta))
    for net in _convolutional():
        name, _, a, g = first_convolution(net.model, net.x)
        theta = _exact(net, names=(name,))
        worst.see(f"{net.name}: {name}", kernel(net.model, net.x, select=[name]), theta)
        worst.see(f"{net.name}: all pairs", every_pair_of_positions(a, g), theta)
        sizes["elementwise shortcut"][net.name] = relative_gap(shortcut(a, g), theta)
    for net in _grouped():
        name, layer, a, g = first_convolution(net.model, net.x)
        exact = class_sum(_exact(net, names=(name,))).trace()
        worst.see(f"{net.name}: {name}", trace(net.model, net.x, select=[name]), exact)
        worst.see(f"{net.name}: by group", grouped_norm(layer, a, g), exact)
        sizes["ungrouped norms"][net.name] = relative_gap(norm(layer, a, g), exact)
    for trap, gaps in sizes.items():
        for where, gap in gaps.items():
            worst.require(f"{trap} on {where}: off by {gap:.1e} only", gap > DIFFERENT)
    rows = [
        row
        for net in cases.real_networks(8)
        for row in real_rows(
            net, {f"{t}: relative error": g[net.name] for t, g in sizes.items() if net.name in g}
        )
    ]
    evidence = worst.numbers() | {"relative_error_of_traps": sizes, "real_data": rows}
    return Outcome(
        "holds" if worst.holds else "refuted",
        "exact-numeric",
        "seven fixed networks, the digits among them; traps as formulas, not the libraries themselves",
        evidence,
        worst.counterexample,
    )
