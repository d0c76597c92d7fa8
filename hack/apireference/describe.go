package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

const header = `<!-- Generated from the types by make generate. Do not edit. -->
# API reference: every field of ` + "`isolation.moat.dev/v1alpha1`" + `

[api.md](api.md) is the overview. "refused" are the rules that the API server checks beside type, bounds and pattern, in the words that a user sees.
`

// conditions says once what metav1.Condition is, which every status has.
const conditions = "conditions[]"

// describe writes one kind with a table of its fields.
func describe(text *bytes.Buffer, crd *apiextensionsv1.CustomResourceDefinition) {
	version := crd.Spec.Versions[0]
	names := crd.Spec.Names
	also := append([]string{names.Plural}, names.ShortNames...)
	fmt.Fprintf(text, "\n## %s (%s; `%s`)\n\n", names.Kind, strings.ToLower(string(crd.Spec.Scope)), strings.Join(also, "`, `"))
	schema := version.Schema.OpenAPIV3Schema
	fmt.Fprintf(text, "%s\n", oneLine(schema.Description))
	for _, rule := range schema.XValidations {
		fmt.Fprintf(text, "\nRefused: %s.\n", rule.Message)
	}
	text.WriteString("\n| field | type | meaning |\n| --- | --- | --- |\n")
	for _, top := range []string{"spec", "status"} {
		if property, found := schema.Properties[top]; found {
			describeFields(text, top, property)
		}
	}
}

// describeFields writes the fields below path, depth first.
func describeFields(text *bytes.Buffer, path string, schema apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name]
		field := path + "." + name
		meaning := oneLine(property.Description)
		if slices.Contains(schema.Required, name) {
			meaning = "**Required.** " + meaning
		}
		if property.Type == "array" && property.Items != nil && property.Items.Schema != nil {
			field += "[]"
		}
		fmt.Fprintf(text, "| `%s` | %s | %s |\n", field, typeOf(property), meaning+limits(property))
		if strings.HasSuffix(field, conditions) {
			continue
		}
		if property.Items != nil && property.Items.Schema != nil {
			property = *property.Items.Schema
		}
		describeFields(text, field, property)
	}
}

func typeOf(schema apiextensionsv1.JSONSchemaProps) string {
	switch {
	case schema.XIntOrString:
		return "integer or string"
	case schema.Type == "array" && schema.Items != nil && schema.Items.Schema != nil:
		kind := "list of " + typeOf(*schema.Items.Schema)
		if len(schema.XListMapKeys) > 0 {
			kind += ", by " + strings.Join(schema.XListMapKeys, ", ")
		}
		return kind
	case schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil:
		return "map of " + typeOf(*schema.AdditionalProperties.Schema)
	}
	return schema.Type
}

// limits says what else the API server checks of a field, and of the items of a
// list.
func limits(schema apiextensionsv1.JSONSchemaProps) string {
	var text strings.Builder
	if schema.Default != nil {
		fmt.Fprintf(&text, " Default: `%s`.", schema.Default.Raw)
	}
	if len(schema.Enum) > 0 {
		var values []string
		for _, value := range schema.Enum {
			values = append(values, "`"+strings.Trim(string(value.Raw), `"`)+"`")
		}
		fmt.Fprintf(&text, " One of %s.", strings.Join(values, ", "))
	}
	if schema.MaxItems != nil {
		fmt.Fprintf(&text, " At most %d.", *schema.MaxItems)
	}
	if schema.MaxLength != nil {
		fmt.Fprintf(&text, " At most %d characters.", *schema.MaxLength)
	}
	for _, rule := range schema.XValidations {
		fmt.Fprintf(&text, " Refused: %s.", escape(rule.Message))
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		text.WriteString(limits(*schema.Items.Schema))
	}
	return text.String()
}

func oneLine(description string) string {
	return escape(strings.Join(strings.Fields(description), " "))
}

// escape keeps a cell of a table one cell.
func escape(text string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text) }
