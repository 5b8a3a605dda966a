# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The launches of a sweep: all are checked before the first, as each will once more check its own."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os

from data_pipelines import command
from f3tok_jax.devices import slices
from f3tok_jax.launching import validation
from f3tok_jax.runs import places as places_lib
from f3tok_jax.sweeping import plan


def check(
    runs: Sequence[plan.Run],
    flags: Sequence[str],
    *,
    moved: Mapping[str, str],
    is_offline: bool,
) -> None:
    """Refuses a run that would end on the workers.

    Args:
        runs: to be launched.
        flags: of launch/tpu_train.sh for all of them.
        moved: where what the configs name lies now; see F3Tokenizer.from_pretrained.
        is_offline: whether no bucket is asked.

    Raises:
        ValueError: for the first such run.
    """
    parser = command.Parser()
    add = parser.add_argument
    add("--accelerator", default=os.environ.get("ACCELERATOR", ""))
    add("--num_slices", type=int, default=os.environ.get("NUM_SLICES", "1"))
    add("--stage", action="append", default=[], type=command.path)
    given, _ = parser.parse_known_args(flags)
    target = slices.parse(given.accelerator, given.num_slices, flag="--accelerator")
    places = places_lib.Places(moved)
    for run in runs:
        about = (run.config, run.workdir, target, places, given.stage, is_offline)
        with _named(run):
            validation.check(validation.Launch(*about))


def check_here(runs: Sequence[plan.Run], *, moved: Mapping[str, str], is_offline: bool) -> None:
    """Refuses a run of this machine whose data is not where it is said to be; otherwise as `check`."""
    looked: set[str] = set()
    for run in runs:
        if (data := repr(run.config.data)) not in looked:
            with _named(run):
                validation.check_here(run.config, places_lib.Places(moved), is_offline=is_offline)
        looked.add(data)


@contextlib.contextmanager
def _named(run: plan.Run) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{run.name} cannot be launched: {error}") from error
