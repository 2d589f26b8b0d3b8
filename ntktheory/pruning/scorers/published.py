"""Every scorer that comes with the library, as its authors use it."""

from ntktheory.pruning.scorers.grasp import grasp
from ntktheory.pruning.scorers.iter_snip import iter_snip
from ntktheory.pruning.scorers.magnitude import magnitude
from ntktheory.pruning.scorers.ntk_sap import ntk_sap
from ntktheory.pruning.scorers.ntk_trace import ntk_trace
from ntktheory.pruning.scorers.ntk_trace_saliency import ntk_trace_saliency
from ntktheory.pruning.scorers.path_edge import path_edge
from ntktheory.pruning.scorers.phew import phew
from ntktheory.pruning.scorers.prospr import prospr
from ntktheory.pruning.scorers.px import px
from ntktheory.pruning.scorers.px_bound import px_bound
from ntktheory.pruning.scorers.px_repo import px_repo
from ntktheory.pruning.scorers.random import random
from ntktheory.pruning.scorers.registry import register_scorer
from ntktheory.pruning.scorers.snip import snip
from ntktheory.pruning.scorers.synflow import synflow
from ntktheory.pruning.scorers.synflow_l2 import synflow_l2
from ntktheory.pruning.scorers.synflow_l2_repo import synflow_l2_repo
from ntktheory.pruning.scorers.synflow_repo import synflow_repo
from ntktheory.pruning.scorers.t_sq import t_sq

PX = "PX (Iurada et al. 2024)"
OURS = "this project"

register_scorer(
    "random", random, "uniform on [0, 1)",
    cost="no pass",
)  # fmt: skip
register_scorer(
    "erk_random", random, "uniform on [0, 1), densities by ERK",
    paper="Evci et al. 2020; Liu et al. 2022", budget="erk", cost="no pass",
)  # fmt: skip
register_scorer(
    "magnitude", magnitude, "|θ|",
    paper="Janowsky 1989; Han et al. 2015", cost="no pass",
)  # fmt: skip
register_scorer(
    "snip", snip, "|θ ∂ℓ/∂(θ⊙m)|",
    paper="SNIP (Lee et al. 2019)", batch_norm=True, cost="1",
)  # fmt: skip
register_scorer(
    "iter_snip", iter_snip, "|w ∂ℓ/∂w|, w = θ⊙m",
    paper="IterSNIP (de Jorge et al. 2021)", rounds=60, batch_norm=True, cost="1",
)  # fmt: skip
register_scorer(
    "force", snip, "|θ ∂ℓ/∂(θ⊙m)|, dropped weights may return",
    paper="FORCE (de Jorge et al. 2021)", rounds=60, regrows=True, batch_norm=True, cost="1",
)  # fmt: skip
register_scorer(
    "grasp", grasp, "θ H g of ℓ(f/T)",
    paper="GraSP (Wang et al. 2020)", batch_norm=True, cost="3",
)  # fmt: skip
register_scorer(
    "prospr", prospr, "|∂ℓ(w_M)/∂m|, w_M after M steps of SGD from θ⊙m",
    paper="ProsPr (Alizadeh et al. 2022)", batch_norm=True, cost="3 M + 1, M = 3 steps",
)  # fmt: skip
register_scorer(
    "synflow", synflow, "|w ∂R/∂w|, R = Σ_c f_c(|θ|, 1)",
    paper="SynFlow (Tanaka et al. 2020)", rounds=100, float64=True, cost="1 on one sample",
)  # fmt: skip
register_scorer(
    "synflow_repo", synflow_repo, "|w ∂R/∂w|, running statistics positive too",
    paper="SynFlow, published code", rounds=100, float64=True, cost="1 on one sample",
)  # fmt: skip
register_scorer(
    "synflow_l2_repo", synflow_l2_repo, "|θ| ∂R/∂θ², running statistics squared too",
    paper=f"{PX}, published code", rounds=100, float64=True, cost="1 on one sample",
)  # fmt: skip
register_scorer(
    "synflow_l2", synflow_l2, "|θ|^power ∂z₂/∂θ², z₂ = Σ_p v_p²",
    paper="Gebhart et al. 2021; PX", rounds=100, cost="1 on one sample",
)  # fmt: skip
register_scorer(
    "ntk_sap", ntk_sap, "|Σ_r ∂/∂m Σ_nc (f(z; θ_r⊙m) − f(z; (θ_r+Δ_r)⊙m))²|",
    paper="NTK-SAP (Wang et al. 2023)", rounds=20, cost="2 per realisation; 3 by JVP",
)  # fmt: skip
register_scorer(
    "px", px, "θ² ∂Z/∂θ², Z = Σ_nc z1_nc z2_c",
    paper=f"{PX}, Eq. 9", rounds=100, cost="2 forward, and 1 on one sample",
)  # fmt: skip
register_scorer(
    "px_bound", px_bound, "θ² ∂R_PX/∂θ²",
    paper=f"{PX}, Eq. 6", rounds=100, cost="2 forward, and 3 on one sample",
)  # fmt: skip
register_scorer(
    "px_repo", px_repo, "θ² |∂Z/∂θ²|, with train-mode batch norm",
    paper=f"{PX}, published code of February 2025", rounds=100,
    cost="2 forward, and 1 on two samples",
)  # fmt: skip
register_scorer(
    "path_edge", path_edge, "θ² A B, the terms of R_edge = Σ_j A_j B_j",
    paper=OURS, cost="1, 1 forward, and 1 on one sample", rounds=100,
)  # fmt: skip
register_scorer(
    "t_sq", t_sq, "θ² Σ_xc Σ_{p∋j} a_p² x_p² w_pj²",
    paper=OURS, cost="1 and 1 forward", rounds=100,
)  # fmt: skip
register_scorer(
    "ntk_trace", ntk_trace, "θ² Σ_xc (∂f_c/∂θ)², exact",
    paper=OURS, float64=True, cost="1 forward and C backward",
)  # fmt: skip
register_scorer(
    "ntk_trace_saliency", ntk_trace_saliency, "|∂Tr Θ/∂m|, exact",
    paper="NTK-SAP's objective, exact", rounds=20, float64=True, cost="2 C + 1",
)  # fmt: skip
register_scorer(
    "phew", phew, "order of the first visit by random walks, p ∝ |θ⊙m|",
    paper="PHEW (Patil and Dovrolis 2021)", cost="no pass; walks",
)  # fmt: skip
