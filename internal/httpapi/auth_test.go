package httpapi

import (
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

const token = "0123456789abcdef-Token"

func withToken(o *Options) { o.AuthToken = token }

// With a token set nothing is answered without it but the probes, whatever the path and the method.
func TestAuthToken(t *testing.T) {
	t.Parallel()
	wrong := [][]string{
		nil,
		{"Authorization: "},
		{"Authorization: " + token},
		{"Authorization: Bearer"},
		{"Authorization: Bearer "},
		{"Authorization: Bearer x" + token},
		{"Authorization: Bearer " + token + "x"},
		{"Authorization: Bearer " + token[1:]},
		{"Authorization: Bearer " + strings.ToLower(token)},
		{"Authorization: Bearer\t" + token},
		{"Authorization: Bearer " + token + "," + token},
		{"Authorization: Basic " + token},
		{"Authorization: Bearer wrong", "Authorization: Bearer " + token},
		{"Proxy-Authorization: Bearer " + token},
		{"X-Token: " + token},
	}
	s := newService(t, withToken)
	paths := everyEndpoint
	for _, e := range []struct{ method, path string }{
		{"GET", "/metrics"}, {"GET", "/"}, {"GET", "/nothing"}, {"DELETE", "/task"}, {"OPTIONS", "/task"}, {"BREW", "/task"},
		{"GET", "//health"}, {"GET", "/health/"}, {"GET", "/healthy"}, {"GET", "/ready/x"}, {"GET", "/Health"}, {"PATCH", "//task/" + idA},
	} {
		paths = append(paths[:len(paths):len(paths)], struct{ method, path, body string }{e.method, e.path, ""})
	}
	for _, e := range paths {
		for _, headers := range wrong {
			w := s.do(e.method, e.path, e.body, headers...)
			if w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s with %q: %d %v", e.method, e.path, headers, w.Code, w.Header())
			}
			checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
		}
		if w := s.do(e.method, e.path, e.body, "Authorization: Bearer "+token); w.Code == 401 || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%s %s with the token: %d %s", e.method, e.path, w.Code, w.Body)
		}
	}
	if n := len(s.seen); n == 0 {
		t.Error("with the token nothing was handed in")
	}
	for _, scheme := range []string{"bearer ", "BEARER ", "Bearer  "} {
		if w := s.do("GET", "/task", "", "Authorization: "+scheme+token); w.Code != 200 {
			t.Errorf("%q: %d", scheme, w.Code)
		}
	}
	for _, path := range []string{"/health", "/ready", "/health?verbose=1"} {
		if w := s.do("GET", path, ""); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if log := s.log.String(); strings.Contains(log, token) {
		t.Errorf("logged: %s", log)
	}
}

// Without a token set nobody is asked for one, and one that is sent all the same does no harm.
func TestNoAuthToken(t *testing.T) {
	t.Parallel()
	run(t, []scenario{
		{method: "GET", path: "/task/" + idA, status: 200, wantHeaders: []string{"WWW-Authenticate: "}},
		{method: "GET", path: "/task/" + idA, status: 200, headers: []string{"Authorization: Basic eA=="}},
	})
}

// untouched is a body that must not be read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body of a stranger was read")
	return 0, errors.New("not to be read")
}

func TestStrangersBodyIsNotRead(t *testing.T) {
	t.Parallel()
	s := newService(t, withToken)
	for _, method := range []string{"POST", "PUT", "PATCH"} {
		r := httptest.NewRequest(method, "/task", io.NopCloser(untouched{t}))
		r.ContentLength = 1 << 40 // more than any limit: neither is it looked at
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}
