package policyproof

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// SetupWithdrawal is for an operator that doesn't report hand-written policies. Its manager
// deletes the PolicyEnforcements at its start: they would go on to say what was true once.
func SetupWithdrawal(mgr manager.Manager) error {
	if err := mgr.Add(withdrawal{client: mgr.GetClient()}); err != nil {
		return fmt.Errorf("setting up the withdrawal of PolicyEnforcements: %w", err)
	}
	return nil
}

// withdrawal deletes every PolicyEnforcement, once.
type withdrawal struct{ client client.Client }

// Start deletes them. What fails is tried again at the operator's next start.
func (w withdrawal) Start(ctx context.Context) error {
	var all v1alpha1.PolicyEnforcementList
	if err := w.client.List(ctx, &all); err != nil {
		return fmt.Errorf("listing PolicyEnforcements: %w", err)
	}
	for i := range all.Items {
		if err := client.IgnoreNotFound(w.client.Delete(ctx, &all.Items[i])); err != nil {
			return fmt.Errorf("deleting a PolicyEnforcement: %w", err)
		}
	}
	return nil
}
