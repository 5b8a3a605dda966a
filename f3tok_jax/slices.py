# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Says what a slice is, by any of its names: chips, hosts, memory, image, flags, price.

    python -m f3tok_jax.slices v5litepod-16          or v5e-16, or v5e:4x4: one slice, three names
    python -m f3tok_jax.slices v5p-128 --num_slices=2 --price=4.2

Needs nothing but Python 3.10: launch/ asks it before anything is installed.

Exit codes: 0 said, 1 no product has that name (one sentence says what there is).
"""

import argparse
from collections.abc import Sequence
import sys

from data_pipelines import command
from f3tok_jax.devices import slices


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.slices", __doc__)
    add = parser.add_argument
    add("name", help="of a slice, such as v5litepod-16, v5p-128 or v5e:4x4")
    add("--num_slices", type=int, default=1, help="joined by the data-centre network")
    add("--flags", default="default", help=f"of the compiler: {', '.join(slices.FLAGS)}")
    text = "dollars per chip and hour; default the list price on demand, where it is known"
    add("--price", type=command.at_least(0.0, float), help=text)
    add("--shell", action="store_true", help="as NAME=VALUE lines, for launch/")
    return command.run(parser, _describe, arguments)


def _describe(given: argparse.Namespace) -> None:
    target = slices.parse(given.name, given.num_slices, flag="--accelerator")
    chip = target.chip
    price = chip.list_price if given.price is None else given.price
    per_hour = "" if price is None else f"{price * target.num_chips:.2f}"
    of_compiler = " ".join(slices.flags(target.name, given.flags))
    if given.shell:
        facts = {
            "SLICE_TYPE": target.accelerator_type,
            "XPK_TYPE": f"{chip.type_name}-{target.shape}",
            "GENERATION": target.name,
            "TOPOLOGY": target.topology,
            "CHIPS": target.chips_per_slice,
            "HOSTS": target.hosts_per_slice,
            "RUNTIME_DEFAULT": chip.image,
            "PRICE_HOUR": per_hour,
            "COMPILER_FLAGS": of_compiler,
        }
        lines = [f"{name}={value}" for name, value in facts.items()]
    else:
        kind = "at --price" if given.price is not None else "on demand, list price"
        lines = [
            f"{target}: {target.num_chips} chips, {target.num_slices * target.hosts_per_slice} hosts,"
            f" {target.num_devices} devices of {chip.memory:g} GiB",
            f"per chip: {chip.peak_flops / 1e12:g} TFLOP/s (bfloat16), {chip.bandwidth / 1e9:g} GB/s",
            f"image: {chip.image or 'none, in a cluster (GKE) alone'}",
            f"flags of the compiler ({given.flags}): {of_compiler or 'its own defaults'}",
            f"per hour: {f'{per_hour} dollars, {kind}' if per_hour else 'not known, give --price'}",
        ]
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
