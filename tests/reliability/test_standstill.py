# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that stands still under what a run reports neither holds the run up nor keeps it."""

import os
import signal
import threading
import time

import jax
import pytest

from data_pipelines.reading import pipeline
from f3tok_jax.runs import appended_file
from f3tok_jax.runs import event_file
from f3tok_jax.runs import metric_writer
from f3tok_jax.training import session
from tests.reliability import runs
from tests.support import toy_run


def _train(shards, workdir) -> int:
    config = toy_run.make_config(shards, "--config.loop.sample_every=4")
    devices = jax.devices()[:1]
    return session.run(config, str(workdir), stage=toy_run.STAGE, devices=devices)


@pytest.mark.reliability("R08", "R02")
def test_a_run_whose_reports_stand_still_leaves_when_it_is_told_to(tmp_path, monkeypatch, capsys):
    shards, local_batch, free = (
        toy_run.build_data(tmp_path),
        pipeline.Pipeline.local_batch,
        threading.Event(),
    )
    assert _train(shards, tmp_path / "undisturbed") == session.EXIT_DONE

    def told_to_leave(self, step):
        if self.options.train and step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return local_batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(metric_writer, "_SETTLE_SECONDS", 1.0)
        patch.setattr(metric_writer, "_CLOSE_SECONDS", 1.0)
        stand = lambda self, *what, **options: free.wait(300) and None
        patch.setattr(appended_file.AppendedFile, "append", stand)
        patch.setattr(event_file.EventFile, "add", stand)
        patch.setattr(pipeline.Pipeline, "local_batch", told_to_leave)
        since = time.monotonic()
        assert _train(shards, tmp_path / "run") == session.EXIT_PREEMPTED
        assert time.monotonic() - since < 60
    free.set()
    assert "lines of metrics.jsonl were lost: their disk stands still" in capsys.readouterr().out
    assert _train(shards, tmp_path / "run") == session.EXIT_DONE
    assert runs.fingerprints(tmp_path / "run") == runs.fingerprints(tmp_path / "undisturbed")
