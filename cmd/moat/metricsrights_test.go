package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// reviewer is an API server that knows the tokens "reader" and "stranger", of whom the
// first may get /metrics.
type reviewer struct {
	away    bool
	reviews int
}

func (r *reviewer) create(_ context.Context, _ client.WithWatch, object client.Object, _ ...client.CreateOption) error {
	if r.away {
		return errors.New("away")
	}
	switch review := object.(type) {
	case *authenticationv1.TokenReview:
		r.reviews++
		review.Status.Authenticated = review.Spec.Token == "reader" || review.Spec.Token == "stranger"
		review.Status.User.Username = review.Spec.Token
	case *authorizationv1.SubjectAccessReview:
		at := review.Spec.NonResourceAttributes
		review.Status.Allowed = review.Spec.User == "reader" && at.Path == "/metrics" && at.Verb == "get"
	}
	return nil
}

// With authentication only users with the right read the metrics, over TLS. The API server is
// asked once a minute about each.
func TestMetricsAskWhoReads(t *testing.T) {
	scheme, err := newScheme()
	require.NoError(t, err)
	api := &reviewer{}
	rights := newScrapeRights(fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{Create: api.create}).Build())
	free, address := freeAddress(t)
	require.NoError(t, free.Close())
	servePort(t, address, prometheus.NewRegistry(), rights)
	reader := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(authorization string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
		require.NoError(t, err)
		request.Header.Set("Authorization", authorization)
		answer, err := reader.Do(request)
		if err != nil {
			return 0
		}
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode
	}
	require.Eventually(t, func() bool { return get("") == http.StatusUnauthorized }, portWithin, 20*time.Millisecond)
	for authorization, want := range map[string]int{
		"Bearer reader": http.StatusOK, "Bearer stranger": http.StatusForbidden, "Bearer unknown": http.StatusUnauthorized,
		"Bearer ": http.StatusUnauthorized, "Basic reader": http.StatusUnauthorized,
	} {
		require.Equal(t, want, get(authorization), authorization)
	}
	require.Equal(t, 3, api.reviews)
	for range 20 {
		require.Equal(t, http.StatusOK, get("Bearer reader"))
	}
	require.Equal(t, 3, api.reviews, "it is known for a minute")
	plain, _ := statusOf(address)
	require.NotEqual(t, http.StatusOK, plain, "without TLS")

	api.away = true
	require.Equal(t, http.StatusServiceUnavailable, get("Bearer another"), "closed while the API server can't be asked")
	require.InDelta(t, reviewsPerSecond, rights.limit.QPS(), 0.1)
	rights.limit = flowcontrol.NewFakeNeverRateLimiter() // as after a burst, also on a slow machine
	require.Equal(t, http.StatusTooManyRequests, get("Bearer guess"), "guesses are bounded")
	require.Equal(t, http.StatusOK, get("Bearer reader"))
}
