"""The peers' environments, made on first use in a folder that git ignores."""

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / ".envs"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Environment:
    """Where the peers of one worker module are installed.

    Attributes:
        module: The worker's module of sides.
        requirements: What pip installs; nothing means the environment that runs the benchmark.
        beside_torch: Whether to see that environment's packages and to install no dependencies, so
            that nothing can bring another torch.
    """

    module: str
    requirements: tuple[str, ...] = ()
    beside_torch: bool = False

    def python(self) -> Path:
        """Return the environment's interpreter."""
        if not self.requirements:
            return Path(sys.executable)
        return FOLDER / self.module / "bin" / "python"

    def create(self) -> str | None:
        """Create the environment if it is not there; return the reason if that fails."""
        folder = FOLDER / self.module
        done = folder / "installed"
        wanted = "\n".join(self.requirements)
        if not self.requirements or (done.exists() and done.read_text() == wanted):
            return None
        print(f"Installing the peers of {self.module}; the first time this takes some minutes.")
        venv.create(folder, clear=True, with_pip=True)
        if self.beside_torch:
            purelib = sysconfig.get_path("purelib", vars={"base": str(folder)})
            Path(purelib, "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        options = ["--no-deps"] if self.beside_torch else []
        pip = [str(self.python()), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run = subprocess.run([*pip, *options, *self.requirements], capture_output=True, text=True)
        if run.returncode:
            errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
            return f"not installable: {' '.join(errors)[:300]}"
        done.write_text(wanted)
        return None

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its workers."""
        return dict(os.environ) | ONE_THREAD | {"PYTHONPATH": str(ROOT)}


ENVIRONMENTS = (
    Environment("sides_torch_func"),
    Environment(
        "sides_neural_tangents",
        (
            "neural-tangents==0.6.5",
            "jax==0.4.25",
            "jaxlib==0.4.25",
            "numpy==1.26.4",
            "scipy==1.12.0",
            "tensorflow==2.21.0",
            "ml-dtypes==0.5.4",
        ),
    ),
    Environment(
        "sides_torch_libraries",
        (
            "curvlinops-for-pytorch==3.0.1",
            "backpack-for-pytorch==1.7.1",
            "nngeometry==0.4",
            "einops==0.8.2",
            "einconv==0.1.0",
            "linear_operator==0.6.1",
            "tqdm==4.70.1",
            "unfoldNd==0.2.3",
        ),
        beside_torch=True,
    ),
)
