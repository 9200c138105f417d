package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"taskrunner/internal/handle"
	"taskrunner/internal/task"
)

// maxStrangerBody bounds a body that is read before it is known who sends it, because the tokens are in there.
const maxStrangerBody = 4 << 20

// guard lets only those in who have a token: the service's, or that of a task's handle for this task. Without either the
// guard lets everybody in.
type guard struct {
	needsToken bool
	hash       [sha256.Size]byte
	handles    handle.Keys
	grace      time.Duration
}

// newGuard makes the guard of a token; empty: none.
func newGuard(token string, handles handle.Keys, grace time.Duration) *guard {
	return &guard{token != "", sha256.Sum256([]byte(token)), handles, grace}
}

// caller is what is known of the sender of a request. The zero caller has shown nothing.
type caller struct {
	trusted bool // has the service's token
	handle  *task.Handle
}

type callerKey struct{}

// by is the caller of a request that has passed the guard.
func by(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// errHandle is the same whatever is wrong: no token, another task's, one that is dead, a task that does not exist.
var errHandle = &failure{code: unauthorized, message: "this needs the token of the task's handle or, where the service has one, the header Authorization: Bearer <AUTH_TOKEN>"}

// check refuses a request that needs a token and does not have it, or says who sends it. It looks at the path and at headers
// only, and never into the database: the body of a stranger is not read, but for reports on tasks that are named in the body,
// which [guard.admit] looks at. Every path needs the token, also those that do not exist, but for the probes of platforms,
// which have none.
func (g *guard) check(r *http.Request) (caller, error) {
	if r.URL.Path == "/health" || r.URL.Path == "/ready" {
		return caller{}, nil
	}
	err := g.checkToken(r)
	if g.needsToken && err == nil {
		return caller{trusted: true}, nil
	}
	if len(g.handles) > 0 {
		if inBody(r) {
			return caller{}, nil
		}
		if c, on, err := g.checkHandle(r); on {
			return c, err
		}
	}
	return caller{}, err
}

// checkToken looks for the service's token. Hashes are compared, so that the time it takes tells nothing, not even how long
// the token is.
func (g *guard) checkToken(r *http.Request) error {
	if !g.needsToken {
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

// inBody reports whether r is reports on tasks that its body names.
func inBody(r *http.Request) bool {
	return r.URL.Path == "/task" && (r.Method == http.MethodPut || r.Method == http.MethodPatch)
}

// checkHandle looks for the token of a task's handle. on: r is a request that a handle is for, and has one or needs one.
func (g *guard) checkHandle(r *http.Request) (c caller, on bool, err error) {
	name, ok := strings.CutPrefix(r.URL.Path, "/task/")
	if !ok || strings.Contains(name, "/") {
		return c, false, nil
	}
	token, scope := r.URL.Query().Get("token"), handle.Report
	switch r.Method {
	case http.MethodPut, http.MethodPatch:
	case http.MethodGet, http.MethodHead:
		if token == "" {
			return c, false, nil
		}
		scope = handle.Read
	default:
		return c, false, nil
	}
	id, err := task.ParseID(name)
	if err != nil {
		return c, true, errHandle
	}
	c.handle, err = g.open(token, id, scope)
	return c, true, err
}

// open checks the token of a task's handle.
func (g *guard) open(token string, id task.ID, scope handle.Scope) (*task.Handle, error) {
	attempt, ok := g.handles.Check(token, id, scope)
	if !ok {
		return nil, errHandle
	}
	return &task.Handle{Attempt: attempt, Grace: g.grace}, nil
}

// admit lets reports through to the store: those of a caller with the service's token or with the handle of their task, or
// those that have each the token of its task, by place in tokens.
func (g *guard) admit(r *http.Request, outcomes []task.Outcome, tokens []string) error {
	c := by(r)
	if len(g.handles) == 0 || c.trusted {
		return nil
	}
	for i := range outcomes {
		outcomes[i].Handle = c.handle
		if c.handle == nil {
			h, err := g.open(tokens[i], outcomes[i].ID, handle.Report)
			if err != nil {
				return err
			}
			outcomes[i].Handle = h
		}
	}
	return nil
}

// enter is r with its caller.
func enter(r *http.Request, c caller) *http.Request {
	if c == (caller{}) {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}
