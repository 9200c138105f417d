package httpapi

import (
	"errors"
	"fmt"
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// code says what kind of failure an answer is.
type code int

const (
	invalid      code = iota + 1 // the request is wrong in itself
	forbidden                    // a page of another origin sent it
	notFound                     // no such task, batch or path
	notAllowed                   // not with this method
	tooSlow                      // the body did not come in time
	conflict                     // not in this state
	tooLarge                     // over a limit
	unsupported                  // not in this form
	keyReused                    // its Idempotency-Key stands for another request
	clientGone                   // nobody is there to read the answer
	internal                     // our own mistake
	unavailable                  // the database could not be asked
	unauthorized                 // without the token
	longSearch                   // the database did not find it in time
)

// answers is the one map from codes to HTTP.
var answers = map[code]struct {
	status int
	title  string
}{
	invalid:      {http.StatusBadRequest, "Validation failed"},
	forbidden:    {http.StatusForbidden, "Forbidden"},
	notFound:     {http.StatusNotFound, "Not found"},
	notAllowed:   {http.StatusMethodNotAllowed, "Method not allowed"},
	tooSlow:      {http.StatusRequestTimeout, "Request timeout"},
	conflict:     {http.StatusConflict, "Conflict"},
	tooLarge:     {http.StatusRequestEntityTooLarge, "Too large"},
	unsupported:  {http.StatusUnsupportedMediaType, "Unsupported media type"},
	keyReused:    {http.StatusUnprocessableEntity, "Idempotency-Key reused"},
	clientGone:   {499, "Client closed the request"}, // nginx's number, for the metrics
	internal:     {http.StatusInternalServerError, "Internal error"},
	unavailable:  {http.StatusServiceUnavailable, "Service unavailable"},
	unauthorized: {http.StatusUnauthorized, "Unauthorized"},
	longSearch:   {http.StatusGatewayTimeout, "Search took too long"},
}

// refusals has the code for what the domain refuses.
var refusals = map[task.RefusalCode]code{
	task.NotFound: notFound, task.Conflict: conflict, task.Invalid: invalid, task.Unauthorized: unauthorized,
}

// failure is an answer that is no success. What it says is meant for the client.
type failure struct {
	code code
	// message is a line; empty means that the title says it.
	message string
	details []string
	batch   string
}

func (f *failure) Error() string { return f.message }

// problem is the failure on the wire.
func (f *failure) problem() api.Problem {
	answer := answers[f.code]
	p := api.Problem{
		Type: "about:blank", Title: answer.title, Status: answer.status,
		Error: f.message, BatchID: f.batch, Details: f.details,
	}
	if p.Error == "" {
		p.Error = answer.title
	}
	if p.Details == nil {
		p.Details = []string{}
	}
	return p
}

// invalidf is a failure of one detail.
func invalidf(format string, args ...any) *failure {
	return &failure{code: invalid, details: []string{fmt.Sprintf(format, args...)}}
}

// explain turns an error into what the client may know of it. ok is false when it is nobody's fault but ours, and has to
// be logged.
func explain(r *http.Request, err error) (f *failure, ok bool) {
	if f, is := errors.AsType[*failure](err); is {
		return f, true
	}
	if problems, is := errors.AsType[task.Problems](err); is {
		return &failure{code: invalid, details: problems.Strings()}, true
	}
	if refusal, is := errors.AsType[*task.Refusal](err); is {
		switch c := refusals[refusal.Code]; c {
		case 0:
		case unauthorized:
			return errHandle, true
		case invalid:
			return invalidf("%s", refusal.Message), true
		default:
			return &failure{code: c, message: refusal.Message}, true
		}
	}
	if _, is := errors.AsType[*http.MaxBytesError](err); is {
		return &failure{code: tooLarge, message: "the body is too large"}, true
	}
	switch {
	case errors.Is(err, task.ErrTooManyTasks):
		return &failure{code: tooLarge, message: err.Error()}, true
	case errors.Is(err, store.ErrNotFound):
		return &failure{code: notFound}, true
	case errors.Is(err, store.ErrKeyReused):
		return &failure{code: keyReused, message: "this Idempotency-Key was sent with another body before; take a new key"}, true
	case r.Context().Err() != nil:
		return &failure{code: clientGone}, true
	case errors.Is(err, store.ErrListsBusy):
		return errListsBusy, true
	}
	return &failure{code: unavailable, message: "not available now, try again"}, false
}

// refuse answers err as a problem, and logs what the client is not shown.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f, ok := explain(r, err)
	if !ok {
		s.Log.ErrorContext(r.Context(), "request failed", "route", route(r), "error", err)
	}
	writeProblem(w, f)
}

func writeProblem(w http.ResponseWriter, f *failure) {
	p := f.problem()
	h := w.Header()
	if f.code == unavailable {
		h.Set("Retry-After", "1")
	}
	if f.code == unauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if f.code == unsupported {
		h.Set("Accept-Encoding", "identity")
	}
	writeAs(w, api.ProblemType, p.Status, p)
}
