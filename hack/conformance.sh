#!/usr/bin/env bash
# Proves that Moat enforces what Kubernetes means: all cases of Cyclonus, in both
# IP families, with both backends, and Services beside kube-proxy. See
# docs/conformance.md.
#
#   hack/conformance.sh
#
#   QUICK=1        a sample of the cases, without what make test has
#   MOAT_RESULTS   where the JUnit file and the agents' logs are kept
#                  (default dist/conformance)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0
source hack/setup.sh

if [[ $userns_forbidden -eq 1 ]]; then
  say "not root, and user namespaces are forbidden: there is no way to make nodes"
  exit 1
fi

results=$(readlink -m "${MOAT_RESULTS:-dist/conformance}")
mkdir -p "$results"
rm -rf "$results/junit.xml" "$results/services.log" "$results/_artifacts"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "building moat and the tests"
export MOAT_BINARY=$work/moat MOAT_JUNIT=$results/junit.xml
go build -o "$MOAT_BINARY" ./cmd/moat
(cd test && go test -c -o "$work" ./conformance ./services ./oracles)
go test -c -o "$work" ./dataplane

flags=(-test.timeout=60m -test.artifacts -test.outputdir="$results")
status=0

if [[ -z ${QUICK:-} ]]; then
  say "comparing policy.Evaluate with the engines of others (a minute)"
  (cd test/oracles && "$work/oracles.test" "${flags[@]}") || status=1

  say "putting 200 random clusters into the kernel, with both backends (two minutes)"
  (cd dataplane && MOAT_KERNEL_SEEDS=200 "${in_userns[@]}" "$work/dataplane.test" -test.run=TestRandomClusters "${flags[@]}") || status=1
fi

say "running Services with the real kube-proxy on three nodes, in three clusters at once"
(cd test/services && "${in_userns[@]}" "$work/services.test" -test.v -test.parallel=3 "${flags[@]}") >"$results/services.log" 2>&1 || {
  status=1
  cat "$results/services.log"
}

say "running Cyclonus' cases on three nodes, in four clusters at once${QUICK:+ (QUICK=$QUICK)}"
(cd test/conformance && "${in_userns[@]}" "$work/conformance.test" -test.parallel=4 "${flags[@]}") || status=1
exit $status
