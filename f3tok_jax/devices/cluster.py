# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which process of a TPU cluster this one is, as the cluster tells before JAX is started.

GKE says it in the environment, Compute Engine by its metadata server: workers of this slice, and for
several slices who is the first of all (MEGASCALE_*). As jax.distributed finds it, which then says
nothing of who is missing.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import http.client
import ipaddress
import os
import socket
import time
import urllib.error
import urllib.request

_PORT = "8482"  # of jax.distributed; $JAX_COORDINATOR_PORT is another
_METADATA = "metadata.google.internal"
_SECONDS = 5.0  # for an answer of the metadata server
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds, after each of which it is asked again


@dataclasses.dataclass(frozen=True)
class Seat:
    """The place of a process among those of its run.

    Attributes:
        coordinator: host:port of process 0; "" where only JAX can find it.
        num_processes: of the run; 0 where only JAX can tell.
        process_id: of this one, from 0.
        workers: hosts of the slice of process 0, as far as they are known.
        num_slices: that the processes are spread over evenly, in order.
    """

    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    workers: tuple[str, ...] = ()
    num_slices: int = 1

    def name(self, process: int) -> str:
        """A process by its number and where it is, as far as that is known."""
        if self.num_slices > 1:
            slice_id, worker = divmod(process, self.num_processes // self.num_slices)
            return f"{process} (worker {worker} of slice {slice_id})"
        host = self.workers[process] if process < len(self.workers) else ""
        return f"{process} ({host})" if host else str(process)


def find(
    environment: Mapping[str, str] = os.environ, *, has_tpu_chips: bool = False
) -> Seat | None:
    """The seat of this process; None where it is in no TPU cluster that says so.

    Args:
        environment: of the process.
        has_tpu_chips: whether this machine has some, and so must know of its cluster.

    Raises:
        ValueError: where what the cluster says makes no sense, or it does not answer a machine that
            has TPU chips.
    """
    ask = functools.cache(functools.partial(_metadata, environment, has_tpu_chips))
    named = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if named and environment.get("TPU_WORKER_ID"):
        workers, worker = named.split(","), environment["TPU_WORKER_ID"]
    elif environment.get("TPU_SKIP_MDS_QUERY") or not (worker := ask("agent-worker-number")):
        return None
    else:
        workers = [_address(worker) for worker in ask("worker-network-endpoints").split(",")]
    workers = [_host(worker.strip()) for worker in workers]
    return _seat(workers, worker, functools.partial(_told, environment, ask), environment)


def _seat(
    workers: list[str], worker: str, told: Callable[[str], str], environment: Mapping[str, str]
) -> Seat:
    """The seat of a worker of a slice, which may be one of several."""
    texts = [worker, told("MEGASCALE_NUM_SLICES") or "1", told("MEGASCALE_SLICE_ID") or "0"]
    first = _host(told("MEGASCALE_COORDINATOR_ADDRESS"))
    try:
        index, num_slices, slice_id = map(int, texts)
        if not (0 <= index < len(workers) and 0 <= slice_id < num_slices and all(workers)):
            raise ValueError
        if num_slices > 1 and not first:
            raise ValueError
    except ValueError:
        raise ValueError(
            "the cluster must say which worker of how many this is, got worker, slices and slice "
            f"{', '.join(map(repr, texts))}, first worker {first!r} and {len(workers)} workers of "
            "the slice: give --coordinator, --num_processes and --process_id"
        ) from None
    first = first or workers[0]
    host = f"[{first}]" if ":" in first else first
    return Seat(
        coordinator=f"{host}:{environment.get('JAX_COORDINATOR_PORT') or _PORT}",
        num_processes=len(workers) * num_slices,
        process_id=index + slice_id * len(workers),
        workers=tuple(workers),
        num_slices=num_slices,
    )


def _told(environment: Mapping[str, str], ask: Callable[[str], str], name: str) -> str:
    """What the environment says, else a line such as MEGASCALE_NUM_SLICES: '2' of the metadata."""
    if name in environment or environment.get("TPU_SKIP_MDS_QUERY"):
        return environment.get(name, "")
    lines = (line.partition(":") for line in ask("tpu-env").splitlines())
    return next((value.strip(" '") for key, _, value in lines if key.strip() == name), "")


def _host(address: str) -> str:
    """Of host, host:port or [host]:port; several colons without brackets are of IPv6 alone."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _address(endpoint: str) -> str:
    """Of a worker: its host alone, or name:id:address as earlier."""
    endpoint = endpoint.strip()
    try:
        return str(ipaddress.ip_address(endpoint))
    except ValueError:
        parts = endpoint.split(":", 2)
        return parts[2] if len(parts) == 3 else parts[0]


def _metadata(environment: Mapping[str, str], has_tpu_chips: bool, key: str) -> str:
    """An attribute of this machine; "" where it has none, or there is no metadata server."""
    host = environment.get("GCE_METADATA_HOST") or environment.get("GCE_METADATA_IP") or _METADATA
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    # A proxy of the machine knows nothing of it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for pause in (*_PAUSES, None):
        try:
            with opener.open(request, timeout=_SECONDS) as answer:
                return answer.read(2**20).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            if _says_none(error):
                return ""
            failure = error
        if pause is not None:
            time.sleep(pause)
    if not has_tpu_chips:
        return ""
    # Taken for alone, each host would train the whole run by itself.
    raise ValueError(
        f"the metadata server must tell a machine with TPU chips its {key}, got {failure} from {url} "
        f"in {len(_PAUSES) + 1} tries: start again once it answers, or give --coordinator, "
        "--num_processes and --process_id"
    ) from failure


def _says_none(error: Exception) -> bool:
    """Whether there is no such attribute, or no host of that name; all else may pass."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 404
    reason = getattr(error, "reason", None)
    return isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN
