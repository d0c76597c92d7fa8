{{/*
Objects have fixed names: a second Moat in the cluster would be a mistake, and
Helm refuses it as the objects exist.
*/}}

{{/*
moat.mergedLabels prints the labels of an object, Moat's and the user's: a list of the
context, the component or "", and the user's labels, which can't replace Moat's.
*/}}
{{- define "moat.mergedLabels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "app.kubernetes.io/name" "moat"
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version) -}}
{{- with index . 1 }}{{ $_ := set $own "app.kubernetes.io/component" . }}{{ end -}}
{{- merge $own (index . 2) $root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "moat.labels" -}}
{{- include "moat.mergedLabels" (list . "" dict) }}
{{- end }}

{{/*
moat.selectorLabels prints by what a component's pods are found: its argument is the
component. They never change: Kubernetes lets nobody change a selector.
*/}}
{{- define "moat.selectorLabels" -}}
app.kubernetes.io/name: moat
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/*
moat.podLabels prints the labels of a pod template, with the arguments of
moat.mergedLabels. No version is among them: a pod template that differs replaces the
pods, and a new chart with the same image has no reason to replace 300 agents.
*/}}
{{- define "moat.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "moat.selectorLabels" (index . 1) | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/instance" $root.Release.Name -}}
{{- merge $own (index . 2) $root.Values.commonLabels | toYaml }}
{{- end }}

