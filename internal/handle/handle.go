// Package handle makes and checks the tokens that make a task's handle a capability: whoever has the handle may report on
// that task, and on no other.
//
// A token is 1.<scope>.<attempt>.<mac>. The mac is HMAC-SHA256 over what stands before it and over the task's id, so that a
// token says all that has to be known: nothing is stored. Nothing of a token is looked at before its mac is right.
package handle

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Scope is what a token lets its holder do.
type Scope string

const (
	// Report is for on_start: the task is at work because of it.
	Report Scope = "report"
	// Read is for those who are told of the end.
	Read Scope = "read"
)

// maxToken bounds what is looked at, in bytes. A token has about 60.
const maxToken = 128

// Keys make and check tokens: the first makes them, all are good for checking. Without any, handles have no tokens. Safe for
// concurrent use. They are secrets.
type Keys []string

// Token is the token of a task's handle. It is made of letters, digits, dots, dashes and underscores. attempt is the claim for
// which it was made.
func (k Keys) Token(id uuid.UUID, scope Scope, attempt int) string {
	claims := "1." + string(scope) + "." + strconv.Itoa(attempt)
	return claims + "." + mac(k[0], claims, id)
}

// Check reports whether token is one of this task that allows scope, and the attempt for which it was made. [Report] allows
// what [Read] does. It takes the same time whatever is wrong with the token, as far as its sender can tell.
func (k Keys) Check(token string, id uuid.UUID, scope Scope) (attempt int, ok bool) {
	if len(token) > maxToken {
		return 0, false
	}
	last := max(0, strings.LastIndexByte(token, '.'))
	claims, sum := token[:last], []byte(strings.TrimPrefix(token[last:], "."))
	right := 0
	for _, key := range k {
		right |= subtle.ConstantTimeCompare(sum, []byte(mac(key, claims, id)))
	}
	if right != 1 {
		return 0, false
	}
	// We made it: what follows is no longer a stranger's.
	parts := strings.Split(claims, ".")
	if len(parts) != 3 || parts[0] != "1" {
		return 0, false
	}
	attempt, err := strconv.Atoi(parts[2])
	return attempt, err == nil && (Scope(parts[1]) == Report || Scope(parts[1]) == scope)
}

// mac is of this purpose alone, should the key be used for another.
func mac(key, claims string, id uuid.UUID) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte("taskrunner handle "))
	h.Write([]byte(claims))
	h.Write(id[:])
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
