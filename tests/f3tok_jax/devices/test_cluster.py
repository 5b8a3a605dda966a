# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The seat of a process as GKE's environment and a metadata server tell it; a local one stands for that."""

import http.server
import socket
import threading

import pytest

from f3tok_jax.devices import cluster

_PATH = "/computeMetadata/v1/instance/attributes/"


@pytest.fixture
def metadata(monkeypatch):
    """Key -> what the metadata server answers; the environment leads to it, and through no proxy.

    A list answers with its numbers first, which are HTTP's, one after another.
    """
    answers: dict[str, str | list] = {}
    monkeypatch.setattr(cluster, "_PAUSES", (0.0,) * 3)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Metadata-Flavor"] == "Google" and self.path.startswith(_PATH)
            answer = answers.get(self.path.removeprefix(_PATH)) if known else None
            code = 404 if answer is None else 200
            if isinstance(answer, list):
                code, answer = (answer.pop(0), "") if len(answer) > 1 else (200, answer[0])
            self.send_response(code)
            self.end_headers()
            self.wfile.write((answer or "").encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        answers["host"] = f"127.0.0.1:{server.server_port}"
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        yield answers
        server.shutdown()


def _find(metadata, **environment) -> cluster.Seat | None:
    return cluster.find({"GCE_METADATA_HOST": metadata["host"]} | environment)


@pytest.mark.parametrize("endpoints", ["10.0.0.1, 10.0.0.2", "a:8470:10.0.0.1,b:8470:10.0.0.2"])
def test_a_slice_of_compute_engine(metadata, endpoints):
    metadata |= {"agent-worker-number": "1\n", "worker-network-endpoints": endpoints}
    assert _find(metadata) == cluster.Seat("10.0.0.1:8482", 2, 1, ("10.0.0.1", "10.0.0.2"))
    assert _find(metadata, JAX_COORDINATOR_PORT="8476").coordinator == "10.0.0.1:8476"


def test_several_slices_of_compute_engine(metadata):
    metadata |= {"agent-worker-number": "0", "worker-network-endpoints": "10.0.1.1,10.0.1.2"}
    metadata["tpu-env"] = (
        "ACCELERATOR_TYPE: 'v5litepod-8'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"
        "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
    )
    seat = _find(metadata)
    assert (seat.coordinator, seat.num_processes, seat.process_id) == ("10.0.0.1:8482", 4, 2)
    assert seat.name(3) == "3 (worker 1 of slice 1)"


def test_slices_of_gke_say_it_in_the_environment(metadata):
    one = dict(TPU_WORKER_HOSTNAMES="job-0.svc,job-1.svc", TPU_WORKER_ID="1")
    seat = _find(metadata, **one)
    assert seat == cluster.Seat("job-0.svc:8482", 2, 1, ("job-0.svc", "job-1.svc"))
    assert [seat.name(process) for process in (0, 1)] == ["0 (job-0.svc)", "1 (job-1.svc)"]
    several = dict(MEGASCALE_NUM_SLICES="3", MEGASCALE_SLICE_ID="2", TPU_SKIP_MDS_QUERY="true")
    several["MEGASCALE_COORDINATOR_ADDRESS"] = "first-0.svc"
    seat = _find(metadata, **one, **several)
    assert (seat.coordinator, seat.num_processes, seat.process_id) == ("first-0.svc:8482", 6, 5)
    # Of several processes on a host, by their addresses.
    ports = dict(TPU_PROCESS_ADDRESSES="h:8476,h:8477", TPU_WORKER_ID="0", TPU_SKIP_MDS_QUERY="1")
    assert _find(metadata, **ports).num_processes == 2


def test_elsewhere_there_is_no_seat(metadata):
    assert _find(metadata) is None
    metadata["agent-worker-number"] = "0"
    assert _find(metadata, TPU_SKIP_MDS_QUERY="1") is None
    assert cluster.find({"GCE_METADATA_HOST": "127.0.0.1:9"}) is None


@pytest.mark.parametrize("code", [403, 429, 500, 503])
def test_a_metadata_server_that_fails_is_asked_again_and_never_taken_for_none(metadata, code):
    metadata |= {"agent-worker-number": [code, code, "1"], "worker-network-endpoints": "a,b"}
    metadata["tpu-env"] = [code, code, "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"]
    metadata["tpu-env"][-1] += "MEGASCALE_COORDINATOR_ADDRESS: 'c'"
    here = {"GCE_METADATA_HOST": metadata["host"]}
    seat = cluster.find(here, has_tpu_chips=True)
    assert (seat.num_processes, seat.process_id) == (4, 3)
    # A slice that is not told of the others is not the whole run.
    metadata["tpu-env"] = [code] * 4 + [""]
    with pytest.raises(ValueError, match=f"tell a machine .* its tpu-env, got .*{code}.* 4 tries"):
        cluster.find(here, has_tpu_chips=True)
    metadata["agent-worker-number"] = [code] * 4 + ["1"]
    with pytest.raises(ValueError, match="its agent-worker-number, got"):
        cluster.find(here, has_tpu_chips=True)


def test_a_machine_with_chips_and_no_metadata_server_is_alone(metadata, monkeypatch):
    assert cluster.find({"GCE_METADATA_HOST": metadata["host"]}, has_tpu_chips=True) is None
    refused = {"GCE_METADATA_HOST": "127.0.0.1:9"}
    with pytest.raises(ValueError, match="must tell a machine with TPU chips its agent-worker-n"):
        cluster.find(refused, has_tpu_chips=True)

    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert cluster.find({"GCE_METADATA_HOST": "nowhere.invalid"}, has_tpu_chips=True) is None


@pytest.mark.parametrize(
    "endpoints", ["fd00::1, fd00::2", "fe80::1,fe80::2", "unknown:unknown:fd00::1,u:u:fd00::2"]
)
def test_workers_of_ipv6_keep_their_addresses(metadata, endpoints):
    metadata |= {"agent-worker-number": "1", "worker-network-endpoints": endpoints}
    prefix = "fe80" if "fe80" in endpoints else "fd00"
    workers = (f"{prefix}::1", f"{prefix}::2")
    assert _find(metadata) == cluster.Seat(f"[{prefix}::1]:8482", 2, 1, workers)


def test_ports_and_brackets_are_not_of_a_host(metadata):
    given = dict(TPU_WORKER_ID="0", TPU_SKIP_MDS_QUERY="1")
    for named, host in (("[fd00::1]:8476,[fd00::2]:8476", "fd00::1"), ("h:1,h:2", "h")):
        seat = _find(metadata, TPU_PROCESS_ADDRESSES=named, **given)
        assert seat.workers[0] == host and len(seat.workers) == 2
    several = dict(MEGASCALE_NUM_SLICES="2", MEGASCALE_COORDINATOR_ADDRESS="[fd00::9]:8080")
    seat = _find(metadata, TPU_WORKER_HOSTNAMES="fd00::1,fd00::2", **given, **several)
    assert (seat.coordinator, seat.workers[1]) == ("[fd00::9]:8482", "fd00::2")


@pytest.mark.parametrize(
    "said",
    [
        dict(TPU_WORKER_ID="2"),
        dict(TPU_WORKER_ID="one"),
        dict(TPU_WORKER_HOSTNAMES="a,,b"),
        dict(MEGASCALE_NUM_SLICES="2"),
        dict(MEGASCALE_NUM_SLICES="2", MEGASCALE_SLICE_ID="2", MEGASCALE_COORDINATOR_ADDRESS="c"),
    ],
)
def test_what_makes_no_sense_is_refused(metadata, said):
    given = dict(TPU_WORKER_HOSTNAMES="a,b", TPU_WORKER_ID="0", TPU_SKIP_MDS_QUERY="1")
    with pytest.raises(ValueError, match="the cluster must say which worker .* give --coordinator"):
        _find(metadata, **given | said)
