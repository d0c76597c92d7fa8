package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Bounds of what scrapes with tokens make the API server do.
const (
	knownFor         = time.Minute // how long its word about a token holds
	tokensKnown      = 64
	reviewsPerSecond = 2
	reviewBurst      = 10
	reviewWithin     = 5 * time.Second
)

// scrapeRights lets those read the metrics of whom the API server says that they may: it
// knows their token, and their roles allow them to get the URL. controller-runtime's filter
// does the same with k8s.io/apiserver, of which Moat needs nothing else. It is safe for
// concurrent use.
type scrapeRights struct {
	api   client.Client
	limit flowcontrol.RateLimiter

	mu    sync.Mutex
	known map[[sha256.Size]byte]answer
}

// answer is what a scrape with a token gets, for a while.
type answer struct {
	status int
	until  time.Time
}

func newScrapeRights(api client.Client) *scrapeRights {
	return &scrapeRights{
		api: api, limit: flowcontrol.NewTokenBucketRateLimiter(reviewsPerSecond, reviewBurst),
		known: map[[sha256.Size]byte]answer{},
	}
}

// guard answers for a handler where a request may not reach it.
func (r *scrapeRights) guard(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		token, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		status := http.StatusUnauthorized
		if ok && token != "" {
			status = r.status(request.Context(), token, request.URL.Path)
		}
		if status != http.StatusOK {
			http.Error(w, http.StatusText(status), status)
			return
		}
		handler.ServeHTTP(w, request)
	})
}

// status asks the API server about a token, unless it did so a moment ago. Where it can't
// ask, the metrics stay closed.
func (r *scrapeRights) status(ctx context.Context, token, path string) int {
	key, now := sha256.Sum256([]byte(token+" "+path)), time.Now()
	if known, ok := r.recall(key, now); ok {
		return known
	}
	if !r.limit.TryAccept() {
		return http.StatusTooManyRequests
	}
	ctx, cancel := context.WithTimeout(ctx, reviewWithin)
	defer cancel()
	status, err := r.review(ctx, token, path)
	if err != nil {
		return http.StatusServiceUnavailable
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= tokensKnown {
		clear(r.known)
	}
	r.known[key] = answer{status, now.Add(knownFor)}
	return status
}

func (r *scrapeRights) recall(key [sha256.Size]byte, now time.Time) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.known[key]
	return known.status, ok && now.Before(known.until)
}

func (r *scrapeRights) review(ctx context.Context, token, path string) (int, error) {
	who := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if err := r.api.Create(ctx, who); err != nil {
		return 0, fmt.Errorf("reviewing a token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := who.Status.User
	may := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: "get"},
	}}
	if err := r.api.Create(ctx, may); err != nil {
		return 0, fmt.Errorf("reviewing the access of %s: %w", user.Username, err)
	}
	if !may.Status.Allowed {
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}

// selfSigned returns a certificate that is made for this process: tokens are sent encrypted,
// to the program that answers at the address.
func selfSigned() (*tls.Config, error) {
	certificate, key, err := cert.GenerateSelfSignedCertKey("moat", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
