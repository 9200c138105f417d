package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// smallBody is how much of a body needs no share of the window, and how much memory is set aside because a request says
	// how long it will be. Reports of workers do not wait for large requests of others.
	smallBody = 64 << 10
	// bodyWait is how long a body waits for its share.
	bodyWait = 10 * time.Second
)

// body reads the whole body, which must be uncompressed JSON as far as the headers go.
func (s *server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	in, err := s.openBody(w, r)
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	all.Grow(int(min(max(r.ContentLength, 0), smallBody)) + bytes.MinRead)
	if _, err := all.ReadFrom(in); err != nil {
		return nil, err
	}
	return all.Bytes(), nil
}

// openBody is body for whoever reads it piece by piece. Errors of the reader are answers like any other.
func (s *server) openBody(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	if err := checkContent(r.Header); err != nil {
		return nil, err
	}
	rec := w.(*recorder)
	limit := s.MaxBodyBytes
	if len(s.Handles) > 0 && inBody(r) && !by(r).trusted {
		limit, rec.share.window = min(limit, maxStrangerBody), s.strangers
	}
	if r.ContentLength > limit {
		return nil, tooLong(limit)
	}
	// MaxBytesReader tells the server through its writer to close the connection.
	return &bodyReader{in: http.MaxBytesReader(rec.ResponseWriter, r.Body, limit), r: r, limit: limit, share: &rec.share}, nil
}

// bodyReader reads a body that has its share of the window.
type bodyReader struct {
	in    io.Reader
	r     *http.Request
	limit int64
	share *share
	n     int64 // bytes read
	err   error // how it ended
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if length := b.r.ContentLength; b.share.n == 0 {
		if length > smallBody || b.n == smallBody {
			if length < 0 {
				length = b.limit // a body that does not say how long it is counts as the longest until it has ended
			}
			if b.err = b.share.take(b.r.Context(), length); b.err != nil {
				return 0, b.err
			}
		} else {
			p = p[:min(int64(len(p)), smallBody-b.n)]
		}
	}
	n, err := b.in.Read(p)
	b.n += int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.share.keep(b.n)
		b.err = err
	default:
		b.err = b.explain(err)
	}
	return n, b.err
}

func (b *bodyReader) explain(err error) error {
	if _, is := errors.AsType[*http.MaxBytesError](err); is {
		return tooLong(b.limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // before the context, which net/http cancels then
		return &failure{code: tooSlow, message: "the body did not come in time"}
	}
	if b.r.Context().Err() != nil {
		return err
	}
	return &failure{code: invalid, message: "the body could not be read to its end"}
}

// window is for all bodies that are in work, but for those of strangers, which have one of their own: they take their shares
// before it is known who sends them, and so hold up only each other. A body larger than the window is let in alone.
type window struct {
	places *semaphore.Weighted
	size   int64
}

func newWindow(size int64) *window { return &window{semaphore.NewWeighted(size), size} }

// newStrangers makes the window of strangers beside one of that size.
func newStrangers(size int64) *window { return newWindow(max(size/4, maxStrangerBody)) }

// share is what a request has of the window, from the reading of its body to the end of its answer.
type share struct {
	*window
	n int64
}

// take waits for a share of n bytes. A request takes one only once: nobody waits who has one already.
func (s *share) take(ctx context.Context, n int64) error {
	waiting, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	n = min(n, s.size)
	if s.places.Acquire(waiting, n) != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		return &failure{code: unavailable, message: "too many large requests are in work, try again"}
	}
	s.n = n
	return nil
}

// keep gives back what is more than n bytes.
func (s *share) keep(n int64) {
	if s.n > n {
		s.places.Release(s.n - n)
		s.n = n
	}
}

func tooLong(limit int64) error {
	return &failure{code: tooLarge, message: fmt.Sprintf("the body is larger than %d bytes", limit)}
}

// checkContent refuses bodies that say they are something else than JSON. What curl and forms say by default is taken:
// they are read as JSON or not at all.
func checkContent(h http.Header) error {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return &failure{code: unsupported, message: "Content-Encoding is not supported: send the body as it is"}
	}
	header := h.Get("Content-Type")
	if header == "" || header == "application/json" {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(header)
	charset := strings.ToLower(params["charset"])
	switch {
	case err != nil, charset != "" && charset != "utf-8" && charset != "utf8" && charset != "us-ascii":
	case mediaType == "application/json", mediaType == "text/json", strings.HasSuffix(mediaType, "+json"),
		mediaType == "application/x-www-form-urlencoded":
		return nil
	}
	return &failure{code: unsupported, message: "Content-Type must be application/json, in UTF-8"}
}
