"""From options to the engine that computes an extraction."""

from typing import TYPE_CHECKING

from caev2.commands.invocation import pick_device

if TYPE_CHECKING:
    from caev2.extract.engines.engine import Engine


def pick_engine(name: str, device: str | None, gpus: str | None, ray_address: str) -> "Engine":
    """Who computes.

    Raises:
        ConfigError: Options contradict each other, or there are not so many GPUs.
    """
    from caev2.cluster import device_of_tasks
    from caev2.errors import ConfigError
    from caev2.extract.engines.cluster import RayCluster
    from caev2.extract.engines.devices import ManyDevices
    from caev2.extract.engines.one_device import OneDevice

    if name == "ray":
        if gpus is not None:
            raise ConfigError("--gpus is for this machine; with --engine ray every GPU of the cluster is used.")
        return RayCluster(device=device_of_tasks(device, ray_address), address=ray_address)
    if gpus is None:
        return OneDevice(pick_device(device))
    if device is not None:
        raise ConfigError(f"--gpus {gpus} and --device {device} contradict each other. Give one of them.")
    return ManyDevices(tuple(f"cuda:{number}" for number in range(_count_gpus(gpus))))


def _count_gpus(wanted: str) -> int:
    import torch

    from caev2.errors import ConfigError

    there = torch.cuda.device_count()
    if wanted != "all" and not wanted.isdigit():
        raise ConfigError(f"--gpus is {wanted!r}; give a number, or `all`.")
    count = there if wanted == "all" else int(wanted)
    if not 1 <= count <= there:
        raise ConfigError(f"--gpus {wanted}: this machine has {there} GPUs that torch can use. Try --device cpu.")
    return count
