package pace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestPace(t *testing.T) {
	p, start := New(0), time.Now()
	one, other := types.NamespacedName{Name: "one"}, types.NamespacedName{Name: "other"}
	require.Zero(t, p.Wait(one, start))
	require.Zero(t, p.Wait(one, start), "asking is not writing")
	p.Wrote(one, start)
	require.Equal(t, 2*time.Second, p.Wait(one, start))
	require.Equal(t, time.Millisecond, p.Wait(one, start.Add(Every-time.Millisecond)))
	require.Zero(t, p.Wait(other, start))
	require.Zero(t, p.Wait(one, start.Add(Every)))
	p.Forget(one)
	require.Zero(t, p.Wait(one, start))
}
