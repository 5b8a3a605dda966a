# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The whole main job at tiny scale on whatever this machine has. Sourced by tpu_train.sh.
#
# Every step leaves its result under $DEMO_DIR and is skipped when that is there, so the same command
# continues after any interruption. `rm -r runs/demo` starts over.

DEMO_DIR="${DEMO_DIR:-$REPO/runs/demo}"
DEMO_CLIPS="${DEMO_CLIPS:-300}"  # of each embedded corpus: speech, music, sound events
DEMO_STEPS="${DEMO_STEPS:-500}"  # about 1 CPU-second each: under five minutes on two cores

main_job() {
    local python="$VENV/bin/python" started=$SECONDS
    local shards="$DEMO_DIR/shards" workdir="$DEMO_DIR/autoencoder"
    export PYTHONUNBUFFERED=1

    begin 1 "environment in $VENV"
    install
    cd "$REPO" || exit

    begin 2 "embedded corpora: speech, music and sound events into shards"
    run "$python" -m data_pipelines.build_shards --source=embedded --input=speech,music,events \
        --output="$shards" --sample_rate=16000 --holdout=0.1 --num_clips="$DEMO_CLIPS"

    begin 3 "training the tiny autoencoder for $DEMO_STEPS steps on: $(find_device)"
    run "$python" -m f3tok_jax.train --config=configs/autoencoder.py:tiny \
        --config.data.train="$shards/train" --config.data.heldout="$shards/test" \
        --config.num_steps="$DEMO_STEPS" --workdir="$workdir"

    begin 4 "evaluating on the clips that were held out"
    once "$workdir/results.json" \
        "$python" -m f3tok_jax.evaluate --workdir="$workdir" --shards="$shards/test" \
        --output="$workdir/results.json" --num_examples=48

    begin 5 "writing the listening page"
    run "$python" -m f3tok_jax.report --runs "$workdir" --output="$DEMO_DIR/report.html"

    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    say ""
    say "done in $(minutes $((SECONDS - started)))"
    say "  checkpoint      $workdir/checkpoints"
    say "  listening page  $DEMO_DIR/report.html"
    say "  figures         $workdir/results.json"
    say "  curves          $workdir/metrics.jsonl"
    say "  use it          $VENV/bin/f3tok info --model=$workdir"
}

begin() {
    say ""
    if [[ "$DRY_RUN" == 1 ]]; then say "[$1/5] $2"; else say "[$1/5] $(minutes "$SECONDS") $2"; fi
}

# Runs a command unless its result is there already and newer than the run it describes.
once() {
    local result="$1"
    shift
    if [[ "$DRY_RUN" != 1 && -s "$result" && "$result" -nt "$(dirname "$result")/DONE" ]]; then
        say "already there: $result"
    else
        run "$@"
    fi
}

minutes() { printf '%d:%02d min' $(($1 / 60)) $(($1 % 60)); }
