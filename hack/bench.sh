#!/usr/bin/env bash
# Measures the agent on clusters of many pods and policies, and what it costs a
# node's traffic. Prints one table, each target beside its figure, and writes the
# figures as JSON. See docs/performance/method.md. Best on a machine that does nothing
# else.
#
#   hack/bench.sh
#
#   SCENARIO      small, 1k, 10k, 100k, hostile, or several with commas (default small,10k)
#   HOSTILE       policies of the hostile namespace (1000)
#   NAMESPACES, PODS, POLICIES, LOCAL
#                 another size: namespaces, pods and policies per namespace, and
#                 pods of the measured node
#   SAMPLES       samples of each delay (50)
#   ROUNDS        rounds of new flows; of other traffic there are five to fourteen times as many (15)
#   IDLE, CHURN   seconds without changes, and with 100 changes of pods each (120, 120)
#   PARTS         of costs,delays,standin,traffic (default all)
#   BACKEND       of the scenarios, nft or legacy (nft); traffic is measured with both
#   AGENT_FLAGS   further flags of the agent
#   MOAT_RESULTS  where bench.json and the logs are kept (dist/bench)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0
source hack/setup.sh
source hack/benchmark.sh

run_benchmark TestBench 120m dist/bench bench.json MOAT_BENCH_JSON
