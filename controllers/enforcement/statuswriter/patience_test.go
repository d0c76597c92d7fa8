package statuswriter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestPatience(t *testing.T) {
	p, start, key := newPatience(), time.Now(), types.NamespacedName{Name: "one"}
	require.Equal(t, Patience, p.wait(key, 1, start))
	require.Equal(t, Patience/2, p.wait(key, 1, start.Add(Patience/2)))
	require.Zero(t, p.wait(key, 1, start.Add(2*Patience)))
	require.Equal(t, Patience, p.wait(key, 2, start.Add(2*Patience)), "another generation has its own")
	p.forget(key)
	require.Equal(t, Patience, p.wait(key, 2, start.Add(3*Patience)))
}
