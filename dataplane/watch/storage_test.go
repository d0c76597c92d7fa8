package watch

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// answering is an API server that answers every list in the same way.
type answering struct {
	client.Reader
	err error
}

func (a answering) List(context.Context, client.ObjectList, ...client.ListOption) error { return a.err }

func TestStorageCheck(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want bool
	}{
		"it can read all":             {nil, false},
		"it can't read an object":     {apierrors.NewGenericServerResponse(500, "list", metav1.SchemeGroupVersion.WithResource("x").GroupResource(), "", "corrupt object", 0, true), true},
		"it isn't there":              {errors.New("connection refused"), false},
		"it is busy":                  {apierrors.NewTooManyRequestsError("later"), false},
		"the agent may not ask":       {apierrors.NewForbidden(metav1.SchemeGroupVersion.WithResource("x").GroupResource(), "", nil), false},
		"it is about to be back":      {apierrors.NewServiceUnavailable("starting"), false},
		"it takes longer than it may": {apierrors.NewTimeoutError("timeout", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := NewStorageCheck(answering{err: row.err}, "node-1").Check(t.Context())
			require.Equal(t, row.want, err != nil, "%v", err)
			if err == nil {
				return
			}
			for _, resource := range []string{"networkpolicies", "namespaces", "pods"} {
				require.ErrorContains(t, err, "no change of "+resource+" arrives any more: ")
			}
		})
	}
}
