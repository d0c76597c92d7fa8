#!/usr/bin/env bash
# Tries each connection between the tutorial's applications, by way of their
# Services, and says which are answered: a table of who reaches whom.
set -euo pipefail

address() { kubectl -n shop get service "$1" -o 'jsonpath={.spec.clusterIP}'; }
web=$(address web) api=$(address api) db=$(address db)

# row NAMESPACE APP ADDRESS... prints a row; its own address is "-".
row() {
  local namespace=$1 app=$2 answers
  shift 2
  answers=$(kubectl -n "$namespace" exec "deployment/$app" -- sh -c '
    for address; do
      if [ "$address" = - ]; then echo -
      elif timeout 2 wget -q -O /dev/null "http://$address/" 2>/dev/null; then echo yes
      else echo no; fi
    done' sh "$@")
  # shellcheck disable=SC2086 # a word for each column
  printf '%-10s %-8s %-8s %s\n' "$app" $answers
}

rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
row shop web - "$api" "$db" >"$rows/1" &
row shop api "$web" - "$db" >"$rows/2" &
row shop db "$web" "$api" - >"$rows/3" &
row elsewhere stranger "$web" "$api" "$db" >"$rows/4" &
wait
printf '%-10s %-8s %-8s %s\n' from 'to web' 'to api' 'to db'
cat "$rows"/?