{{/*
moat.image prints the image. global.imageRegistry takes the place of the repository's
registry, or goes before a repository that names none: a first part is a registry if it has
a "." or a ":", or is localhost, as everywhere where images have names.
*/}}
{{- define "moat.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with dig "imageRegistry" "" (.Values.global | default dict) -}}
{{- $parts := splitn "/" 2 $repository -}}
{{- if and $parts._1 (or (regexMatch "[.:]" $parts._0) (eq $parts._0 "localhost")) -}}
{{- $repository = $parts._1 -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/*
moat.pullSecrets prints imagePullSecrets of a pod, or nothing: those of image.pullSecrets,
imagePullSecrets and global.imagePullSecrets, each a name or {name: ...}, and each once.
*/}}
{{- define "moat.pullSecrets" -}}
{{- $global := dig "imagePullSecrets" list (.Values.global | default dict) | default list -}}
{{- $names := list -}}
{{- range concat .Values.image.pullSecrets (.Values.imagePullSecrets | default list) $global -}}
{{- if kindIs "string" . }}{{ $names = append $names . }}{{ else }}{{ $names = append $names .name }}{{ end -}}
{{- end -}}
{{- with $names | uniq -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
moat.operatorPlacement prints where the operator's pods run, and so the one of helm test:
nodeSelector, affinity and tolerations of a pod. A node whose agent is away is one of the
nodes: an operator that runs there can end that.
*/}}
{{- define "moat.operatorPlacement" -}}
{{- $values := .Values.operator -}}
tolerations:
  {{- range list "node-role.kubernetes.io/control-plane" "isolation.moat.dev/agent-absent" }}
  - key: {{ . }}
    operator: Exists
    effect: NoSchedule
  {{- end }}
  {{- with $values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
moat.agentAffinity prints the agents' affinity: the user's, with agent.excludedNodes added to
each of its required terms, of which Kubernetes asks for any one. A term that is left without
the exclusion would bring the excluded nodes back.
*/}}
{{- define "moat.agentAffinity" -}}
{{- $affinity := deepCopy .Values.agent.affinity -}}
{{- $excluded := list -}}
{{- range $label, $values := .Values.agent.excludedNodes -}}
{{- $excluded = append $excluded (dict "key" $label "operator" "NotIn" "values" $values) -}}
{{- end -}}
{{- if $excluded -}}
{{- $nodeAffinity := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $nodeAffinity "requiredDuringSchedulingIgnoredDuringExecution" | default dict -}}
{{- $terms := get $required "nodeSelectorTerms" | default (list (dict "matchExpressions" list)) -}}
{{- range $terms -}}
{{- /* An empty term matches no node, and has to stay empty. */ -}}
{{- if . }}{{ $_ := set . "matchExpressions" (concat (get . "matchExpressions" | default list) $excluded) }}{{ end -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $nodeAffinity "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $nodeAffinity -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/*
moat.maxUnavailable prints how many agents are replaced at a time. agent.maxUnavailable is
what the value was called before chart 0.3.0.
*/}}
{{- define "moat.maxUnavailable" -}}
{{- .Values.agent.maxUnavailable | default .Values.agent.updateStrategy.rollingUpdate.maxUnavailable }}
{{- end }}

{{/*
moat.logFormat prints the flag for the logs' format, and nothing for the one that a program
has without it: an image that is older than the flag still starts.
*/}}
{{- define "moat.logFormat" -}}
{{- if ne .Values.logFormat "text" }}--log-format={{ .Values.logFormat }}{{ end -}}
{{- end }}

{{/*
moat.args prints the arguments of a component: a list of the component's values, its name
in messages, and a list of the arguments that the chart sets, of which it leaves out the
empty ones. An extra argument that
repeats one of them is refused: the last one would win, and the probes or ports of the
manifest would no longer be those of the program.
*/}}
{{- define "moat.args" -}}
{{- $component := index . 1 -}}
{{- $args := compact (index . 2) -}}
{{- $set := dict -}}
{{- range $args }}{{ $_ := set $set (splitList "=" . | first) true }}{{ end -}}
{{- range (index . 0).extraArgs -}}
{{- $flag := splitList "=" . | first -}}
{{- if hasKey $set $flag }}{{ fail (printf "%s.extraArgs: %s is there already: use the chart's value for it (helm show values), or name it once" $component $flag) }}{{ end -}}
{{- $_ := set $set $flag true -}}
{{- $args = append $args . -}}
{{- end -}}
{{- toYaml $args }}
{{- end }}

{{/*
moat.agentMetrics is the agent's flag of where it serves its metrics.
*/}}
{{- define "moat.agentMetrics" -}}
{{- $hosts := dict "All" "" "NodeIP" "[$(NODE_IP)]" "Loopback" "127.0.0.1" -}}
{{- if eq .Values.agent.metricsListen "None" -}}
--metrics-address=0
{{- else -}}
--metrics-address={{ get $hosts .Values.agent.metricsListen }}:{{ .Values.agent.ports.metrics }}
{{- end -}}
{{- end }}

{{/*
moat.budgets prints a flag of an agent, or nothing where no value asks for it: a list of the
context and of what the flag is about. An agent of an older version knows none of them, and
upgrades with --reuse-values have no such values.
*/}}
{{- define "moat.budgets" -}}
{{- $budgets := (index . 0).Values.agent.budgets | default dict -}}
{{- $scope := index . 1 -}}
{{- if eq $scope "mode" -}}
{{- with $budgets.mode }}{{ printf "--budget-mode=%s" . }}{{ end -}}
{{- else -}}
{{- $amounts := get $budgets $scope | default dict -}}
{{- $parts := list -}}
{{- range list "prefixes" "rules" "sets" "elements" -}}
{{- if hasKey $amounts . }}{{ $parts = append $parts (printf "%s=%d" . (int (get $amounts .))) }}{{ end -}}
{{- end -}}
{{- with $parts }}{{ printf "--budget-%s=%s" $scope (join "," .) }}{{ end -}}
{{- end -}}
{{- end }}

{{/*
moat.env prints the environment of a component: a list of the component's values, its name in
messages, and a dict of the chart's own variables and the fields that they show. A variable
that is there twice is refused, since server-side apply refuses it too.
*/}}
{{- define "moat.env" -}}
{{- $values := index . 0 -}}
{{- $component := index . 1 -}}
{{- $env := list -}}
{{- $names := dict -}}
{{- range $name, $path := index . 2 -}}
{{- $env = append $env (dict "name" $name "valueFrom" (dict "fieldRef" (dict "fieldPath" $path))) -}}
{{- $_ := set $names $name true -}}
{{- end -}}
{{- if dig "limits" "memory" "" $values.resources -}}
{{- $env = append $env (dict "name" "MEMORY_LIMIT" "valueFrom" (dict "resourceFieldRef" (dict "resource" "limits.memory"))) -}}
{{- $_ := set $names "MEMORY_LIMIT" true -}}
{{- end -}}
{{- range $variable := $values.extraEnv -}}
{{- if hasKey $names $variable.name }}{{ fail (printf "%s.extraEnv: %s is there already: name it once, and none that the chart sets" $component $variable.name) }}{{ end -}}
{{- $_ := set $names $variable.name true -}}
{{- $env = append $env $variable -}}
{{- end -}}
{{- toYaml $env }}
{{- end }}

{{/*
moat.rules prints the rules of a role in files/rbac: a list of the context, the file's
name and the kind, ClusterRole or Role.
*/}}
{{- define "moat.rules" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 2 -}}
{{- $path := printf "files/rbac/%s" (index . 1) -}}
{{- $rules := list -}}
{{- range $document := $root.Files.Get $path | splitList "\n---\n" -}}
{{- $role := fromYaml $document -}}
{{- if eq $kind ($role.kind | default "") }}{{ $rules = $role.rules }}{{ end -}}
{{- end -}}
{{- required (printf "%s has no rules of a %s: run charts/sync.sh" $path $kind) $rules | toYaml }}
{{- end }}

{{- /* The objects of a file of config/, as (list $ path), labelled. config/ installs Moat in
moat-system; where they name that namespace, it is the release's here. */}}
{{- define "moat.configured" -}}
{{- $root := index . 0 }}
{{- $ns := $root.Release.Namespace }}
{{- $text := $root.Files.Get (index . 1) | replace ":moat-system:" (printf ":%s:" $ns) | replace "namespace: moat-system" (printf "namespace: %s" $ns) | replace "'moat-system'" (printf "'%s'" $ns) }}
{{- range $document := splitList "\n---\n" $text }}
{{- $object := fromYaml $document }}
{{- $_ := set $object.metadata "labels" (include "moat.labels" $root | fromYaml) }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
