# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: saved asynchronously, fingerprinted, restored from the newest whole step.

A step folder holds `state` (Orbax) and `meta` (JSON, see checkpoint_meta). Orbax restores flipped
bits without a word, hence a fingerprint per leaf, and a seal of what says them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import contextlib
import json
import shutil
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from f3tok_jax.devices import multihost
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import pins
from f3tok_jax.runs import quiet
from f3tok_jax.runs import step_folders

_SPARE_SPACE = 1.2  # of the state's bytes: what must be free before a save starts


# Callers catch it here.
CheckpointError = checkpoint_meta.CheckpointError


class _Manager(ocp.CheckpointManager):
    """Orbax's, which decides nothing about leaving.

    It asks whether the run must leave, giving the step. The loop asks by another count, and JAX names
    the next question after the last, whoever asked it: a notice that came while Orbax's was the last
    would be for a number that the loop has passed, and nobody would ever leave.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpointer:
    """Saves and restores the state of one run. Every process calls every method.

    Attributes:
        files: name -> digest of each small file of the run that decides what is learnt; kept beside
            every state, and to be set before the first one is restored or saved.
        restored: what was kept beside the state that was restored; {} where none was.
    """

    def __init__(
        self,
        workdir: str,
        *,
        config_json: str,
        data_fingerprint: str,
        best_metric: str = "",
        best_from: int = 0,
        keep_last: int = 2,
        keep_best: int = 1,
        may_write: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        """Opens the run's checkpoints, removes what killed saves left behind, and tries the folder.

        Args:
            workdir: run folder, local or a bucket.
            config_json: the run's config, kept beside every state.
            data_fingerprint: of the training data; a checkpoint of other data is refused.
            best_metric: name of the metric by which the best steps are kept, lower is better.
            best_from: step after which it counts.
            keep_last: newest steps kept.
            keep_best: best steps kept.
            may_write: raises ValueError where the folder is another run's by now.
            say: where messages to the user go.

        Raises:
            ValueError: where the folder cannot be written.
        """
        self._folder = step_folders.of(workdir)
        self._config = json.loads(config_json)
        self._data_fingerprint = data_fingerprint
        self._best_metric, self._best_from = best_metric, best_from
        self._keep_last = keep_last
        self._keep_best = keep_best
        self.may_write = may_write
        self._say = say
        self._pending_step: int | None = None
        quiet.keep_quiet()
        self.files: Mapping[str, str] = {}
        self.restored: dict[str, Any] = {}
        if jax.process_index() == 0:
            _prepare_folder(self._folder, say)
        multihost.barrier("checkpoint_folder")
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            step_name_format=_StepNames(),
            enable_async_checkpointing=True,
        )
        self._manager = _Manager(self._folder, item_names=("state", "meta"), options=options)
        self._metric_of_step = {step: self._read_metric(step) for step in self._manager.all_steps()}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question which steps stay: the last, the best, the pinned, the restored one."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        measured = ((self._metric_of_step.get(step), step) for step in steps)
        scored = sorted(pair for pair in measured if pair[0] is not None)
        kept = {
            *steps[len(steps) - min(self._keep_last, len(steps)) :],
            *(step for _, step in scored[: self._keep_best]),
            *self._pinned(steps),
            *(step for step in steps if step_folders.is_link(self._folder, step)),
            self.restored.get("step"),
        }
        return [step in kept for step in steps]

    def _pinned(self, steps: Sequence[int]) -> Collection[int]:
        """Those that others depend on: all of them, where nobody can tell."""
        try:
            return pins.of(str(self._folder.parent))
        except OSError as error:
            reason = checkpoint_meta.first_line(error)
            self._say(f"every checkpoint stays, as it cannot be read which are pinned: {reason}")
            return steps

    def _read_metric(self, step: int) -> float | None:
        with contextlib.suppress(CheckpointError):
            return self._metric(step, checkpoint_meta.read(self._folder, step))

    def _metric(self, step: int, meta: Mapping[str, Any]) -> float | None:
        """By which a step may be one of the best; none where it was taken too early to be."""
        return meta["metrics"].get(self._best_metric) if step > self._best_from else None

    def all_steps(self) -> list[int]:
        """Returns the steps that are there, in order."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: Any,
        metrics: Mapping[str, float] | None = None,
        *,
        seen: Mapping[str, Any] | None = None,
    ) -> bool:
        """Starts to write the state; returns once it is copied from the devices.

        Args:
            step: steps taken so far.
            state: of jax arrays.
            metrics: of an evaluation of exactly this state, or None.
            seen: what the run has met so far, ready for JSON; a resumed run finds it in `restored`.

        Returns:
            Whether a save was started: not where the step is there already, nor where the state
            holds a non-finite value, which is said.

        Raises:
            CheckpointError: where the disk has no room, or the save before this one failed.
        """
        self.wait()
        if step in self._manager.all_steps():
            return False
        prints, nonfinite = fingerprint.of(state)
        if nonfinite:
            self._say(
                f"step {step} is not saved: {checkpoint_meta.listed(nonfinite)} hold non-finite "
                "values; the last checkpoint stays"
            )
            return False
        self.may_write()
        self._check_space(step, state)
        self._make_way(step)
        meta = checkpoint_meta.made(
            step=step,
            config=self._config,
            data_fingerprint=self._data_fingerprint,
            fingerprints=prints,
            metrics=metrics,
            files=self.files,
            seen=seen,
        )
        self._metric_of_step[step] = self._metric(step, meta)
        try:
            started = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(_write_failure(step, self._folder, error)) from error
        self._pending_step = step
        return started

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics of an evaluation that was taken after its state was saved.

        Args:
            step: of a save that has ended.
            metrics: of exactly that state.

        Raises:
            CheckpointError: where they cannot be written.
        """
        failure = None
        if jax.process_index() == 0:
            try:
                checkpoint_meta.add_metrics(self._folder, step, metrics)
            except OSError as error:
                failure = error
        if not multihost.all_agree(failure is None):
            raise CheckpointError(
                _write_failure(step, self._folder, failure or OSError("process 0 could not"))
            ) from failure
        self._metric_of_step[step] = self._read_metric(step)

    def _make_way(self, step: int) -> None:
        """Moves away what is a stranger's and has the name of a step, which Orbax would delete."""
        if jax.process_index() == 0 and step_folders.is_taken(self._folder, step):
            place = step_folders.set_aside(self._folder, step)
            self._say(f"{self._folder / str(step)} was no checkpoint of a run: it is now {place}")
        multihost.barrier("checkpoint_name")

    def _check_space(self, step: int, state: Any) -> None:
        """Refuses to begin what the disk cannot hold; buckets have no such limit."""
        if "://" in str(self._folder):
            return
        # Processes on one file system share it: the whole state must fit, not this process's part.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) * _SPARE_SPACE
        free, failure = 0, None
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:  # The folder was moved, or its disk is gone.
            failure = error
        if not multihost.all_agree(failure is None):
            raise CheckpointError(
                _write_failure(step, self._folder, failure or OSError("another process could not"))
            ) from failure
        if not multihost.all_agree(free >= needed):
            raise CheckpointError(
                f"the checkpoint of step {step} needs {needed / 1e6:.3g} MB free in {self._folder}, "
                f"got {free / 1e6:.3g} MB; free some space, then run the same command to resume"
            )

    def poll(self) -> None:
        """Raises the error of a background save as soon as it has one; call it at every step.

        Orbax keeps the error until the next save asks for it, which may be half an hour later.

        Raises:
            CheckpointError: where the save failed.
        """
        if self._pending_step is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save in progress.

        Raises:
            CheckpointError: where the save failed.
        """
        step, self._pending_step = self._pending_step, None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # whatever the background thread met
            raise CheckpointError(_write_failure(step, self._folder, error)) from error

    def close(self) -> None:
        """Waits for the save in progress and ends the background threads.

        Raises:
            CheckpointError: where the save failed.
        """
        self.wait()
        try:
            self._manager.close()
        except Exception as error:  # whatever the background threads met
            raise CheckpointError(_write_failure(None, self._folder, error)) from error

    def restore_latest(self, abstract_state: Any) -> Any | None:
        """Returns the newest whole state, or None where there is no checkpoint.

        A step that cannot be read, whose fingerprints differ or that is of another run is said,
        moved to refused_checkpoints/ (nothing is deleted), and the one before it is tried.

        Args:
            abstract_state: tree of jax.ShapeDtypeStruct with shardings, built from the config.

        Raises:
            ValueError: where those that are whole are of another run, of other data or of another
                tree of arrays.
            CheckpointError: where there are checkpoints and none is whole.
        """
        refused: dict[int, str] = {}
        mismatch = None
        for step in reversed(self.all_steps()):
            try:
                state, reason = self._try_restore(step, abstract_state)
            except checkpoint_meta.Mismatch as error:
                mismatch, reason = mismatch or error, str(error)
            if reason is None:
                self._set_aside(refused)
                if others := checkpoint_meta.other_versions(self.restored):
                    self._say(f"note: other libraries than those of step {step}: {others}")
                return state
            refused[step] = reason
        if mismatch:
            raise mismatch
        if refused:
            self._say_refused(refused)
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} is whole (steps {[*refused]}); give "
                "another --workdir, or move them away to start again"
            )
        return None

    def _try_restore(self, step: int, abstract_state: Any) -> tuple[Any, str | None]:
        """Returns the state, or why this step is not whole; all processes agree on it."""
        state, failure = None, None
        try:
            meta = checkpoint_meta.read(self._folder, step)
            checkpoint_meta.check_data(meta, self._data_fingerprint, step)
            checkpoint_meta.check_run(meta, self._config, self.files, step)
            checkpoint_meta.check_tree(meta["fingerprints"], abstract_state, step)
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
            )
            state = restored.state
        except Exception as error:  # damaged files raise nearly anything
            failure = error
        # Whatever it met, each process asks: the others wait for its answer.
        if not multihost.all_agree(failure is None):
            if isinstance(failure, checkpoint_meta.Mismatch):
                raise failure
            another = "another process could not read it"
            return None, checkpoint_meta.first_line(failure) if failure else another
        reason = checkpoint_meta.difference(meta["fingerprints"], state)
        if reason is None:
            self.restored = meta
        return (None if reason else state), reason

    def _say_refused(self, refused: Mapping[int, str]) -> None:
        for step, reason in refused.items():
            self._say(f"checkpoint of step {step} is refused: {reason}")

    def _set_aside(self, refused: Mapping[int, str]) -> None:
        """Moves refused steps out of the way, so that their numbers can be saved again."""
        if not refused:
            return
        self._say_refused(refused)
        if jax.process_index() == 0:
            for step in refused:
                step_folders.set_aside(self._folder, step)
            self._say(
                f"restored step {self.restored['step']}; the refused steps {[*refused]} are kept in "
                f"{self._folder.parent / step_folders.REFUSED}"
            )
        multihost.barrier("refused_checkpoints")
        self._manager.reload()


class _StepNames:
    """Tells Orbax which folders are its own, and how they are named."""

    def build_name(self, step: int) -> str:
        return str(step)

    def find_all(self, base_path: epath.Path) -> Iterator[ocp.path.step.Metadata]:
        folder = epath.Path(base_path)
        return iter([self.find_step(folder, step) for step in step_folders.steps(folder)])

    def find_step(self, base_path: epath.Path, step: int) -> ocp.path.step.Metadata:
        return ocp.path.step.Metadata(step=step, path=epath.Path(base_path) / str(step))


def _prepare_folder(folder: epath.Path, say: Callable[[str], None]) -> None:
    try:
        step_folders.prepare(folder, say)
    except OSError as error:
        raise ValueError(
            f"the work folder must be writable, got {checkpoint_meta.first_line(error)} in "
            f"{folder}; mend that or give another --workdir"
        ) from error


def _write_failure(step: int | None, folder: epath.Path, error: BaseException) -> str:
    what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
    return (
        f"{what} could not be written to {folder}: "
        f"{checkpoint_meta.first_line(error)}; earlier "
        "steps are untouched: free space or mend the folder, then run the same command to resume"
    )
