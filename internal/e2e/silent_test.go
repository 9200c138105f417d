package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// A stop does not wait for clients that have connected and say nothing, such as those that connect ahead.
func TestStopWithSilentConnections(t *testing.T) {
	t.Parallel()
	// A server waits five seconds for them by itself: this stop would be out of time.
	s := startService(t, databaseURL(t, "sqlite"), map[string]string{"SHUTDOWN_TIMEOUT": "4s"})
	for range 3 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(s.url + "/health") // by a connection of its own: those before it are accepted
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	s.stop()
	if log := s.log.String(); strings.Contains(log, "still open") || !strings.Contains(log, "msg=stopped") {
		t.Errorf("the stop waited:\n%s", log)
	}
}
