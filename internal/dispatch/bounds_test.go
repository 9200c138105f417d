package dispatch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"taskrunner/internal/task"
)

// secure serves HTTP/2 over TLS, or HTTP/1 over TLS, and returns a sender that trusts it.
func secure(t *testing.T, http2 bool, answer http.HandlerFunc) (s *sender, baseURL string, connections *atomic.Int32) {
	t.Helper()
	connections = &atomic.Int32{}
	server := httptest.NewUnstartedServer(answer)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	o := Options{HostURL: "http://runner", Guard: newGuard(t, "loopback")}
	o.fill()
	transport := newTransport(&o, newDialer(&o))
	t.Cleanup(transport.CloseIdleConnections)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	transport.Other.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	transport.Other.TLSClientConfig.RootCAs = pool
	transport.Other.TLSClientConfig.NextProtos = nil
	return &sender{transport: transport, timeout: o.Timeout, random: rand.Uint64, handle: "h"}, server.URL, connections
}

func get(t *testing.T, s *sender, url string) answer {
	t.Helper()
	return s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, keep: true, action: &task.Action{Verb: "Get", URL: url}})
}

// onBothVersions runs a test with receivers that speak HTTP/1 and such that speak HTTP/2.
func onBothVersions(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Helper()
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, http2)
		})
	}
}

// HTTP/2 is spoken with who knows it, and one connection serves all requests in turn.
func TestSendReusesConnections(t *testing.T) {
	onBothVersions(t, func(t *testing.T, http2 bool) {
		var version atomic.Int32
		s, base, connections := secure(t, http2, func(w http.ResponseWriter, r *http.Request) {
			version.Store(int32(r.ProtoMajor))
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
		})
		for range 5 {
			if a := get(t, s, base); a.status != 200 || len(a.body) != 1000 {
				t.Fatalf("%+v", a)
			}
		}
		if got := version.Load() == 2; got != http2 || connections.Load() != 1 {
			t.Errorf("HTTP/%d, %d connections", version.Load(), connections.Load())
		}
	})
}

// Connections to a host are kept for as many requests as may be out to it, of on_start and of the outbox together: each wave
// goes over those of the first.
func TestWavesReuseConnections(t *testing.T) {
	t.Parallel()
	const window, waves = 32, 5
	var connections atomic.Int32
	var wave atomic.Pointer[sync.WaitGroup]
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		all := wave.Load()
		all.Done()
		all.Wait() // none is answered before all are there
		_, _ = io.WriteString(w, "{}")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	d := New(Options{HostURL: "http://runner", Guard: newGuard(t, "loopback"), Window: window, HostWindow: window, Timeout: time.Minute})
	t.Cleanup(func() { _ = d.Drain(context.Background()) })
	for range waves {
		var there, sent sync.WaitGroup
		there.Add(2 * window)
		wave.Store(&there)
		for range 2 * window {
			sent.Go(func() {
				if a := get(t, d.sender, server.URL); a.status != 200 {
					t.Errorf("%+v", a)
					there.Done()
				}
			})
		}
		sent.Wait()
	}
	if n := connections.Load(); n != 2*window {
		t.Errorf("%d connections for %d waves of %d requests", n, waves, 2*window)
	}
}

// What comes before the body, 1xx answers included, is read up to a bound, and is no answer beyond it.
func TestSendBoundsHeaders(t *testing.T) {
	onBothVersions(t, func(t *testing.T, http2 bool) {
		var informed atomic.Int32
		s, base, _ := secure(t, http2, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/fits":
				w.Header().Set("X-Big", strings.Repeat("x", maxAnswerHeader/2))
			case "/one":
				w.Header().Set("X-Big", strings.Repeat("x", 2*maxAnswerHeader))
			case "/many":
				for i := range 4000 {
					w.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("x", 20))
				}
			case "/informed":
				w.Header().Set("X-Filler", strings.Repeat("x", 1000))
				for informed.Store(0); r.Context().Err() == nil; informed.Add(1) { // until the client goes away
					w.WriteHeader(http.StatusEarlyHints)
				}
			}
		})
		if a := get(t, s, base+"/fits"); a.status != 200 {
			t.Errorf("%+v", a)
		}
		for _, path := range []string{"/one", "/many", "/informed"} {
			if a := get(t, s, base+path); a.status != 0 || a.err == nil || Classify(a.status, a.err) != Retry || len(a.text) > 2*maxErrorText {
				t.Errorf("%s: %+v", path, a)
			}
		}
		if n := informed.Load(); n < 10 {
			t.Errorf("after %d informational answers", n)
		}
	})
}

// Nothing is unpacked: what small bytes stand for is not read.
func TestSendDoesNotDecompress(t *testing.T) {
	onBothVersions(t, func(t *testing.T, http2 bool) {
		var bomb bytes.Buffer
		packed := gzip.NewWriter(&bomb)
		if _, err := packed.Write(make([]byte, 10<<20)); err != nil {
			t.Fatal(err)
		}
		if err := packed.Close(); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Value
		s, base, _ := secure(t, http2, func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.Header.Get("Accept-Encoding"))
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		})
		if a := get(t, s, base); a.status != 200 || !bytes.Equal(a.body, bomb.Bytes()) || asked.Load() != "" {
			t.Errorf("status %d, %d of %d bytes, %v, asked for %q", a.status, len(a.body), bomb.Len(), a.err, asked.Load())
		}
	})
}

// Of what nobody reads a receiver that speaks HTTP/2 can send little, and it does not hold up what shares its connection.
func TestSendBoundsWhatIsUnread(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	s, base, connections := secure(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			return
		}
		n := 0
		for chunk := make([]byte, 8<<10); ; n += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				break
			}
		}
		sent <- n
	})
	req, err := s.request(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: base + "/endless"}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if a := get(t, s, base+"/small"); a.status != 200 {
			t.Fatalf("%+v", a)
		}
	}
	resp.Body.Close()
	if n := <-sent; n > 2*maxAnswer || connections.Load() != 1 {
		t.Errorf("the receiver sent %d bytes, %d connections", n, connections.Load())
	}
	if a := get(t, s, base+"/endless"); a.status != 200 || len(a.body) != maxAnswer {
		t.Errorf("status %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
	<-sent
}
