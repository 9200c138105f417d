package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"strings"
)

// maxPrepared bounds the memory that is set aside because a request says how long it will be.
const maxPrepared = 1 << 20

// body reads the whole body, which must be uncompressed JSON as far as the headers go.
func (s *server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := checkContent(r.Header); err != nil {
		return nil, err
	}
	limit := s.MaxBodyBytes
	if len(s.Handles) > 0 && inBody(r) && !by(r).trusted {
		limit = min(limit, maxStrangerBody)
	}
	if r.ContentLength > limit {
		return nil, tooLong(limit)
	}
	if rec, ok := w.(*recorder); ok {
		w = rec.ResponseWriter // MaxBytesReader tells the server through it to close the connection
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxPrepared)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return body.Bytes(), nil
	}
	if _, is := errors.AsType[*http.MaxBytesError](err); is {
		return nil, tooLong(limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || r.Context().Err() != nil {
		return nil, err
	}
	return nil, &failure{code: invalid, message: "the body could not be read to its end"}
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
