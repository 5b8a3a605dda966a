# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself between two log lines: averages, speed, waiting and memory."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import pathlib
import resource

import jax
import numpy as np

from f3tok_jax.training import stage as stage_lib

_MEAN_SQUARE = "_mean_square"
_PAGE_BYTES = resource.getpagesize()


class Averages:
    """Sums of (sum, weight) pairs; the ratio is formed once, at the end."""

    def __init__(self):
        self._sums: dict[str, np.ndarray] = {}

    def add(self, metrics: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Adds the metrics of one batch, fetched to the host."""
        for name, pair in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + np.asarray(pair, np.float64)

    def ratios(self) -> dict[str, float]:
        """Returns name -> sum / weight; a name that never had weight is left out.

        A name that ends in _mean_square is reported as its root, under _rms.
        """
        values = {}
        for name, (total, weight) in self._sums.items():
            if weight and name.endswith(_MEAN_SQUARE):
                values[name.removesuffix(_MEAN_SQUARE) + "_rms"] = math.sqrt(total / weight)
            elif weight:
                values[name] = float(total / weight)
        return values


def ratios(metrics: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The metrics of one batch as `Averages.ratios` gives those of several."""
    averages = Averages()
    averages.add(metrics)
    return averages.ratios()


class Progress:
    """Collects the metrics and the times of steps, and describes them at intervals."""

    def __init__(self, *, num_steps: int, per_batch: float, unit: str, clock: Callable[[], float]):
        """Starts the clock.

        Args:
            num_steps: of the run.
            per_batch: in a global batch, of `unit`, where it is full.
            unit: what speed is told in, such as "audio_seconds".
            clock: seconds that never go back.
        """
        self._num_steps = num_steps
        self._per_batch, self._unit = per_batch, unit
        self._clock = clock
        self._started = clock()
        self._reset()

    def _reset(self) -> None:
        self._averages = Averages()
        self._batches = 0.0
        self._nonfinite = 0
        self._wait = 0.0
        self._aside = 0.0
        self._since = self._clock()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time inside as waiting for the input pipeline."""
        start = self._clock()
        yield
        self._wait += self._clock() - start

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Keeps the time inside (evaluation, saving, sounds) out of the training speed."""
        start = self._clock()
        yield
        self._aside += self._clock() - start

    def add(self, metrics: Mapping[str, tuple[np.ndarray, np.ndarray]], *, is_finite: bool) -> None:
        """Adds one step's metrics; those of a skipped step would spoil the averages: left out.

        Speed counts it, and of every batch what is no padding.
        """
        valid, size = metrics.get(stage_lib.FILLED, (1.0, 1.0))
        self._batches += float(valid) / float(size)
        if is_finite:
            self._averages.add(metrics)
        else:
            self._nonfinite += 1

    def values(self) -> dict[str, float]:
        """Returns averages since the last call, speed, waiting and memory, and starts anew."""
        now = self._clock()
        elapsed = max(now - self._since - self._aside, 1e-9)
        values = {
            **self._averages.ratios(),
            "train/nonfinite": float(self._nonfinite),
            "time/seconds": now - self._started,
            f"time/{self._unit}_per_second": self._batches * self._per_batch / elapsed,
            "time/data_wait_seconds": self._wait,
            **memory(),
        }
        self._reset()
        return values

    def line(self, step: int, values: Mapping[str, float]) -> str:
        """Returns one log line; names lose their first part, as they are unique without it."""
        parts = [f"step {step}/{self._num_steps}"]
        parts += [f"{name.split('/', 1)[-1]} {value:.4g}" for name, value in values.items()]
        return "  ".join(parts)


def memory() -> dict[str, float]:
    """Returns the memory of this process, and of its fullest device if known, in GB (1e9)."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        resident = int(statm.read_text().split()[1]) * _PAGE_BYTES
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values = {"memory/host_gb": resident / 1e9}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    if used:
        values["memory/device_peak_gb"] = max(used) / 1e9
    return values
