package selftest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// ClientLabel is on all pods of the test: the one that connects has the value
// ClientValue, a server its own name.
const (
	ClientLabel = "isolation.moat.dev/test"
	ClientValue = "client"
)

// ServeCommand are the arguments of this program that make it a server.
var ServeCommand = []string{"selftest", "serve"}

// serverPort is where the servers answer.
const serverPort = 8080

// serverLife is how long a server runs at most. It is longer than any test: where one
// failed, its pod stays to be looked at, and the servers with it.
const serverLife = 10 * time.Minute

// role says what becomes of connections to a server.
type role string

const (
	allowed   role = "allowed"
	forbidden role = "forbidden"
)

// nameOf is different for each run, also if what the last one made is still there.
func nameOf(self *corev1.Pod, r role) string {
	id := string(self.UID)
	return fmt.Sprintf("%s-%s-%s", self.Name, r, id[:min(8, len(id))])
}

// metaOf makes all objects of a server go with the test's own pod.
func metaOf(self *corev1.Pod, s server) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: self.Namespace,
		Name:      s.name,
		Labels:    map[string]string{ClientLabel: s.name},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Pod", Name: self.Name, UID: self.UID,
		}},
	}
}

// serverPod is like the test's own pod and runs on the same kind of nodes, but needs no
// API, and keeps off the nodes of other servers where it can.
func serverPod(self *corev1.Pod, s server) *corev1.Pod {
	own := self.Spec.Containers[0]
	var nodes *corev1.NodeAffinity
	if self.Spec.Affinity != nil {
		nodes = self.Spec.Affinity.NodeAffinity
	}
	return &corev1.Pod{
		ObjectMeta: metaOf(self, s),
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(1)),
			ActiveDeadlineSeconds:         new(int64(serverLife.Seconds())),
			ImagePullSecrets:              self.Spec.ImagePullSecrets,
			SecurityContext:               self.Spec.SecurityContext,
			NodeSelector:                  self.Spec.NodeSelector,
			Tolerations:                   self.Spec.Tolerations,
			Affinity: &corev1.Affinity{NodeAffinity: nodes, PodAntiAffinity: &corev1.PodAntiAffinity{
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
					Weight: 100,
					PodAffinityTerm: corev1.PodAffinityTerm{
						TopologyKey: corev1.LabelHostname,
						LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
							{Key: ClientLabel, Operator: metav1.LabelSelectorOpExists},
						}},
					},
				}},
			}},
			Containers: []corev1.Container{{
				Name:            "server",
				Image:           own.Image,
				ImagePullPolicy: own.ImagePullPolicy,
				Args:            append(ServeCommand[:len(ServeCommand):len(ServeCommand)], "--address=:"+strconv.Itoa(serverPort)),
				Resources:       own.Resources,
				SecurityContext: own.SecurityContext,
			}},
		},
	}
}

// isolationOf closes a server, but for the test's own pod where it is allowed.
func isolationOf(self *corev1.Pod, s server) *v1alpha1.AppIsolation {
	isolation := &v1alpha1.AppIsolation{
		ObjectMeta: metaOf(self, s),
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{ClientLabel: v1alpha1.LabelValue(s.name)}},
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress},
		},
	}
	if s.role == allowed {
		isolation.Spec.Ingress = []v1alpha1.IngressRule{{
			Name: "test",
			From: []v1alpha1.Peer{{App: &v1alpha1.AppPeer{LabelSelector: v1alpha1.LabelSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{ClientLabel: ClientValue},
			}}}},
		}}
	}
	return isolation
}

// addressesOf lists where a server answers, one address for each family.
func addressesOf(pod *corev1.Pod) []string {
	var addresses []string
	for _, ip := range pod.Status.PodIPs {
		addresses = append(addresses, net.JoinHostPort(ip.IP, strconv.Itoa(serverPort)))
	}
	return addresses
}

// notRunning says why a server doesn't run yet; nil if it does.
func notRunning(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodRunning && len(pod.Status.PodIPs) > 0 {
		return nil
	}
	for _, status := range pod.Status.ContainerStatuses {
		switch state := status.State; {
		case state.Waiting != nil:
			return fmt.Errorf("it waits: %s %s", state.Waiting.Reason, state.Waiting.Message)
		case state.Terminated != nil:
			return fmt.Errorf("it ended: %s %s", state.Terminated.Reason, state.Terminated.Message)
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return fmt.Errorf("it has no node: %s", condition.Message)
		}
	}
	return errors.New("it isn't started yet")
}
