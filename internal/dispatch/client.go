package dispatch

import (
	"net"
	"net/http"
	"time"

	"taskrunner/internal/http1"
)

const (
	// maxAnswer bounds what is read of an answer's body, maxAnswerHeader its header.
	maxAnswer       = 64 << 10
	maxAnswerHeader = 64 << 10
	// connectTimeout bounds dialing and the TLS handshake each.
	connectTimeout = 5 * time.Second
	idleTimeout    = 90 * time.Second
)

// newDialer bounds the look-up of the name, the connections to each of its addresses, or all of them together, by one
// time. The guard is asked for each address.
func newDialer(o *Options) *net.Dialer {
	return &net.Dialer{Timeout: min(connectTimeout, o.Timeout), KeepAlive: 30 * time.Second, Control: o.Guard.Control}
}

// newTransport is used without an http.Client: so redirects are not followed, there are no cookies, and errors do not
// repeat the URL. Both sets of windows share it.
func newTransport(o *Options, dialer *net.Dialer) *http1.Transport {
	return &http1.Transport{
		Dial:           dialer.DialContext,
		MaxIdle:        2 * o.Window,
		MaxIdlePerHost: 2 * o.HostWindow,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxAnswerHeader,
		Other:          newOtherTransport(o, dialer),
	}
}

// newOtherTransport is for what is not plain HTTP/1.1.
func newOtherTransport(o *Options, dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		Proxy:                 nil, // one from the environment would be asked to reach what the guard refuses
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
		MaxIdleConns:          2 * o.Window,
		MaxIdleConnsPerHost:   2 * o.HostWindow,
		IdleConnTimeout:       idleTimeout,
		TLSHandshakeTimeout:   dialer.Timeout,
		ExpectContinueTimeout: time.Second,
		// 1xx answers count as well.
		MaxResponseHeaderBytes: maxAnswerHeader,
		HTTP2: &http.HTTP2Config{
			// What a receiver may send before it is read; by default 4 MiB and 1 GiB.
			MaxReceiveBufferPerStream:     maxAnswer,
			MaxReceiveBufferPerConnection: 16 * maxAnswer,
			// A connection that has died in silence would time out every request to its host.
			SendPingTimeout:  connectTimeout,
			PingTimeout:      connectTimeout,
			WriteByteTimeout: connectTimeout,
		},
	}
}
