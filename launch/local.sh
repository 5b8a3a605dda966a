# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The whole main job at tiny scale on whatever this machine has. Sourced by tpu_train.sh.
#
# Every step leaves its result under $DEMO_DIR and is skipped when that is there, so the same command
# continues after any interruption. `rm -r runs/demo` starts over.

DEMO_DIR="${DEMO_DIR:-$REPO/runs/demo}"
DEMO_CLIPS="${DEMO_CLIPS:-140}"  # of each embedded corpus: speech, music, sound events
DEMO_SEED=2  # of these: clips that the model which comes with the package has not heard
DEMO_STEPS="${DEMO_STEPS:-130}"  # of the autoencoder; about 1 CPU-second each
DEMO_TEXT_STEPS="${DEMO_TEXT_STEPS:-120}"  # of the language model; about 0.3 CPU-seconds each
DEMO_REPRESENTATION_STEPS="${DEMO_REPRESENTATION_STEPS:-105}"  # about 0.8 CPU-seconds each
DEMO_GENERATION_STEPS="${DEMO_GENERATION_STEPS:-80}"  # about 0.6 CPU-seconds each
NUM_STEPS=12

main_job() {
    local python="$VENV/bin/python" started=$SECONDS
    local shards="$DEMO_DIR/shards" latents="$DEMO_DIR/latents"
    local autoencoder="$DEMO_DIR/autoencoder" representation="$DEMO_DIR/representation"
    local generation="$DEMO_DIR/generation"
    local small="$REPO/f3tok_jax/shipped/small" shipped="$DEMO_DIR/small"
    local text="$DEMO_DIR/language_model" model="$DEMO_DIR/language_model/model"
    export PYTHONUNBUFFERED=1

    begin 1 "environment in $VENV"
    install
    cd "$REPO" || exit

    begin 2 "embedded corpora: speech, music and sound events into shards"
    run "$python" -m data_pipelines.build_shards --source=embedded --input=speech,music,events \
        --output="$shards" --sample_rate=16000 --segment_seconds=6 --holdout=0.1 \
        --holdout_by=voice,transcript --num_clips="$DEMO_CLIPS" --seed="$DEMO_SEED"

    begin 3 "the model that comes with the package, heard on what was held out"
    once "$shipped/results.json" "$shards/test/manifest.json" "$small/model.safetensors" -- \
        "$python" -m f3tok_jax.evaluate --workdir="$small" \
        --stage=autoencoder --shards="$shards/test" --fit_shards="$shards/train" \
        --output="$shipped/results.json" --num_examples=16 --judge_examples=2

    begin 4 "training the tiny autoencoder for $DEMO_STEPS steps on: $(find_device)"
    run "$python" -m f3tok_jax.train --config=configs/autoencoder.py:tiny \
        --config.data.train="$shards/train" --config.data.heldout="$shards/test" \
        --config.num_steps="$DEMO_STEPS" --workdir="$autoencoder"

    begin 5 "evaluating it on the clips that were held out"
    once "$autoencoder/results.json" "$autoencoder/DONE" -- \
        "$python" -m f3tok_jax.evaluate --workdir="$autoencoder" --shards="$shards/test" \
        --output="$autoencoder/results.json" --num_examples=16 --judge_examples=2

    begin 6 "encoding all clips into latents, once"
    run "$python" -m f3tok_jax.encode_shards --workdir="$autoencoder" --shards="$shards" \
        --output="$latents"

    begin 7 "training a small language model on the corpora's text for $DEMO_TEXT_STEPS steps"
    once "$text/tokenizer.json" "$shards/train/manifest.json" -- \
        "$python" -m data_pipelines.train_tokenizer --shards="$shards/train" \
        --output="$text/tokenizer.json" --vocabulary_size=512
    run "$python" -m f3tok_jax.train --config=configs/language_model.py:tiny \
        --config.tokenizer="$text/tokenizer.json" --config.data.train="$shards/train" \
        --config.data.heldout="$shards/test" --config.num_steps="$DEMO_TEXT_STEPS" --workdir="$text"
    once "$model/config.json" "$text/DONE" -- \
        "$python" -m f3tok_jax.export --workdir="$text" --output="$model"

    begin 8 "training the representation encoder for $DEMO_REPRESENTATION_STEPS steps"
    run "$python" -m f3tok_jax.train --config=configs/representation.py:tiny \
        --config.autoencoder.workdir="$autoencoder" --config.language_model.folder="$model" \
        --config.data.latents=True --config.data.train="$latents/train" \
        --config.data.heldout="$latents/test" --config.num_steps="$DEMO_REPRESENTATION_STEPS" \
        --workdir="$representation"

    begin 9 "probing it: language, instrument and kind of sound"
    once "$representation/probe.json" "$representation/DONE" -- \
        "$python" -m f3tok_jax.probe --workdir="$representation" --shards="$shards/train" \
        --test_shards "$shards/test" --label=language,instrument,class \
        --output="$representation/probe.json"

    begin 10 "training the generator for $DEMO_GENERATION_STEPS steps: text to sound"
    run "$python" -m f3tok_jax.train --config=configs/generation.py:tiny \
        --config.representation.workdir="$representation" --config.data.latents=True \
        --config.data.train="$latents/train" --config.data.heldout="$latents/test" \
        --config.num_steps="$DEMO_GENERATION_STEPS" --config.data.batch_size=8 \
        --workdir="$generation"

    begin 11 "making sound from the texts of clips that were held out"
    once "$generation/results.json" "$generation/DONE" -- \
        "$python" -m f3tok_jax.evaluate --workdir="$generation" --shards="$shards/test" \
        --num_examples=4 --judge_examples=2 --output="$generation/results.json"

    begin 12 "writing the report"
    run "$python" -m f3tok_jax.report \
        --runs "$shipped" "$autoencoder" "$text" "$representation" "$generation" \
        --output="$DEMO_DIR/report.html"

    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    say ""
    say "done in $(minutes $((SECONDS - started)))"
    say "  report          $DEMO_DIR/report.html"
    say "  checkpoints     in checkpoints/, curves in metrics.jsonl, of each of"
    say "                  $autoencoder $text $representation $generation"
    say "  figures         $autoencoder/results.json $representation/probe.json"
    say "                  $generation/results.json"
    say "  use it          $VENV/bin/f3tok --model=$generation encode RECORDINGS --output_dir=OUT"
    say "                  or transcribe SOUND.wav, or generate --text='seven three' --output=OUT.wav"
}

begin() {
    say ""
    if [[ "$DRY_RUN" == 1 ]]; then say "[$1/$NUM_STEPS] $2"; else say "[$1/$NUM_STEPS] $(minutes "$SECONDS") $2"; fi
}

# RESULT SOURCE... -- COMMAND: runs it unless its result is there already and newer than what it is made from.
once() {
    local result="$1" is_new="$DRY_RUN"
    shift
    if [[ ! -s "$result" ]]; then is_new=1; fi
    while [[ "$1" != -- ]]; do
        if [[ ! "$result" -nt "$1" ]]; then is_new=1; fi
        shift
    done
    shift
    if [[ "$is_new" == 1 ]]; then run "$@"; else say "already there: $result"; fi
}

minutes() { printf '%d:%02d min' $(($1 / 60)) $(($1 % 60)); }
