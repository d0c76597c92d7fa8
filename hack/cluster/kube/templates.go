//go:build linux

package kube

import (
	"embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/moat-dev/moat/hack/cluster/files"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*"))

// render fills in a file of templates/.
func render(name string, values any) (string, error) {
	var text strings.Builder
	if err := templates.ExecuteTemplate(&text, name, values); err != nil {
		return "", fmt.Errorf("rendering %s: %w", name, err)
	}
	return text.String(), nil
}

func writeTemplate(path, name string, values any) error {
	text, err := render(name, values)
	if err != nil {
		return err
	}
	return files.WriteFile(path, text)
}
