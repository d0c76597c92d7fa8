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

oracles=false
[[ $# -gt 0 ]] || { oracles=true; set -- ./...; }
if [[ $EUID -ne 0 ]]; then
  userns="unshare --user --map-root-user --net --mount"
  if $userns true 2>/dev/null; then
    say "not root: the tests run in user namespaces"
    export XTABLES_LOCKFILE=${TMPDIR:-/tmp}/moat-test-xtables.lock
    # The API server won't start on a machine without a default route.
    setup="ip link set lo up && ip link add eth0 type veth peer name eth1 && ip addr add 192.0.2.1/24 dev eth0 &&
      ip link set eth0 up && ip route add default dev eth0"
    set -- -exec "$userns sh -c '$setup && exec \"\$@\"' sh" "$@"
  else
    say "not root, and user namespaces are forbidden: the tests of the kernel are skipped"
  fi
fi

say "running go test (a minute or two, longer where the tests have to be compiled)"
go test "$@"

if $oracles; then
  say "comparing with the engines of others (half a minute)"
  cd test
  go test ./oracles/...
fi
