# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has saved, for those who read it: its steps, what is kept beside them, its weights.

JAX and Orbax are imported where weights are read.
"""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import TYPE_CHECKING, Any, TypeVar

from etils import epath

from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import quiet
from f3tok_jax.runs import step_folders

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_Read = TypeVar("_Read")


def steps(workdir: str) -> list[int]:
    """Returns the finished steps of a run, oldest first; reads names only."""
    return step_folders.steps(step_folders.of(workdir))


def latest_step(workdir: str) -> int | None:
    """Returns the newest finished step of a run, or None; reads names only."""
    return max(steps(workdir), default=None)


def has_state(workdir: str, step: int) -> bool:
    """Returns whether files of a step's state are there; whether they are whole, its readers say."""
    path = _state(step_folders.of(workdir), step)
    return path.is_dir() and any(path.iterdir())


def read_meta(workdir: str, step: int | None = None) -> dict[str, Any]:
    """Returns what is kept beside the state of a step, which it names under "step".

    Args:
        workdir: of the run.
        step: to look at; default the newest of which this can be read.

    Raises:
        ValueError: where there is no such step.
        CheckpointError: where it is missing or damaged.
    """
    folder, candidates = _find(workdir, step)
    for candidate in reversed(candidates):
        try:
            return checkpoint_meta.read(folder, candidate)
        except checkpoint_meta.CheckpointError as error:
            failure = error
    raise failure


def restore_params(
    workdir: str,
    abstract_params: Any,
    *,
    field: str = "ema_params",
    step: int | None = None,
    known: Mapping[int, Mapping[str, str]] = types.MappingProxyType({}),
    say: Callable[[str], None] = print,
) -> tuple[Any, int]:
    """Returns one field of a saved state, without reading the others, and its step.

    Args:
        workdir: of the run.
        abstract_params: tree of jax.ShapeDtypeStruct of that field, or a part of it; with
            shardings, as arrays have them, or without for the first local device.
        field: of TrainState.
        step: to restore; default the newest whole one.
        known: fingerprints of steps that were read before; see `read_meta`.
        say: where messages to the user go.

    Raises:
        ValueError: where there is no such step, or its arrays are of another shape or dtype.
        CheckpointError: where no step asked for is whole.
    """
    import jax
    import orbax.checkpoint as ocp

    folder, candidates = _find(workdir, step)
    device = _first_device()

    def abstract(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)

    target = {field: jax.tree.map(abstract, abstract_params)}
    options = ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )

    def read(candidate: int) -> Any:
        prints = known.get(candidate) or checkpoint_meta.read(folder, candidate)["fingerprints"]
        checkpoint_meta.check_tree(prints, target, candidate, partial=True)
        return _restored(folder, candidate, options, prints)[field]

    return _newest_whole(folder, candidates, read, say)


def verify(workdir: str, step: int | None = None, *, say: Callable[[str], None] = print) -> int:
    """Reads every array of a state and compares it with its fingerprint.

    Args:
        workdir: of the run.
        step: to look at; default the newest whole one.
        say: where messages to the user go.

    Returns:
        The step.

    Raises:
        ValueError: where there is no such step.
        CheckpointError: where no step asked for is whole.
    """
    import jax
    import orbax.checkpoint as ocp

    folder, candidates = _find(workdir, step)
    # Where the arrays lay when they were saved may not exist here.
    placed = ocp.ArrayRestoreArgs(sharding=_first_device())

    def read(candidate: int) -> None:
        prints = checkpoint_meta.read(folder, candidate)["fingerprints"]
        tree = ocp.PyTreeCheckpointHandler().metadata(_state(folder, candidate)).tree
        options = ocp.args.PyTreeRestore(restore_args=jax.tree.map(lambda _: placed, tree))
        restored = _restored(folder, candidate, options, prints)
        if len(jax.tree.leaves(restored)) < len(prints):
            raise checkpoint_meta.CheckpointError("it lacks arrays that were saved")

    return _newest_whole(folder, candidates, read, say)[1]


def _find(workdir: str, step: int | None) -> tuple[epath.Path, list[int]]:
    """The folder of a run's checkpoints, and those asked for: one step, or all, oldest first."""
    found = steps(workdir)
    if not found or (step is not None and step not in found):
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise ValueError(
            f"{workdir} must hold {wanted}, got steps {found}; train it first, or give another "
            "--workdir"
        )
    return step_folders.of(workdir), found if step is None else [step]


def _newest_whole(
    folder: epath.Path,
    candidates: Sequence[int],
    read: Callable[[int], _Read],
    say: Callable[[str], None],
) -> tuple[_Read, int]:
    """What `read` gives of the newest step that is whole, and that step; others are said."""
    quiet.keep_quiet()
    mismatch = None
    for step in reversed(candidates):
        try:
            return read(step), step
        except checkpoint_meta.Mismatch as error:
            mismatch = mismatch or error
        except Exception as error:  # damaged files raise nearly anything
            say(f"checkpoint of step {step} is refused: {checkpoint_meta.first_line(error)}")
    if mismatch:
        raise mismatch
    raise checkpoint_meta.CheckpointError(
        f"no checkpoint asked for in {folder} is whole: copy it from where it is, or give another "
        "--step or --workdir"
    )


def _restored(
    folder: epath.Path, step: int, options: "ocp.args.PyTreeRestore", prints: Mapping[str, str]
) -> Any:
    """Arrays of a state, which are those that were saved."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        restored = reader.restore(_state(folder, step), args=options)
    if reason := checkpoint_meta.difference(prints, restored):
        raise checkpoint_meta.CheckpointError(reason)
    return restored


def _state(folder: epath.Path, step: int) -> epath.Path:
    return folder / str(step) / "state"


def _first_device():
    import jax

    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
