package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The example of the specification's libraries.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleTime      = 1614265330
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	otherSecret      = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

func secret(t testing.TB, text string) Secret {
	t.Helper()
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func headers(id string, at time.Time, signature string) http.Header {
	h := http.Header{}
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(HeaderSignature, signature)
	return h
}

func TestSign(t *testing.T) {
	t.Parallel()
	if got := secret(t, exampleSecret).Sign(exampleID, time.Unix(exampleTime, 0), []byte(exampleBody)); got != exampleSignature {
		t.Errorf("got %s, want %s", got, exampleSignature)
	}
}

// TestStandardLibrary: what is signed here verifies there, and the other way round, whatever the body.
func TestStandardLibrary(t *testing.T) {
	t.Parallel()
	theirs, err := standardwebhooks.NewWebhook(exampleSecret)
	if err != nil {
		t.Fatal(err)
	}
	ours, now := secret(t, exampleSecret), time.Now()
	for _, body := range []string{"", exampleBody, "é\u2028\x00.\n", strings.Repeat("x", 1<<20)} {
		id := "0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a11:end:success:1"
		h := headers(id, now, secret(t, otherSecret).Sign(id, now, []byte(body))+" "+ours.Sign(id, now, []byte(body)))
		if err := theirs.Verify([]byte(body), h); err != nil {
			t.Errorf("%.20q: theirs refuses ours: %v", body, err)
		}
		signature, err := theirs.Sign(id, now, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := NewVerifier(ours).Verify(headers(id, now, signature), []byte(body)); err != nil {
			t.Errorf("%.20q: ours refuses theirs: %v", body, err)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const body = exampleBody
	now := time.Unix(exampleTime, 0)
	good := exampleSignature
	other := secret(t, otherSecret).Sign(exampleID, now, []byte(body))
	tests := []struct {
		name   string
		body   string
		at     time.Duration // of the receiver's clock, after the webhook's time
		change func(h http.Header)
		want   error
	}{
		{name: "good", body: body},
		{name: "old but within tolerance", body: body, at: Tolerance},
		{name: "early but within tolerance", body: body, at: -Tolerance},
		{name: "too old", body: body, at: Tolerance + time.Second, want: ErrTimestamp},
		{name: "too early", body: body, at: -Tolerance - time.Second, want: ErrTimestamp},
		{name: "another body", body: body + " ", want: ErrSignature},
		{name: "no body", want: ErrSignature},
		{name: "another id", body: body, change: func(h http.Header) { h.Set(HeaderID, exampleID+"x") }, want: ErrSignature},
		{name: "another time", body: body, change: func(h http.Header) { h.Set(HeaderTimestamp, strconv.Itoa(exampleTime+1)) }, want: ErrSignature},
		{name: "no time", body: body, change: func(h http.Header) { h.Set(HeaderTimestamp, "now") }, want: ErrTimestamp},
		{name: "huge time", body: body, change: func(h http.Header) { h.Set(HeaderTimestamp, "9223372036854775807") }, want: ErrTimestamp},
		{name: "least time", body: body, change: func(h http.Header) { h.Set(HeaderTimestamp, "-9223372036854775808") }, want: ErrTimestamp},
		{name: "without id", body: body, change: func(h http.Header) { h.Del(HeaderID) }, want: ErrUnsigned},
		{name: "without time", body: body, change: func(h http.Header) { h.Del(HeaderTimestamp) }, want: ErrUnsigned},
		{name: "without signature", body: body, change: func(h http.Header) { h.Del(HeaderSignature) }, want: ErrUnsigned},
		{name: "second of several", body: body, change: func(h http.Header) { h.Set(HeaderSignature, "v1a,xxx "+other+" "+good) }},
		{name: "of another secret", body: body, change: func(h http.Header) { h.Set(HeaderSignature, other) }, want: ErrSignature},
		{name: "of another version", body: body, change: func(h http.Header) { h.Set(HeaderSignature, strings.Replace(good, "v1,", "v2,", 1)) }, want: ErrSignature},
		{name: "without version", body: body, change: func(h http.Header) { h.Set(HeaderSignature, good[3:]) }, want: ErrSignature},
		{name: "cut", body: body, change: func(h http.Header) { h.Set(HeaderSignature, good[:len(good)-1]) }, want: ErrSignature},
		{name: "empty one", body: body, change: func(h http.Header) { h.Set(HeaderSignature, "v1, v1") }, want: ErrSignature},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := NewVerifier(secret(t, exampleSecret))
			v.now = func() time.Time { return now.Add(test.at) }
			h := headers(exampleID, now, good)
			if test.change != nil {
				test.change(h)
			}
			if err := v.Verify(h, []byte(test.body)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestVerifierSecrets(t *testing.T) {
	t.Parallel()
	now := time.Now()
	signed := func(secrets ...string) http.Header {
		var all []string
		for _, text := range secrets {
			all = append(all, secret(t, text).Sign("id", now, nil))
		}
		return headers("id", now, strings.Join(all, " "))
	}
	a, b := secret(t, exampleSecret), secret(t, otherSecret)
	for i, test := range []struct {
		verifier *Verifier
		header   http.Header
		want     error
	}{
		{NewVerifier(a), signed(exampleSecret), nil},
		{NewVerifier(a), signed(otherSecret, exampleSecret), nil}, // the sender has both
		{NewVerifier(b), signed(otherSecret, exampleSecret), nil},
		{NewVerifier(a, b), signed(otherSecret), nil}, // the receiver has both
		{NewVerifier(b), signed(exampleSecret), ErrSignature},
		{NewVerifier(), signed(exampleSecret), ErrSignature},
	} {
		if err := test.verifier.Verify(test.header, nil); !errors.Is(err, test.want) {
			t.Errorf("%d: %v, want %v", i, err, test.want)
		}
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for text, ok := range map[string]bool{
		exampleSecret: true, of(24): true, of(64): true, of(23): false, of(65): false, "": false, "whsec_": false,
		exampleSecret[6:]: false, "WHSEC_" + exampleSecret[6:]: false, exampleSecret + "\n": false, exampleSecret[:20] + "\r\n" + exampleSecret[20:]: false,
		" " + exampleSecret: false, strings.TrimRight(of(25), "="): false, "whsec_-_" + exampleSecret[8:]: false,
	} {
		s, err := ParseSecret(text)
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && len(text) > 10 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error repeats it: %v", err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %s %v", s, s, s, s, []Secret{s}); ok && shown != "••• ••• ••• ••• [•••]" {
			t.Errorf("shown as %s", shown)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	s, now := secret(t, exampleSecret), time.Now()
	read := ""
	handler := NewVerifier(s).Handler(100, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		read = string(body)
	}))
	for _, test := range []struct {
		body, signed string
		status       int
	}{
		{"the body", "the body", 200},
		{"", "", 200},
		{strings.Repeat("x", 100), strings.Repeat("x", 100), 200},
		{strings.Repeat("x", 101), strings.Repeat("x", 101), 413},
		{"another", "the body", 401},
	} {
		read = "nothing"
		r := httptest.NewRequest("POST", "/run", strings.NewReader(test.body))
		r.Header = headers("id", now, s.Sign("id", now, []byte(test.signed)))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		want := test.body
		if test.status != 200 {
			want = "nothing"
		}
		if w.Code != test.status || read != want {
			t.Errorf("%.20q: %d, and it was handed %.20q", test.body, w.Code, read)
		}
	}
}

// FuzzVerify: no header makes a webhook good that nobody signed, and none is too much.
func FuzzVerify(f *testing.F) {
	f.Add(exampleID, "1614265330", exampleSignature, []byte("x"))
	f.Add("", "-1", "v1, v1,", []byte(nil))
	f.Add(exampleID, "1614265330", "v1,"+strings.Repeat("A", 43)+"=", []byte(exampleBody))
	v := NewVerifier(secret(f, exampleSecret))
	v.now = func() time.Time { return time.Unix(exampleTime, 0) }
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		if v.Verify(h, body) == nil && (id != exampleID || string(body) != exampleBody) {
			t.Errorf("%q %q %q %q is good", id, timestamp, signature, body)
		}
	})
}
