package v1alpha1_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

func TestProvenanceIsReadAsItIsWritten(t *testing.T) {
	for text, provenance := range map[string]v1alpha1.Provenance{
		`{"v":1}`: {},
		`{"v":1,"ingress":["web","web"],"egress":["db","implicit.dns"]}`: {Ingress: []string{"web", "web"}, Egress: []string{"db", v1alpha1.ProvenanceImplicitDNS}},
	} {
		require.Equal(t, text, provenance.String())
		read, err := v1alpha1.ParseProvenance(text)
		require.NoError(t, err)
		require.Equal(t, provenance, read)
	}
}

func TestProvenanceIsBounded(t *testing.T) {
	long := v1alpha1.Provenance{Egress: make([]string, 64)}
	for i := range long.Egress {
		long.Egress[i] = strings.Repeat("r", 63)
	}
	require.Equal(t, `{"v":1,"omitted":true}`, long.String())
	read, err := v1alpha1.ParseProvenance(long.String())
	require.NoError(t, err)
	require.Equal(t, v1alpha1.Provenance{Omitted: true}, read)
	long.Egress = long.Egress[:61]
	require.Len(t, long.String(), 4044)
}

func TestProvenanceThatCannotBeRead(t *testing.T) {
	for text, message := range map[string]string{
		"":                        "unexpected end of JSON input",
		"web":                     "invalid character",
		`{"v":2,"ingress":[{}]}`:  "cannot unmarshal",
		`{"v":2}`:                 "its version is 2, and this program knows 1",
		`{"ingress":["web"]}`:     "its version is 0",
		strings.Repeat("x", 4097): "it has 4097 bytes, and 4096 at most",
	} {
		_, err := v1alpha1.ParseProvenance(text)
		require.ErrorContains(t, err, message)
		require.ErrorContains(t, err, v1alpha1.ProvenanceAnnotation)
	}
}
