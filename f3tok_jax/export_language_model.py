# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Program: writes the language model of a run as a Hugging Face folder.

python -m f3tok_jax.export_language_model --workdir=runs/language_model --output=MODEL
"""

import argparse
from collections.abc import Sequence
import sys

from f3tok_jax.runs import checkpoint
from f3tok_jax.stages import language_model as language_model_stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.export_language_model",
        description="Writes config.json, model.safetensors and tokenizer.json.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, help="run folder of the language_model stage")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--step", type=int, default=None, help="checkpoint; default the newest")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        step = language_model_stage.export(given.workdir, given.output, given.step)
    except (ValueError, checkpoint.CheckpointError) as error:
        print(f"export_language_model: {error}", file=sys.stderr)
        return 1
    print(f"{given.output}: the language model of {given.workdir} at step {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
