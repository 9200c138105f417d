package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

const jsonType = "application/json"

func writeJSON(w http.ResponseWriter, status int, v any) error {
	writeAs(w, jsonType, status, v)
	return nil
}

// writeAs answers v. A client that is gone is nobody's error.
func writeAs(w http.ResponseWriter, contentType string, status int, v any) {
	var body bytes.Buffer
	encode(&body, v)
	begin(w, contentType, status)
	_, _ = w.Write(body.Bytes())
}

// encode writes v, one of the structs of package api, which cannot fail but by a mistake in this program.
func encode(body *bytes.Buffer, v any) {
	if err := encoder(body).Encode(v); err != nil {
		panic(err)
	}
}

func begin(w http.ResponseWriter, contentType string, status int) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	w.WriteHeader(status)
}

func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// stream writes an answer of any length piece by piece.
type stream struct {
	buffer *bufio.Writer
	*json.Encoder
}

// newStream begins an answer of about n elements.
func newStream(w http.ResponseWriter, status, n int) stream {
	begin(w, jsonType, status)
	buffer := bufio.NewWriterSize(w, min(1+n, 32)<<10)
	return stream{buffer, encoder(buffer)}
}

func (s stream) text(text string) { _, _ = s.buffer.WriteString(text) }

func (s stream) end() { _ = s.buffer.Flush() }

// writeArray streams n elements. When it cannot, it panics: half an answer must not look like a whole one.
func writeArray[T any](s stream, n int, element func(i int) T) {
	s.text("[")
	for i := range n {
		if i > 0 {
			s.text(",")
		}
		if err := s.Encode(element(i)); err != nil {
			if _, is := errors.AsType[*json.MarshalerError](err); is {
				panic(err) // raw JSON that is none: it came from our own store
			}
			panic(http.ErrAbortHandler) // the connection broke
		}
	}
	s.text("]")
}
