#!/usr/bin/env bash
# Measures the agent on clusters of many pods and policies, and what it costs a
# node's traffic. Prints one table, each target beside its figure, and writes the
# figures as JSON. See docs/performance.md. Best on a machine that does nothing
# else.
#
#   hack/bench.sh
#
#   SCENARIO      small, 1k, 10k, 100k, or several with commas (default small,10k)
#   NAMESPACES, PODS, POLICIES, LOCAL
#                 another size: namespaces, pods and policies per namespace, and
#                 pods of the measured node
#   SAMPLES       samples of each delay (50)
#   ROUNDS        rounds of traffic (15)
#   IDLE, CHURN   seconds without changes, and with 100 changes of pods each (30, 20)
#   PARTS         of costs,delays,standin,traffic (default all)
#   BACKEND       of the scenarios, nft or legacy (nft); traffic is measured with both
#   AGENT_FLAGS   further flags of the agent
#   MOAT_RESULTS  where bench.json and the logs are kept (dist/bench)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0
source hack/setup.sh

if [[ $userns_forbidden -eq 1 ]]; then
  say "not root, and user namespaces are forbidden: there is no way to make nodes"
  exit 1
fi

results=$(readlink -m "${MOAT_RESULTS:-dist/bench}")
mkdir -p "$results"
rm -rf "$results/bench.json" "$results/_artifacts"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "building moat and the benchmark"
export MOAT_BINARY=$work/moat MOAT_BENCH_JSON=$results/bench.json
go build -o "$MOAT_BINARY" ./cmd/moat
(cd test && go test -c -o "$work" ./bench)

say "measuring; the figures go to $MOAT_BENCH_JSON"
cd test/bench
"${in_userns[@]}" "$work/bench.test" -test.run='^TestBench$' -test.timeout=120m -test.artifacts -test.outputdir="$results"
