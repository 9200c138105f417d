package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a signed webhook.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Bounds of a secret, in bytes, from the specification.
const (
	minSecret = 24
	maxSecret = 64
)

// Secret signs webhooks. It is never printed. Safe for concurrent use.
type Secret struct{ key []byte }

// ParseSecret reads a secret as it is handed out: whsec_ and the base64 of 24 to 64 bytes. The error does not repeat it.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, "whsec_")
	if !ok {
		return Secret{}, errors.New("a secret begins with whsec_")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder passes over
		return Secret{}, errors.New("a secret is whsec_ and then base64")
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fmt.Errorf("a secret must have between %d and %d bytes, has %d", minSecret, maxSecret, len(key))
	}
	return Secret{key}, nil
}

// String hides the secret.
func (Secret) String() string { return "•••" }

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// Sign returns what the header webhook-signature says of a webhook that is sent at the time at: one signature of one secret.
// Those of several are separated by a space.
func (s Secret) Sign(id string, at time.Time, body []byte) string {
	return version + s.mac(id, strconv.FormatInt(at.Unix(), 10), body)
}

// version stands before a signature: HMAC-SHA256.
const version = "v1,"

func (s Secret) mac(id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
