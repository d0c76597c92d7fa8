# The Dockerfile's base images, made from this machine's Debian mirror and Go
# toolchain. Sourced by build.sh, which sets cache.
# shellcheck shell=bash disable=SC2154

readonly debian_base=docker.io/library/debian:bookworm-slim
readonly golang_base=docker.io/library/golang:1.26-bookworm

# bah is buildah with all its state under the cache. Isolation chroot works
# inside a container too.
bah() {
  TMPDIR=$cache/buildah/tmp BUILDAH_ISOLATION=chroot buildah --storage-driver "$storage_driver" \
    --root "$cache/buildah/$storage_driver" --runroot "$cache/buildah/run-$storage_driver" "$@"
}

# choose_storage prefers overlay, which builds four times as fast; vfs copies
# every layer but works everywhere, also over another overlay.
choose_storage() {
  mkdir -p "$cache/buildah/tmp"
  # buildah notes which network program it found first and insists on it, also
  # after that package was removed. Nothing here uses its networks.
  rm -f "$cache"/buildah/*/defaultNetworkBackend
  storage_driver=overlay
  if ! bah info >/dev/null 2>&1; then storage_driver=vfs; fi
}

ensure_local_bases() {
  local rootfs=$cache/images/debian-bookworm-slim.tar
  if [[ ! -f $rootfs ]]; then
    ensure_tool mmdebstrap
    step "making $debian_base from this machine's Debian mirror (about a minute, once)" debian_rootfs "$rootfs.new"
    mv "$rootfs.new" "$rootfs"
    bah rmi --force "$debian_base" >/dev/null 2>&1 || true
  fi
  if ! bah inspect --type image "$debian_base" >/dev/null 2>&1; then
    step "importing $debian_base" import_debian "$rootfs"
    bah rmi --force "$golang_base" >/dev/null 2>&1 || true
  fi
  if ! bah inspect --type image "$golang_base" >/dev/null 2>&1; then
    step "importing $golang_base" import_golang
  fi
}

# debian_rootfs FILE makes what the slim image holds: no documentation, no
# translations, no package lists; and a merged /usr without the package that
# merges it, because that one brings perl (49 MiB).
debian_rootfs() {
  local sources=() options=() proxy
  # The machine's own mirror, if it is a Debian of the same release.
  if grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release; then
    for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
      if [[ -s $file ]]; then sources=("$file") && break; fi
    done
  fi
  proxy=$(apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy)
  if [[ -n $proxy ]]; then options=("--aptopt=$proxy"); fi
  mmdebstrap --variant=minbase --format=tar "${options[@]}" \
    --include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    bookworm "$1" "${sources[@]}"
}

import_debian() {
  local container
  container=$(bah from scratch)
  bah add --quiet "$container" "$1" /
  bah config --cmd bash "$container"
  bah commit --quiet --rm "$container" "$debian_base"
}

# The toolchain itself is mounted, not copied: see local_go_args.
import_golang() {
  local container
  container=$(bah from --pull-never "$debian_base")
  bah config --env "PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$container"
  bah commit --quiet --rm "$container" "$golang_base"
}

# local_go_args prints, one per line, the arguments that give the build stage
# this machine's toolchain, modules (read-only) and build cache, under the same
# paths so that what is already compiled is not compiled again.
local_go_args() {
  local modules build
  modules=$(go env GOMODCACHE)
  build=$(go env GOCACHE)
  printf '%s\n' \
    --volume "$(go env GOROOT):/usr/local/go:ro" \
    --volume "$modules:$modules:ro" --build-arg "GOMODCACHE=$modules" \
    --volume "$build:$build" --build-arg "GOCACHE=$build" \
    --build-arg GOPROXY=off --build-arg GOFLAGS=-buildvcs=false
}
