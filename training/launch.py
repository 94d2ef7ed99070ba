"""Where a training runs: processors, nodes, and how its processes find each other (docs/scale.md)."""

from __future__ import annotations

import datetime
import gc
import os
import sys
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from core import ranks
from core.types import CXRLensError

Accelerator = Literal["auto", "cpu", "gpu"]
PATIENCE = datetime.timedelta(hours=12)
"""How long a process waits for another: the first one writes bundles and scores them alone."""


def automatic_jobs(device: str | torch.device) -> int:
    """Processes side by side where nobody said how many: one a core, or one with a GPU.

    Args:
        device: where they compute, as torch names it: that counts, not what else the machine has.
    """
    return (os.cpu_count() or 1) if torch.device(device).type == "cpu" else 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a training runs.

    Attributes:
        accelerator: "auto" takes GPUs where there are some.
        devices: processes a node, each with a processor of its own.
        num_nodes: machines.
    """

    accelerator: Accelerator = "auto"
    devices: int = 1
    num_nodes: int = 1

    @property
    def gpu(self) -> bool:
        """Whether it runs on GPUs."""
        return self.accelerator != "cpu" and torch.cuda.is_available()

    @property
    def device(self) -> torch.device:
        """This process's own."""
        return torch.device("cuda", ranks.rank() % self.devices) if self.gpu else torch.device("cpu")

    def trainer_arguments(self) -> dict[str, Any]:
        """What Lightning's Trainer has to know."""
        shared: dict[str, Any] = {"accelerator": "cuda" if self.gpu else "cpu", "devices": self.devices}
        if ranks.count() == 1:
            return shared
        # Unused: a filter whose cluster is not in the batch, a margin loss that warms up. Buffers: see SameNorms.
        strategy = DDPStrategy(
            find_unused_parameters=True, broadcast_buffers=False, cluster_environment=_cluster(), timeout=PATIENCE
        )
        return {**shared, "num_nodes": self.num_nodes, "strategy": strategy}


ONE = Placement()
"""One process, on a GPU where there is one."""


def alone(accelerator: Accelerator) -> Placement:
    """One process.

    Raises:
        CXRLensError: there is no GPU where one is asked for.
    """
    _refuse_without_gpu(accelerator)
    return Placement(accelerator)


def _cluster() -> ClusterEnvironment | None:
    """Who started this process as one of several: torchrun, srun, or nobody."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    return None


def place(accelerator: Accelerator, devices: int | None, num_nodes: int | None) -> Placement:
    """Join the processes that torchrun or srun started; start them here where one node has to have several.

    Args:
        accelerator: see `Placement`.
        devices: processes a node; None takes what torchrun or srun say, or 1.
        num_nodes: None likewise.

    Raises:
        CXRLensError: there are not so many GPUs, or another number of processes was started.
    """
    _refuse_without_gpu(accelerator)
    cluster = _cluster()
    if cluster is None:
        placement = Placement(accelerator, devices or 1, num_nodes or 1)
        _enough(placement)
        if placement.num_nodes > 1:
            raise CXRLensError(
                f"--num-nodes {placement.num_nodes}: start it on every node by torchrun or srun (docs/scale.md)."
            )
        if placement.devices > 1:
            _start_processes(placement.devices)
        return placement
    world = cluster.world_size()
    a_node = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world)
    placement = Placement(accelerator, devices or a_node, num_nodes or max(1, world // a_node))
    if placement.devices * placement.num_nodes != world or placement.devices != a_node:
        raise CXRLensError(
            f"--devices {placement.devices} --num-nodes {placement.num_nodes} does not fit what was started: {world} "
            f"processes, {a_node} a node. Leave both out, or start as many."
        )
    _enough(placement)
    if placement.gpu:
        torch.cuda.set_device(cluster.local_rank())
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = cluster.main_address, str(cluster.main_port)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if placement.gpu else "gloo",
        rank=cluster.global_rank(),
        world_size=world,
        timeout=PATIENCE,
    )
    return placement


def leave() -> None:
    """End the group that `place` joined, when all have come here; the last thing that a process does with the others.

    The group has threads that talk to the other processes. One that is alive when Python ends, and sees another process
    go, can touch what is already taken down: the process ends with SIGABRT after all its work was done. A process that
    failed does not come here, nor wait for those that may never come: torchrun and srun end the others.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    ranks.wait()
    gc.collect()  # a model that was wrapped for training holds the group
    dist.destroy_process_group()


def _refuse_without_gpu(accelerator: Accelerator) -> None:
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise CXRLensError("--accelerator gpu: torch sees no GPU here. Install torch with CUDA, or leave it out.")


def _enough(placement: Placement) -> None:
    if placement.gpu and placement.devices > (there := torch.cuda.device_count()):
        raise CXRLensError(f"--devices {placement.devices}: this machine has {there} GPU(s).")


def _start_processes(devices: int) -> NoReturn:
    """Become torchrun, with this same command in each process."""
    arguments = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    os.execv(sys.executable, [sys.executable, *arguments, "-m", "training.cli", *sys.argv[1:]])
