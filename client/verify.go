// Package client is for those who are called by Task Runner: it tells webhooks that come from the service from all others.
//
// Webhooks are signed as https://www.standardwebhooks.com has it, so that any library for that will do as well. What is signed
// is the webhook's id, its time and its body; not the query and the other headers. Its id begins with the id of the task, in
// which the handle has to end.
package client

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far the time of a webhook may be from the receiver's clock, in either direction.
const Tolerance = 5 * time.Minute

// Why a webhook is refused.
var (
	ErrUnsigned  = errors.New("the webhook is not signed")
	ErrTimestamp = errors.New("the webhook is not of these minutes")
	ErrSignature = errors.New("no signature is of a secret that is known here")
)

// Verifier tells whether webhooks come from somebody who has a secret. Safe for concurrent use.
type Verifier struct {
	secrets []Secret
	now     func() time.Time
}

// NewVerifier returns a verifier of these secrets: while one is replaced, the old one and the new one. Without any it refuses
// every webhook.
func NewVerifier(secrets ...Secret) *Verifier { return &Verifier{secrets, time.Now} }

// Verify checks a webhook: its headers, and its body as it came, before anybody has parsed it. The error is [ErrUnsigned],
// [ErrTimestamp] or [ErrSignature]. The same webhook may come twice, also when it is good: webhook-id says so.
func (v *Verifier) Verify(header http.Header, body []byte) error {
	id, timestamp, signatures := header.Get(HeaderID), header.Get(HeaderTimestamp), header.Get(HeaderSignature)
	if id == "" || timestamp == "" || signatures == "" {
		return ErrUnsigned
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return ErrTimestamp
	}
	now := v.now()
	if at := time.Unix(seconds, 0); at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return ErrTimestamp
	}
	for _, secret := range v.secrets {
		want := []byte(version + secret.mac(id, timestamp, body))
		for signature := range strings.SplitSeq(signatures, " ") {
			if subtle.ConstantTimeCompare([]byte(signature), want) == 1 {
				return nil
			}
		}
	}
	return ErrSignature
}

// Handler hands webhooks that are good to next, which can read the body again. Others are answered 401, and bodies of more
// than maxBody bytes 413: the service does not send such a webhook again.
func (v *Verifier) Handler(maxBody int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "the body could not be read", http.StatusBadRequest)
			return
		}
		if err := v.Verify(r.Header, body); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
