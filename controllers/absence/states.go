package absence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// writeStates writes some of the states, each node's not more often than every two
// seconds, and says whether others are left. The patch holds the one field, and so
// neither reads nor undoes what the agent writes.
func (r *Reconciler) writeStates(ctx context.Context, states map[string]v1alpha1.NodeAgent) (left bool, err error) {
	var errs []error
	written := 0
	for _, name := range slices.Sorted(maps.Keys(states)) {
		key := types.NamespacedName{Name: name}
		if written == statesAPass || r.states.Wait(key, r.now()) > 0 {
			left = true
			continue
		}
		written++
		r.states.Wrote(key, r.now())
		errs = append(errs, r.writeState(ctx, name, states[name]))
	}
	return left, errors.Join(errs...)
}

func (r *Reconciler) writeState(ctx context.Context, name string, state v1alpha1.NodeAgent) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"agent": state}})
	if err != nil {
		return fmt.Errorf("writing the patch of a state: %w", err)
	}
	report := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err = r.client.Status().Patch(ctx, report, client.RawPatch(types.MergePatchType, patch))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the state of the agent into NodeEnforcement %s: %w", name, err)
	}
	return nil
}
