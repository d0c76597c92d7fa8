package watch

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// SlimPod is a Pod that is decoded from protobuf without the fields that parsePod
// doesn't read: those are most of it, and an agent hears of each pod of the cluster.
type SlimPod struct{ corev1.Pod }

// slimPodList is a PodList of such Pods.
type slimPodList struct{ corev1.PodList }

// DeepCopyObject implements runtime.Object.
func (p *SlimPod) DeepCopyObject() runtime.Object { return &SlimPod{*p.DeepCopy()} }

// DeepCopyObject implements runtime.Object.
func (l *slimPodList) DeepCopyObject() runtime.Object { return &slimPodList{*l.DeepCopy()} }

// Unmarshal decodes a Pod.
func (p *SlimPod) Unmarshal(data []byte) error { return podMask.unmarshal(data, &p.Pod) }

// Unmarshal decodes a PodList.
func (l *slimPodList) Unmarshal(data []byte) error { return podListMask.unmarshal(data, &l.PodList) }

// mask names fields of a protobuf message that are kept, each with what is kept of it;
// nil keeps all.
type mask map[protowire.Number]mask

// The numbers are those of k8s.io/api/core/v1/generated.proto and
// k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
var (
	podListMask = mask{
		1: nil, // metadata
		2: podMask,
	}
	podMask = mask{
		1: { // metadata
			1:  nil, // name
			3:  nil, // namespace
			5:  nil, // uid
			6:  nil, // resourceVersion
			9:  nil, // deletionTimestamp
			11: nil, // labels
			12: nil, // annotations
		},
		2: { // spec
			2:  containerMask,      // containers
			10: nil,                // nodeName
			11: nil,                // hostNetwork
			20: containerMask,      // initContainers
			34: {1: containerMask}, // ephemeralContainers
		},
		3: { // status
			1:  nil, // phase
			12: nil, // podIPs
		},
	}
	containerMask = mask{
		6: nil, // ports
		15: { // securityContext
			1: nil, // capabilities
			2: nil, // privileged
		},
		24: nil, // restartPolicy
	}
)

// unmarshal decodes what the mask keeps of a message.
func (m mask) unmarshal(data []byte, into interface{ Unmarshal([]byte) error }) error {
	kept, err := m.filter(make([]byte, 0, len(data)), data)
	if err != nil {
		return err
	}
	return into.Unmarshal(kept)
}

// filter appends to b what the mask keeps of a message.
func (m mask) filter(b, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, head := protowire.ConsumeTag(message)
		if head < 0 {
			return nil, fmt.Errorf("reading a field's tag: %w", protowire.ParseError(head))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[head:])
		if size < 0 {
			return nil, fmt.Errorf("reading field %d: %w", number, protowire.ParseError(size))
		}
		field := message[:head+size]
		message = message[len(field):]
		inner, kept := m[number]
		switch {
		case !kept:
		case inner == nil || kind != protowire.BytesType:
			b = append(b, field...)
		default:
			value, _ := protowire.ConsumeBytes(field[head:])
			b = append(b, field[:head]...)
			length := len(b)
			b = append(b, make([]byte, lengthBytes)...)
			start := len(b)
			var err error
			if b, err = inner.filter(b, value); err != nil {
				return nil, err
			}
			putLength(b[length:start], len(b)-start)
		}
	}
	return b, nil
}

// lengthBytes is the size of a length that isn't known yet. A varint may be longer than
// its number needs; this one holds what fits into a gigabyte list and more.
const lengthBytes = 5

func putLength(b []byte, length int) {
	for i := range b {
		b[i] = byte(length) | 0x80
		length >>= 7
	}
	b[len(b)-1] &^= 0x80
}
