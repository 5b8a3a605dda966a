# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The container image of this tree: built once for each content of it, kept in --image_repository.
# Sourced by xpk.sh, after archive.sh.

BUILDER="${BUILDER:-}" # docker, podman, buildah or gcloud (Cloud Build); default: the first that is here

need_image() {
    [[ -n "$DOCKER_IMAGE$IMAGE_REPOSITORY" ]] ||
        die "--image_repository is missing: where this tree's image is kept, for example --image_repository us-docker.pkg.dev/PROJECT/REPOSITORY; or name an image that exists by --docker-image"
}

# Sets IMAGE: that of --docker-image, or one that is built of this tree where there is none of its content.
make_image() {
    IMAGE="$DOCKER_IMAGE"
    if [[ -n "$IMAGE" ]]; then return 0; fi
    need_image
    find_builder
    IMAGE="${IMAGE_REPOSITORY%/}/f3tok_jax:$(content)" || die "the files of the image could not be read"
    if image_exists; then
        say "$IMAGE is there already"
    else
        build_image || die "the image could not be built and pushed with $BUILDER; its message is above"
    fi
}

# A docker without its daemon builds nothing.
find_builder() {
    local name
    case "$BUILDER" in
        docker | podman | buildah | gcloud) return 0 ;;
        ?*) die "BUILDER must be docker, podman, buildah or gcloud, got '$BUILDER'" ;;
    esac
    for name in docker podman buildah; do
        if command -v "$name" >/dev/null && { [[ "$DRY_RUN" == 1 ]] || "$name" info >/dev/null 2>&1; }; then
            BUILDER="$name"
            return 0
        fi
    done
    BUILDER=gcloud
    command -v gcloud >/dev/null || [[ "$DRY_RUN" == 1 ]] ||
        die "nothing here can build an image: install docker, podman, buildah or gcloud, or name an image that exists by --docker-image"
}

# Prints what distinguishes these files, of this commit, from all others.
content() {
    (cd "$REPO" && { provenance && list_files | xargs -0 wc -c | tr -d ' ' && list_files | xargs -0 cat; }) | sha256 | cut -c 1-16
}

# What cannot be told is said now, and not after an image was built that cannot be pushed.
image_exists() {
    local answer question=(gcloud container images describe "$IMAGE")
    if [[ "$IMAGE" == *.pkg.dev/* ]]; then
        question=(gcloud artifacts docker images describe "$IMAGE")
    elif [[ "$BUILDER" != gcloud ]]; then
        question=("$BUILDER" manifest inspect "$IMAGE")
    fi
    if [[ "$DRY_RUN" == 1 ]]; then
        show "${question[@]}"
        return 1
    fi
    if answer="$("${question[@]}" 2>&1)"; then return 0; fi
    grep -qiE 'not.found|manifest unknown|no such manifest' <<<"$answer" ||
        die "whether there is an image $IMAGE cannot be told: $answer"
    return 1
}

build_image() {
    make_archive
    if [[ "$BUILDER" == gcloud ]]; then
        run gcloud builds submit "$ARCHIVE" --config "$REPO/launch/cloudbuild.yaml" \
            --substitutions "_IMAGE=$IMAGE" ${PROJECT:+--project "$PROJECT"}
        return
    fi
    local context="$PRIVATE/context"
    run mkdir "$context" && run tar -xzf "$ARCHIVE" -C "$context" &&
        run "$BUILDER" build --platform linux/amd64 --file "$context/launch/Dockerfile" --tag "$IMAGE" "$context" &&
        run "$BUILDER" push "$IMAGE"
}
