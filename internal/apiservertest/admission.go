package apiservertest

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// admissionWithin is how long the API server may take to act on its policies.
const admissionWithin = time.Minute

// addAdmission puts config/admission in force. The API server reads its own policies
// with a delay, so this waits until it refuses what each of them forbids.
func (s *Server) addAdmission() error {
	if err := s.createAll("admission/agent_events.yaml", "admission/agent_reports.yaml", "admission/operator_nodes.yaml", "admission/operator_policies.yaml"); err != nil {
		return err
	}
	operator, err := client.New(s.operatorConfig, client.Options{Scheme: s.env.Scheme})
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	name := metav1.ObjectMeta{Namespace: OperatorNamespace, Name: "forbidden"}
	if err := s.awaitNodePolicy(operator); err != nil {
		return err
	}
	for _, forbidden := range []struct {
		writer client.Client
		object client.Object
	}{
		{s.admin, &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: name.Name}}},
		{operator, &networkingv1.NetworkPolicy{ObjectMeta: name}},
	} {
		refused := func(ctx context.Context) (bool, error) {
			err := forbidden.writer.Create(ctx, forbidden.object.DeepCopyObject().(client.Object), client.DryRunAll)
			return apierrors.IsInvalid(err), client.IgnoreAlreadyExists(ignoreInvalid(err))
		}
		if err := wait.PollUntilContextTimeout(context.Background(), Tick, admissionWithin, true, refused); err != nil {
			return fmt.Errorf("waiting for the admission policies: %w", err)
		}
	}
	return nil
}

// awaitNodePolicy waits until the operator may not label a Node.
func (s *Server) awaitNodePolicy(operator client.Client) error {
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "forbidden"}}
	if err := s.admin.Create(ctx, node.DeepCopy()); err != nil {
		return fmt.Errorf("creating a Node: %w", err)
	}
	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	err := wait.PollUntilContextTimeout(ctx, Tick, admissionWithin, true, func(ctx context.Context) (bool, error) {
		err := operator.Patch(ctx, node.DeepCopy(), label, client.DryRunAll)
		return apierrors.IsInvalid(err), ignoreInvalid(err)
	})
	if err != nil {
		return fmt.Errorf("waiting for the admission policy of Nodes: %w", err)
	}
	if err := s.admin.Delete(ctx, node); err != nil {
		return fmt.Errorf("deleting a Node: %w", err)
	}
	return nil
}

func ignoreInvalid(err error) error {
	if apierrors.IsInvalid(err) {
		return nil
	}
	return err
}
