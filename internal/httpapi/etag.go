package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
)

// writeTagged answers v with its ETag, or 304 without a body when the client has that already. The tag is a hash of the
// very bytes, and so strong: it differs whenever anything in the answer does, be it the task itself, a parent's state or a
// delivery's failures, and there is no version to keep that one of them could forget to change.
func writeTagged(w http.ResponseWriter, r *http.Request, v any) error {
	var body bytes.Buffer
	encode(&body, v)
	hash := sha256.Sum256(body.Bytes())
	tag := `"` + hex.EncodeToString(hash[:16]) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache") // it may be kept, and has to be asked for each time
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	begin(w, jsonType, http.StatusOK)
	_, _ = w.Write(body.Bytes())
	return nil
}

// matches reports whether If-None-Match has the tag: weakly compared, since a proxy that compresses makes a tag weak.
func matches(lines []string, tag string) bool {
	for _, line := range lines {
		for candidate := range strings.SplitSeq(line, ",") { // our tags have no commas
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
				return true
			}
		}
	}
	return false
}
