package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// guard lets only those in who have the token. The nil guard lets everybody in.
type guard struct{ hash [sha256.Size]byte }

// newGuard makes the guard of a token; empty: none.
func newGuard(token string) *guard {
	if token == "" {
		return nil
	}
	return &guard{sha256.Sum256([]byte(token))}
}

// check refuses a request that needs the token and does not have it. It looks at headers only: the body of a stranger is
// not read. Every path needs the token, also those that do not exist, but for the probes of platforms, which have none.
// Hashes are compared, so that the time it takes tells nothing, not even how long the token is.
func (g *guard) check(r *http.Request) error {
	if g == nil || r.URL.Path == "/health" || r.URL.Path == "/ready" {
		return nil
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return &failure{code: unauthorized, message: "a token is needed: send the header Authorization: Bearer <AUTH_TOKEN>"}
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return &failure{code: unauthorized, message: "Authorization must be Bearer <AUTH_TOKEN>"}
	}
	hash := sha256.Sum256([]byte(strings.Trim(token, " ")))
	if subtle.ConstantTimeCompare(hash[:], g.hash[:]) != 1 {
		return &failure{code: unauthorized, message: "the token is not the one of this service"}
	}
	return nil
}
