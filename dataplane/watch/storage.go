package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/backoff"
)

// storageEvery is how often at most an agent asks the API server whether it can
// read what it stores. The answer comes from the API server's memory, without
// content; with 5,000 nodes it has to give less than 25 a second.
const storageEvery = 10 * time.Minute

// StorageCheck finds out when the API server can't read an object that it stores,
// such as a NetworkPolicy with a list where a map belongs. It then reports no
// any change of any object of that kind, while all watches stay open and look
// healthy; only a list that must be current fails.
type StorageCheck struct {
	live  client.Reader
	node  string
	Every time.Duration

	mu  sync.Mutex
	err error
}

// NewStorageCheck returns the check of the agent of a node.
func NewStorageCheck(live client.Reader, node string) *StorageCheck {
	return &StorageCheck{live: live, node: node, Every: storageEvery}
}

// storageError says which objects the agent doesn't hear of.
type storageError struct {
	resource string
	err      error
}

func (e *storageError) Error() string {
	return fmt.Sprintf("no change of %s arrives any more: %v", e.resource, e.err)
}

func (e *storageError) Unwrap() error { return e.err }

// Start checks until the context ends.
func (c *StorageCheck) Start(ctx context.Context) error {
	for {
		err := c.Check(ctx)
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		if !backoff.Sleep(ctx, c.Every+rand.N(c.Every/2)) {
			return nil
		}
	}
}

// NeedLeaderElection is false: every agent has watches of its own.
func (c *StorageCheck) NeedLeaderElection() bool { return false }

// Failure returns what the last check found, or nil.
func (c *StorageCheck) Failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Check returns a storageError for each kind that can't be read. Whether the API
// server can be reached is for others to say.
func (c *StorageCheck) Check(ctx context.Context) error {
	var errs []error
	for _, kind := range []struct {
		resource string
		list     schema.GroupVersionKind
		options  client.ListOptions
	}{
		{"networkpolicies", schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicyList"}, client.ListOptions{}},
		{"namespaces", schema.GroupVersionKind{Version: "v1", Kind: "NamespaceList"}, client.ListOptions{}},
		{"pods", schema.GroupVersionKind{Version: "v1", Kind: "PodList"}, client.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", c.node)}},
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind.list)
		err := c.live.List(ctx, list, &kind.options)
		var status apierrors.APIStatus
		if errors.As(err, &status) && status.Status().Code == http.StatusInternalServerError {
			errs = append(errs, &storageError{kind.resource, err})
		}
	}
	return errors.Join(errs...)
}
