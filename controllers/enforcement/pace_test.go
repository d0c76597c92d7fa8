package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestPace(t *testing.T) {
	p, start := newPace(0), time.Now()
	one, other := types.NamespacedName{Name: "one"}, types.NamespacedName{Name: "other"}
	require.Zero(t, p.wait(one, start))
	require.Equal(t, writeEvery, p.wait(one, start))
	require.Equal(t, time.Millisecond, p.wait(one, start.Add(writeEvery-time.Millisecond)), "asking doesn't put it off")
	require.Zero(t, p.wait(other, start))
	require.Zero(t, p.wait(one, start.Add(writeEvery)))
	p.forget(one)
	require.Zero(t, p.wait(one, start.Add(writeEvery)))
}
