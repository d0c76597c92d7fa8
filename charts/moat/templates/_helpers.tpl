{{/*
Objects have fixed names: a second Moat in the cluster would be a mistake, and
Helm refuses it as the objects exist.
*/}}
{{- define "moat.labels" -}}
app.kubernetes.io/name: moat
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/*
moat.mergedLabels prints Moat's labels and the user's: a list of the context, the
component or "", and the user's labels, which can't replace Moat's.
*/}}
{{- define "moat.mergedLabels" -}}
{{- $labels := include "moat.labels" (index . 0) | fromYaml -}}
{{- with index . 1 }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end -}}
{{- merge $labels (index . 2) | toYaml }}
{{- end }}

{{- define "moat.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* moat.rules prints the rules of a generated role: a list of the context and the file's name. */}}
{{- define "moat.rules" -}}
{{- $root := index . 0 -}}
{{- $path := printf "files/rbac/%s" (index . 1) -}}
{{- $role := $root.Files.Get $path | fromYaml -}}
{{- required (printf "%s has no rules: run charts/sync.sh" $path) $role.rules | toYaml }}
{{- end }}

{{- /* The objects of a file of config/, as (list $ path), labelled. config/ installs Moat in
moat-system; where they name the service accounts' namespace, it is the release's here. */}}
{{- define "moat.configured" -}}
{{- $root := index . 0 }}
{{- $ns := $root.Release.Namespace }}
{{- $text := $root.Files.Get (index . 1) | replace ":moat-system:" (printf ":%s:" $ns) | replace "namespace: moat-system" (printf "namespace: %s" $ns) }}
{{- range $document := splitList "\n---\n" $text }}
{{- $object := fromYaml $document }}
{{- $_ := set $object.metadata "labels" (include "moat.labels" $root | fromYaml) }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
