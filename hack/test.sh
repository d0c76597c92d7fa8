#!/usr/bin/env bash
# Installs what the tests need and runs them all.
#
#   hack/test.sh [GO TEST FLAGS AND PACKAGES]     default: ./...
#
# The tests of the kernel make network namespaces. As root they just run; as
# another user they run in a user namespace, and where that is forbidden they are
# skipped with a word about it (never in CI).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0

say() { printf '==> %s\n' "$*"; }

install_packages() {
  local missing=()
  command -v iptables-nft-restore >/dev/null || missing+=(iptables)
  command -v ipset >/dev/null || missing+=(ipset)
  [[ ${#missing[@]} -eq 0 ]] && return
  if [[ $EUID -ne 0 ]]; then
    say "please install: ${missing[*]} (the tests of the kernel need them)"
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian keeps these programs where other users than root don't look.
export PATH=$PATH:/usr/sbin:/sbin
install_packages

if [[ -z ${KUBEBUILDER_ASSETS:-} ]]; then
  say "building kube-apiserver, etcd, kubectl and helm, unless they are in the cache"
  KUBEBUILDER_ASSETS=$(go run ./hack/cluster build --assets etcd kube-apiserver kubectl helm)
  export KUBEBUILDER_ASSETS
fi
if [[ -z ${MOAT_HELM:-} && -x $KUBEBUILDER_ASSETS/helm ]]; then
  export MOAT_HELM=$KUBEBUILDER_ASSETS/helm
fi

run=()
if [[ $EUID -ne 0 ]]; then
  if unshare --user --map-root-user --net --mount true 2>/dev/null; then
    say "not root: the tests run in a user namespace"
    export XTABLES_LOCKFILE=${TMPDIR:-/tmp}/moat-test-xtables.lock
    run=(unshare --user --map-root-user --net --mount sh -c 'ip link set lo up; exec "$@"' sh)
  else
    say "not root, and user namespaces are forbidden: the tests of the kernel are skipped"
  fi
fi

[[ $# -gt 0 ]] || set -- ./...
say "running go test $* (a minute or two, longer where the tests have to be compiled)"
"${run[@]}" go test "$@"
