#!/usr/bin/env bash
# Measures the operator on a cluster of many simulated nodes: what a change of a
# policy costs, and how soon its status says that it is enforced. Prints one table,
# each target beside its figure, and writes the figures as JSON. See
# docs/performance/method.md. Best on a machine that does nothing else.
#
#   hack/bench-status.sh
#
#   SCENARIO      5k (5,000 nodes, 2,000 policies) or small (50 nodes, 50 policies)
#   NODES, NAMESPACES, POLICIES, PODS
#                 another size: nodes, namespaces, policies per namespace (an even
#                 number, half of them of AppIsolations), and pods per node
#   SAMPLES, WIDE changes of policies of some nodes and of all nodes, each of an
#                 AppIsolation and of a hand-written policy (20, 5)
#   FALLS         pods that come, which the status has to doubt at once (100)
#   CROWD, LARGEST
#                 AppIsolations of one more namespace that are written while others' are
#                 measured: of 10 KB, and of the largest size (10000 and 500; small: 1000 and 20)
#   IDLE, STREAM  seconds without changes, and with five each (30, 30)
#   OPERATOR_FLAGS
#                 further flags of the operator
#   MOAT_RESULTS  where status.json and the logs are kept (dist/bench-status)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0
source hack/setup.sh
source hack/benchmark.sh

run_benchmark TestBenchStatus 60m dist/bench-status status.json MOAT_BENCH_STATUS_JSON
