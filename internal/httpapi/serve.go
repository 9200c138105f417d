package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// ServeHTTP is what every request passes through, whatever its route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	rec := &recorder{ResponseWriter: w, status: http.StatusOK, share: share{window: s.bodies}}
	defer func() {
		rec.share.keep(0)
		cut := s.recovered(rec, r, recover())
		s.observe(r, rec.status, time.Since(began))
		if cut {
			panic(http.ErrAbortHandler)
		}
	}()
	// Bodies are taken with the content type of forms, which any page may send: a browser must say where it comes from.
	if err := s.origins.Check(r); err != nil {
		s.refuse(rec, r, &failure{code: forbidden, message: "requests from pages of another origin are refused"})
		return
	}
	c, err := s.guard.check(r)
	if err != nil {
		s.refuse(rec, r, err)
		return
	}
	r = enter(r, c)
	rec.routed = r
	s.mux.ServeHTTP(rec, r)
}

// recovered deals with the panic of a handler, if there was one. It reports whether the connection must be cut, because
// the answer has begun and the client would take it for whole.
func (s *server) recovered(rec *recorder, r *http.Request, cause any) (cut bool) {
	if cause == nil {
		return false
	}
	if err, is := cause.(error); is && errors.Is(err, http.ErrAbortHandler) {
		return true
	}
	s.Log.ErrorContext(r.Context(), "handler panicked",
		"route", route(r), "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if rec.wrote {
		return true
	}
	writeProblem(rec, &failure{code: internal})
	return false
}

// recorder keeps the status of an answer. Where no route matched it replaces the answer of the mux, which is plain text.
type recorder struct {
	http.ResponseWriter
	// routed is the request once the mux has it. Its Pattern stays empty when no route matches.
	routed *http.Request
	status int
	wrote  bool // the answer has begun
	muted  bool // the answer was replaced
	share  share
}

// WriteHeader begins the answer, or the one that takes the place of the mux's.
func (rec *recorder) WriteHeader(status int) {
	if status < 200 || rec.wrote {
		rec.ResponseWriter.WriteHeader(status)
		return
	}
	rec.status, rec.wrote = status, true
	if rec.routed == nil || rec.routed.Pattern != "" || status < 400 {
		rec.ResponseWriter.WriteHeader(status)
		return
	}
	rec.muted = true
	f := &failure{code: invalid, details: []string{"the request cannot be routed"}}
	switch status {
	case http.StatusNotFound:
		f = &failure{code: notFound, message: "there is nothing at this path"}
	case http.StatusMethodNotAllowed:
		f = &failure{code: notAllowed, message: "this path takes " + rec.Header().Get("Allow")}
	}
	writeProblem(rec.ResponseWriter, f)
}

// Write goes on with the answer.
func (rec *recorder) Write(p []byte) (int, error) {
	if rec.muted {
		return len(p), nil
	}
	rec.wrote = true
	return rec.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }
