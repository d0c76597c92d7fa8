#!/usr/bin/env bash
# Builds Moat's image from the repository's Dockerfile and saves it as a
# docker-archive that a container runtime can import without a registry.
#
#   hack/image/build.sh [TAG]      TAG defaults to dev
#
# Docker is used where an engine answers, else buildah. With buildah the base
# images are made here from the machine's Debian mirror and Go toolchain, so
# that no registry is needed; MOAT_IMAGE_BASES=pull takes them from theirs.
#
#   MOAT_CACHE         where everything is kept      (default ~/.cache/moat)
#   MOAT_IMAGE_BASES   local | pull, with buildah    (default local)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source hack/image/lib.sh
source hack/image/bases.sh

tag=${1:-dev}
image=ghcr.io/moat-dev/moat:$tag
cache=$(readlink -m "${MOAT_CACHE:-$HOME/.cache/moat}")
archive=$cache/images/moat-$tag.tar

check_arguments() {
  [[ $# -le 1 ]] || die "too many arguments: usage: hack/image/build.sh [TAG]"
  [[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] ||
    die "tag '$tag' is no image tag: use letters, digits, '_', '.' and '-'"
  case ${MOAT_IMAGE_BASES:-local} in
    local | pull) ;;
    *) die "MOAT_IMAGE_BASES='$MOAT_IMAGE_BASES': must be local or pull" ;;
  esac
}

# inputs_hash covers all that decides what is in the image, as .dockerignore does.
inputs_hash() {
  {
    echo "$image $(go env GOVERSION GOARCH) ${MOAT_IMAGE_BASES:-local}"
    find Dockerfile .dockerignore go.mod go.sum hack/image apis cmd controllers dataplane \
      -type f ! -name '*_test.go' ! -path '*/testdata/*' -print0 |
      LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -d' ' -f1
}

build_with_docker() {
  step "building $image with docker" \
    docker build --build-arg "VERSION=$tag" --build-arg "GOPROXY=$(go env GOPROXY)" --tag "$image" .
  step "saving $image" docker save --output "$archive.new" "$image"
}

build_with_buildah() {
  ensure_tool buildah
  choose_storage
  local args=(--build-arg "VERSION=$tag")
  if [[ ${MOAT_IMAGE_BASES:-local} == local ]]; then
    ensure_local_bases
    mapfile -t -O "${#args[@]}" args < <(local_go_args)
    step "fetching Go modules" go list -deps ./cmd/moat
  fi
  step "building $image with buildah" \
    bah build --layers --pull=missing "${args[@]}" --tag "$image" --file Dockerfile .
  step "saving $image" bah push --quiet "$image" "docker-archive:$archive.new:$image"
  # What the build stage left, and the image that this one replaces.
  step "removing old layers" bah rmi --prune
}

main() {
  check_arguments "$@"
  mkdir -p "$cache/images" "$cache/log"
  exec 9>"$cache/images/.lock"
  flock --nonblock 9 || step "waiting for another image build" flock 9

  local hash
  hash=$(inputs_hash)
  if [[ -f $archive && $(cat "$archive.inputs" 2>/dev/null) == "$hash" ]]; then
    say "nothing changed since the last build"
  else
    rm -f "$archive.new"
    if docker info >/dev/null 2>&1; then build_with_docker; else build_with_buildah; fi
    mv "$archive.new" "$archive"
    echo "$hash" >"$archive.inputs"
  fi
  say "$image, $(($(stat -c %s "$archive") >> 20)) MiB: $archive"
}

main "$@"
