package dispatch

import (
	"net"
	"net/http"
	"time"
)

const (
	// maxAnswer bounds what is read of an answer's body, maxAnswerHeader its header.
	maxAnswer       = 64 << 10
	maxAnswerHeader = 64 << 10
	// connectTimeout bounds dialing and the TLS handshake each; a connection outlives the request it was made for.
	connectTimeout = 5 * time.Second
	idleTimeout    = 90 * time.Second
)

// newTransport is used without an http.Client: so redirects are not followed, there are no cookies, and errors do not
// repeat the URL. Both sets of windows share it.
func newTransport(o *Options) *http.Transport {
	connect := min(connectTimeout, o.Timeout)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second, Control: o.Guard.Control}
	return &http.Transport{
		Proxy:                  nil, // one from the environment would be asked to reach what the guard refuses
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           2 * o.Window,
		MaxIdleConnsPerHost:    2 * o.HostWindow,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    connect,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
	}
}
