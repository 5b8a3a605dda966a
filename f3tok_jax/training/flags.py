# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The flags of training, also for those who hand them on."""

import os

from data_pipelines import command
from f3tok_jax.runs import places


def make_parser(program: str, doc: str) -> command.Parser:
    """The parser of a program that trains, with its docstring as help."""
    parser = command.make_parser(program, doc)
    add = parser.add_argument
    parser.add_config()
    add("--workdir", type=command.path, help="run folder, local or a bucket; the same one resumes")
    places.add_flag(add)
    text = (
        "folder on this host for copies of the shards and models that lie behind URLs; default "
        "$F3TOK_CACHE, else a folder in the home"
    )
    add("--data_cache", type=command.path, help=text)
    text = "print the config and what follows from it, and end"
    add("--print_config", action="store_true", help=text)
    text = "compare every byte of the shards with their manifests' SHA-256 before the first step"
    add("--verify_data", action="store_true", help=text)
    add(
        "--compilation_cache",
        type=command.path,
        default=os.environ.get("JAX_COMPILATION_CACHE_DIR"),
        help="folder of compiled programs; default $JAX_COMPILATION_CACHE_DIR, else a folder in "
        "the home; '' for none",
    )
    add = parser.add_argument_group("reports, which change nothing of what is learnt").add_argument
    text = "dollars for an hour of a chip: log lines and the ledger say what the run has cost"
    add("--price", type=command.at_least(0, float), help=text)
    text = "a live line on standard error; auto where that is a terminal"
    add("--bar", choices=("auto", "on", "off"), default="auto", help=text)
    text = (
        "wandb, offline unless $WANDB_MODE says otherwise, or MODULE:CLASS of your own, which hears "
        "of all metrics as f3tok_jax.runs.loggers.Logger says; may be given again"
    )
    add("--logger", action="append", default=[], metavar="LOGGER", help=text)
    text = "process 0 traces these steps for xprof, into the profile/ of the work folder"
    add("--profile_steps", metavar="FROM:TO", help=text)
    add = parser.add_argument_group("several processes").add_argument
    add(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether to find the others: auto where --coordinator is given or there are TPU chips",
    )
    add("--coordinator", default="", help="host:port of process 0; not needed on a TPU slice")
    text = "of the run, with --coordinator; without it, what the cluster must say"
    add("--num_processes", type=int, default=0, help=text)
    add("--process_id", type=int, default=-1, help="of this process from 0, with --coordinator")
    text = "slice that must be here, such as v5e-16: another number of devices is refused"
    add("--accelerator", default="", help=text)
    add("--num_slices", type=int, default=1, help="of --accelerator, joined by the network")
    text = "silence of a process after which the others abort"
    add("--heartbeat_seconds", type=int, default=100, help=text)
    text = "in which all processes must have arrived; then they are compared"
    add("--start_seconds", type=int, default=60, help=text)
    return parser
