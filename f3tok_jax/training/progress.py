# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself between two log lines: averages, speed, waiting and memory."""

from collections.abc import Mapping
import datetime
import math
import pathlib
import resource
import statistics

import jax
import numpy as np

from f3tok_jax.runs import ledger as ledger_lib
from f3tok_jax.training import bar as bar_lib
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import timekeeper as timekeeper_lib

_MEAN_SQUARE = "_mean_square"
_TRAINING = ("data", "step")
_ON_BAR = ("time/step_seconds", "time/mfu", "time/goodput", "time/dollars", "time/eta_seconds")
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

    def __init__(
        self,
        clock: timekeeper_lib.Timekeeper,
        bar: bar_lib.Bar,
        stage: stage_lib.Stage,
        *,
        num_steps: int,
        peak_seconds: float | None = None,
    ):
        """Begins to count.

        Args:
            clock: knows what time goes to.
            bar: shows how far it is.
            stage: what a batch of it holds, and what its speed is told in.
            num_steps: of the run.
            peak_seconds: of a step at the peak of its chips, where that is known, once all that
                learns in the stage does.
        """
        self._clock, self._bar = clock, bar
        self._num_steps, self._peak_seconds = num_steps, peak_seconds
        self._per_batch, self._unit = stage.per_batch, stage.unit
        self._whole_from = stage.best_from
        self._before = clock.seconds()
        self._reset()

    def _reset(self) -> None:
        self._averages = Averages()
        self._batches = 0.0
        self._nonfinite = 0
        self._waited = self._clock.seconds("data")
        self._steps: list[float] = []  # seconds of each
        self._trained = self._clock.seconds(*_TRAINING)

    def add(self, metrics: Mapping[str, tuple[np.ndarray, np.ndarray]], *, is_finite: bool) -> None:
        """Adds one step's metrics; those of a skipped step would spoil the averages: left out.

        Speed counts it, and of every batch what is no padding.
        """
        trained = self._clock.seconds(*_TRAINING)
        self._steps.append(trained - self._trained)
        self._trained = trained
        self._bar.advance()
        valid, size = metrics.get(stage_lib.FILLED, (1.0, 1.0))
        self._batches += float(valid) / float(size)
        if is_finite:
            self._averages.add(metrics)
        else:
            self._nonfinite += 1

    def values(self, step: int) -> dict[str, float]:
        """Averages since the last call, speed, waiting, what is left, and memory; starts anew."""
        values = {
            **self._averages.ratios(),
            "train/nonfinite": float(self._nonfinite),
            **self._times(step),
            **memory(),
        }
        self._reset()
        self._bar.tell(_said({name: values[name] for name in _ON_BAR if name in values}))
        return values

    def _times(self, step: int) -> dict[str, float]:
        """How fast it went, and what the run has spent and still needs."""
        clock, elapsed = self._clock, max(sum(self._steps), 1e-9)
        waited = clock.seconds("data") - self._waited
        # Evaluations and saves go on to take their share.
        whole = clock.seconds(*ledger_lib.REPEATED) / max(clock.seconds(*_TRAINING), 1e-9)
        left = (self._num_steps - step) * elapsed / max(len(self._steps), 1) * whole
        times = {
            "seconds": clock.seconds() - self._before,
            f"{self._unit}_per_second": self._batches * self._per_batch / elapsed,
            "step_seconds": statistics.median(self._steps or [0.0]),
            "slowest_step_seconds": max(self._steps, default=0.0),
            "data_wait_seconds": waited,
            "data_wait_share": waited / elapsed,
            "eta_seconds": left,
        }
        # Before all that learns does, a step has fewer products than `peak_seconds` is of.
        if self._peak_seconds and step - len(self._steps) >= self._whole_from:
            times["mfu"] = self._peak_seconds * len(self._steps) / elapsed
        if ledger := clock.ledger():
            times |= {"goodput": ledger.goodput, "chip_hours": ledger.chip_hours}
            times |= {} if ledger.dollars is None else {"dollars": ledger.dollars}
        return {f"time/{name}": value for name, value in times.items()}

    def line(self, step: int, values: Mapping[str, float]) -> str:
        """Returns one log line; names lose their first part, as they are unique without it."""
        said = (" ".join(pair) for pair in _said(values).items())
        return "  ".join([f"step {step}/{self._num_steps}", *said])


def _said(values: Mapping[str, float]) -> dict[str, str]:
    """Values as a line says them, by names without their first part."""
    said = {name.split("/", 1)[-1]: f"{value:.4g}" for name, value in values.items()}
    if said.pop("eta_seconds", None):
        said["eta"] = str(datetime.timedelta(seconds=round(values["time/eta_seconds"])))
    return said


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
