package task

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShownHeaders(t *testing.T) {
	t.Parallel()
	stored := map[string]string{
		"accept": "a", "Accept-Encoding": "b", "ACCEPT-LANGUAGE": "c", "Cache-Control": "d", "Content-Language": "e", "content-type": "f",
		"User-Agent": "g", "X-Correlation-ID": "h", "x-request-id": "i",
		"Authorization": "secret", "cookie": "secret", "X-Api-Key": "secret", "X-Tenant": "secret", "Content-Typ": "secret", "X": "", "Accept-": "secret",
	}
	want := map[string]string{
		"accept": "a", "Accept-Encoding": "b", "ACCEPT-LANGUAGE": "c", "Cache-Control": "d", "Content-Language": "e", "content-type": "f",
		"User-Agent": "g", "X-Correlation-ID": "h", "x-request-id": "i",
		"Authorization": "•••", "cookie": "•••", "X-Api-Key": "•••", "X-Tenant": "•••", "Content-Typ": "•••", "X": "•••", "Accept-": "•••",
	}
	if diff := cmp.Diff(want, ShownHeaders(stored)); diff != "" {
		t.Error(diff)
	}
	if stored["Authorization"] != "secret" {
		t.Error("what is stored was changed")
	}
	if ShownHeaders(nil) != nil {
		t.Error("there are none")
	}
}
