# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What f3tok does with its inputs, one or many; JAX and the model come when they are needed."""

from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import sys
from typing import Any

from f3tok_jax.inference import jobs
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import pipes


def say(text: str) -> None:
    """Tells the user; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Model:
    """A run that is loaded when it is needed.

    Attributes:
        folder: of the run.
        step: of the checkpoint; the newest if None.
        moved: where what the run names lies now; see F3Tokenizer.from_pretrained.
        decoder: another run whose decoder is used; likewise.
    """

    folder: str
    step: int | None = None
    moved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decoder: str = ""

    @functools.cached_property
    def tokenizer(self):
        """The run in use."""
        from f3tok_jax.inference import start

        with start.soon(say=say):
            from f3tok_jax.inference import tokenizer

        options = dict(moved=self.moved, decoder=self.decoder, say=say)
        return tokenizer.F3Tokenizer.from_pretrained(self.folder, self.step, **options)

    def load(self, *parts: str) -> None:
        """Loads parts of the tokenizer."""
        for part in parts:
            getattr(self.tokenizer, part)

    def info(self) -> dict[str, Any]:
        """What the model is, ready for JSON: as its files say, without JAX."""
        run = model_folder.read(self.folder, self.step, moved=self.moved)
        return model_folder.describe(run)


def encode(plan: jobs.Plan, model: Model, *, channels: str) -> int:
    """Latents of each input; see files.encode_file. Returns the exit code, as all here."""
    return _to_frames(plan, model, "encode_file", ("codec",), channels)


def represent(plan: jobs.Plan, model: Model, *, channels: str) -> int:
    """Representations of each input."""
    return _to_frames(plan, model, "represent_file", ("representer", "codec"), channels)


def _to_frames(
    plan: jobs.Plan, model: Model, method: str, parts: tuple[str, ...], channels: str
) -> int:
    def work(job: jobs.Job) -> None:
        from f3tok_jax.inference import latent_file

        with pipes.readable(job.source) as path, pipes.writable(job.target, ".npz") as place:
            made = getattr(model.tokenizer, method)(path, channels=channels, name=job.name)
            latent_file.save(made, place)
        count, frames, width = made.values.shape
        _report(
            job,
            f"{count} x {frames} {made.kind} of {width} at {made.latent_rate:g} Hz, from "
            f"{made.num_samples[0]} samples at {made.sample_rate} Hz",
        )

    return plan.run(work, load=lambda: model.load(*parts), say=say)


def decode(plan: jobs.Plan, model: Model, *, ending: str) -> int:
    """Sound of each file of latents; `ending` is that of sound for a pipe."""

    def work(job: jobs.Job) -> None:
        from f3tok_jax.inference import latent_file

        with pipes.readable(job.source) as path, pipes.writable(job.target, ending) as place:
            latents = latent_file.load(path, name=job.name)
            model.tokenizer.decode_file(latents, place)
        _report(job, f"{latents.num_samples[0]} samples at {latents.sample_rate} Hz")

    return plan.run(work, load=lambda: model.load("codec"), say=say)


def transcribe(plan: jobs.Plan, model: Model, *, task: str) -> int:
    """Text of each input: of one alone, of many in lines of name, tab and text."""

    def load() -> None:
        model.load("representer", "transcriber", "codec")
        model.tokenizer.transcriber.check(task)

    def work(job: jobs.Job) -> None:
        with pipes.readable(job.source) as path:
            text = model.tokenizer.transcribe_file(path, task=task, name=job.name)
        if plan.is_many:  # A tab or a new line in either would be taken for one of the table.
            text = "\t".join(" ".join(part.split()) for part in (job.name, text))
        print(text, flush=True)

    return plan.run(work, load=load, say=say)


def generate(plan: jobs.Plan, model: Model, text: str, *, stream: bool, **options: Any) -> int:
    """Sound of a text; the input of the plan is a recording to continue, "" for none."""

    def work(job: jobs.Job) -> None:
        prompt = pipes.readable(job.source) if job.source else contextlib.nullcontext()
        with prompt as path, pipes.writable(job.target, ".wav") as place:
            made = model.tokenizer.generate_file(text, place, prompt=path, stream=stream, **options)
        _report(job, f"{made.seconds:.2f} s at {made.sample_rate} Hz, {made.ending}")

    (job,) = plan.jobs
    if stream and job.target == pipes.PIPE:
        raise ValueError(
            "--stream must write a file that others read while it grows, got standard output, "
            "which takes a sound when it is whole: leave --stream out"
        )
    return plan.run(work, load=model.load, say=say)


def _report(job: jobs.Job, text: str) -> None:
    """Says what was written, where it does not go to standard output itself."""
    if job.target != pipes.PIPE:
        print(f"{job.target}: {text}", flush=True)
