package dispatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"taskrunner/client"
	"taskrunner/internal/handle"
	"taskrunner/internal/task"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

func parseSecrets(t testing.TB, texts ...string) []client.Secret {
	t.Helper()
	secrets := make([]client.Secret, len(texts))
	for i, text := range texts {
		var err error
		if secrets[i], err = client.ParseSecret(text); err != nil {
			t.Fatal(err)
		}
	}
	return secrets
}

// Each request of each trigger is signed with each secret, over what was received: the project's own library says so.
func TestSendSigned(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	s.secrets = parseSecrets(t, secretA, secretB)
	base, last := receive(t, nil)
	for _, trigger := range []task.Trigger{task.TriggerStart, task.TriggerSuccess, task.TriggerFailure, task.TriggerCancel, task.TriggerBatchComplete} {
		for _, verb := range []string{"Get", "Post", "Delete"} {
			for _, body := range []string{"", "null", `{"a": [1,  2], "text": "é<&>"}`} {
				action := task.Action{Verb: verb, URL: base + "/x", Body: json.RawMessage(body)}
				if body == "" {
					action.Body = nil
				}
				if a := s.send(t.Context(), &call{id: testID, trigger: trigger, place: 1, action: &action}); a.status != 200 {
					t.Fatalf("answer %+v", a)
				}
				got := last()
				if got.body != body || got.header.Get("Webhook-Id") == "" || got.header.Get("Webhook-Id") != got.header.Get("Idempotency-Key") {
					t.Errorf("%s %v: %q, headers %v", verb, trigger, got.body, got.header)
				}
				for _, secret := range []string{secretA, secretB} {
					library, err := standardwebhooks.NewWebhook(secret)
					if err != nil {
						t.Fatal(err)
					}
					if err := library.Verify([]byte(got.body), got.header); err != nil {
						t.Errorf("%s %v %q: %v in %v", verb, trigger, body, err, got.header)
					}
				}
			}
		}
	}
}

func TestSendUnsigned(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	base, last := receive(t, nil)
	s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Post", URL: base}})
	for name := range last().header {
		if strings.HasPrefix(name, "Webhook-") {
			t.Errorf("header %s without a secret", name)
		}
	}
}

// Attempts have one id and each its own time.
func TestSignedAgain(t *testing.T) {
	t.Parallel()
	secrets := parseSecrets(t, secretA)
	synctest.Test(t, func(t *testing.T) {
		s := &sender{secrets: secrets, random: func() uint64 { return 1 }}
		c := call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Post", Body: json.RawMessage("1")}}
		verifier := client.NewVerifier(secrets...)
		first := s.header(&c)
		time.Sleep(client.Tolerance + 2*time.Second)
		again := s.header(&c)
		if err := verifier.Verify(again, c.action.Body); err != nil {
			t.Error(err)
		}
		if err := verifier.Verify(first, c.action.Body); !errors.Is(err, client.ErrTimestamp) {
			t.Errorf("the first one is still good: %v", err)
		}
		if first.Get("Webhook-Id") != again.Get("Webhook-Id") {
			t.Errorf("ids %v and %v", first, again)
		}
	})
}

func TestSendHandle(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	s.handles = handle.Keys{"0123456789abcdef", "fedcba9876543210"}
	base, last := receive(t, nil)
	for trigger, want := range map[task.Trigger]struct {
		attempt int
		reports bool
	}{
		task.TriggerStart: {3, true}, task.TriggerSuccess: {}, task.TriggerFailure: {}, task.TriggerCancel: {},
	} {
		for _, query := range []string{"", "?a=1&token=mine"} {
			c := call{id: testID, trigger: trigger, attempt: want.attempt, action: &task.Action{Verb: "Post", URL: base + "/x" + query}}
			s.send(t.Context(), &c)
			values, err := url.ParseQuery(last().query)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(values.Get("handle"))
			if err != nil || u.Scheme+"://"+u.Host+u.Path != "http://runner:8085/task/"+testID.String() || len(u.Query()) != 1 {
				t.Fatalf("handle %q, %v", values.Get("handle"), err)
			}
			token := u.Query().Get("token")
			attempt, reads := s.handles.Check(token, testID, handle.Read)
			_, reports := s.handles.Check(token, testID, handle.Report)
			if !reads || reports != want.reports || attempt != want.attempt {
				t.Errorf("%v: token %q: attempt %d, reports %t", trigger, token, attempt, reports)
			}
		}
	}
	// Nobody reports anything about a batch.
	s.send(t.Context(), &call{id: testID, trigger: task.TriggerBatchComplete, action: &task.Action{Verb: "Post", URL: base}})
	if q := last().query; q != "" {
		t.Errorf("query %q", q)
	}
}

// echo fails as a library might that repeats the request.
type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("cannot send %s", r.URL)
}

// The token is a secret of the service's own: an error does not repeat it.
func TestTokenIsNotShown(t *testing.T) {
	t.Parallel()
	s := newSender(t)
	s.handles, s.transport = handle.Keys{"0123456789abcdef"}, echo{}
	c := call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Post", URL: "https://example.com/run"}}
	a := s.send(t.Context(), &c)
	if !strings.Contains(a.text, "cannot send https://example.com/run?handle=") || strings.Contains(a.text, c.token) || c.token == "" {
		t.Errorf("token %q, error %q", c.token, a.text)
	}
}
