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

source hack/setup.sh

if [[ -z ${MOAT_HELM:-} && -x $KUBEBUILDER_ASSETS/helm ]]; then
  export MOAT_HELM=$KUBEBUILDER_ASSETS/helm
fi

whole=false
[[ $# -gt 0 ]] || { whole=true; set -- ./...; }
flags=(-timeout=30m)
if [[ ${#in_userns[@]} -gt 0 ]]; then
  say "not root: the tests run in user namespaces"
  # go test splits the value into words; quotes hold one together.
  flags+=(-exec "$(printf "'%s' " "${in_userns[@]}")")
elif [[ $userns_forbidden -eq 1 ]]; then
  say "not root, and user namespaces are forbidden: the tests of the kernel are skipped"
fi

say "running go test (a minute or two, longer where the tests have to be compiled)"
go test "${flags[@]}" "$@"

if $whole; then
  (cd hack && go test "${flags[@]}" ./...)
  say "running agents on a cluster of namespaces, and comparing with the engines of others (a minute)"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  export MOAT_BINARY=$work/moat
  go build -o "$MOAT_BINARY" ./cmd/moat
  cd test
  go test "${flags[@]}" ./cluster/... ./status/... ./recipes/... ./roads/... ./oracles/... ./bench/...
fi
