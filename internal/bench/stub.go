package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Stub is the service's part in the floor of HTTP: it answers everything with nothing, and sends webhooks when it is told
// to. It prints its URL; then it reads from in how many clients are to make how many exchanges and with what path, and
// prints how many were made when they are. It ends when in does.
func Stub(ctx context.Context, in io.Reader, out io.Writer) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &stub{url: "http://" + l.Addr().String(), transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // until Close
	defer func() { _ = server.Close() }()
	fmt.Fprintln(out, s.url)
	for {
		var clients, n int
		var to string
		if _, err := fmt.Fscanln(in, &clients, &n, &to); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read what to do: %w", err)
		}
		if err := s.exchange(ctx, clients, n, to); err != nil {
			return err
		}
		fmt.Fprintln(out, n)
	}
}

type stub struct {
	url       string
	transport *http.Transport
	reported  []chan struct{} // to each client
}

// ServeHTTP takes a callback: /task/<client>.
func (s *stub) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/task/")); err == nil && n < len(s.reported) {
		s.reported[n] <- struct{}{}
	}
}

// exchange makes n exchanges with as many clients, each one after the other.
func (s *stub) exchange(ctx context.Context, clients, n int, to string) error {
	s.reported = make([]chan struct{}, clients)
	for i := range s.reported {
		s.reported[i] = make(chan struct{}, 1)
	}
	var begun atomic.Int64
	var work sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		work.Go(func() {
			for begun.Add(1) <= int64(n) && errs[i] == nil {
				if errs[i] = s.webhook(ctx, i, to); errs[i] == nil {
					<-s.reported[i]
				}
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

func (s *stub) webhook(ctx context.Context, client int, to string) error {
	number := strconv.Itoa(client)
	target := to + number + "?handle=" + url.QueryEscape(s.url+"/task/"+number)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(`{"input":"s3://bucket/key-17"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Task-Id", number)
	req.Header.Set("Idempotency-Key", number+":start")
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("webhook: %s", resp.Status)
	}
	return nil
}
