#!/usr/bin/env bash
# Copies the CRDs, the roles, the admission policies, the priority of reports and the
# alerts into the chart. config/ is their only source; `make generate` runs this after controller-gen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=charts/moat/files
rm -rf "$target"/{crds,rbac,admission,flowcontrol,prometheus}
mkdir -p "$target"/{crds,rbac,admission,flowcontrol,prometheus}
cp config/crd/bases/*.yaml "$target/crds/"
cp config/rbac/{operator,operator_release,operator_taints,agent,leader_election,view,edit,admin}_role.yaml "$target/rbac/"
cp config/admission/{agent_events,agent_reports,operator_nodes,operator_policies,removal}.yaml "$target/admission/"
cp config/flowcontrol/agent_reports.yaml "$target/flowcontrol/"
cp config/prometheus/rules.yaml "$target/prometheus/"
