package config

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/client"
	"taskrunner/internal/task"
)

func load(t *testing.T, flags, env map[string]string) *Config {
	t.Helper()
	c, err := Load(flags, func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	c.port, c.listen = 0, ""
	return c
}

func defaults() *Config {
	return &Config{
		SQLitePath: "taskrunner.db", Listen: ":8085", HostURL: "http://localhost:8085", HostURLGuessed: true,
		ClaimLease: 30 * time.Second, Retention: 30 * 24 * time.Hour, MaxTasks: 10_000, MaxBody: 32 << 20, BodyWindow: 64 << 20,
		Window: 2048, HostWindow: 256,
		StartRetry:     task.Retry{MaxAttempts: 3, Initial: time.Second, Factor: 2, Max: 2 * time.Second},
		Retry:          task.Retry{MaxAttempts: 10, Initial: time.Second, Factor: 6, Max: 16 * time.Hour},
		WebhookTimeout: 10 * time.Second, HandleGrace: 24 * time.Hour, ShutdownTimeout: 30 * time.Second,
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		flags, env map[string]string
		want       func(c *Config)
	}{
		{name: "defaults", want: func(*Config) {}},
		{name: "port", env: map[string]string{"PORT": "9000"}, want: func(c *Config) {
			c.Listen, c.HostURL = ":9000", "http://localhost:9000"
		}},
		{name: "listen with port wins over PORT", env: map[string]string{"PORT": "9000", "LISTEN_ADDR": "127.0.0.1:7000"}, want: func(c *Config) {
			c.Listen, c.HostURL = "127.0.0.1:7000", "http://localhost:7000"
		}},
		{name: "listen without port", env: map[string]string{"LISTEN_ADDR": "::1"}, want: func(c *Config) { c.Listen = "[::1]:8085" }},
		{name: "flag over environment", flags: map[string]string{"port": "1"}, env: map[string]string{"PORT": "2"}, want: func(c *Config) {
			c.Listen, c.HostURL = ":1", "http://localhost:1"
		}},
		{name: "postgres", env: map[string]string{"DATABASE_URL": "postgres://u:p@h/db"}, want: func(c *Config) {
			c.Postgres, c.SQLitePath = "postgres://u:p@h/db", ""
		}},
		{name: "sqlite", env: map[string]string{"DATABASE_URL": "sqlite:///var/lib/t.db"}, want: func(c *Config) { c.SQLitePath = "/var/lib/t.db" }},
		{name: "host URL", env: map[string]string{"HOST_URL": "https://runner.example/"}, want: func(c *Config) {
			c.HostURL, c.HostURLGuessed = "https://runner.example", false
		}},
		{name: "log level", env: map[string]string{"LOG_LEVEL": "warn", "RUST_LOG": "debug"}, want: func(c *Config) { c.LogLevel = slog.LevelWarn }},
		{name: "RUST_LOG", env: map[string]string{"RUST_LOG": "error,taskrunner=debug,actix_web=info"}, want: func(c *Config) { c.LogLevel = slog.LevelDebug }},
		{name: "RUST_LOG of others only", env: map[string]string{"RUST_LOG": "actix_web=trace"}, want: func(*Config) {}},
		{name: "networks", env: map[string]string{"WEBHOOK_ALLOWED_NETWORKS": "loopback, 10.0.0.0/8"}, want: func(c *Config) {
			c.AllowedNetworks = []string{"loopback", "10.0.0.0/8"}
		}},
		{name: "ports", env: map[string]string{"WEBHOOK_ALLOWED_PORTS": "443, 8000-8999"}, want: func(c *Config) {
			c.AllowedPorts = [][2]uint16{{443, 443}, {8000, 8999}}
		}},
		{name: "any port", env: map[string]string{"WEBHOOK_ALLOWED_PORTS": "Any"}, want: func(c *Config) {
			c.AllowedPorts = [][2]uint16{{1, 65535}}
		}},
		{name: "dead ends", env: map[string]string{"DEAD_END_CANCEL_ENABLED": "1"}, want: func(c *Config) { c.DeadEndCancel = true }},
		{name: "retention", env: map[string]string{"RETENTION_DAYS": "0.5"}, want: func(c *Config) { c.Retention = 12 * time.Hour }},
		{name: "no retention", env: map[string]string{"RETENTION_DAYS": "0"}, want: func(c *Config) { c.Retention = 0 }},
		{name: "skip", env: map[string]string{"SKIP_SSRF_VALIDATION": "1"}, want: func(c *Config) { c.AllowedNetworks = []string{"any"} }},
		{name: "token", env: map[string]string{"AUTH_TOKEN": "0123456789abcdef"}, want: func(c *Config) { c.AuthToken = "0123456789abcdef" }},
		{name: "token of a file with its line break", env: map[string]string{"AUTH_TOKEN": "~!{}-._+/=abcdef\n"}, want: func(c *Config) {
			c.AuthToken = "~!{}-._+/=abcdef"
		}},
		{name: "token by flag", flags: map[string]string{"auth-token": "the-flag-is-the-one"}, env: map[string]string{"AUTH_TOKEN": "the-variable-is-not"}, want: func(c *Config) {
			c.AuthToken = "the-flag-is-the-one"
		}},
		{name: "handle secrets", env: map[string]string{"HANDLE_SECRET": "the-new-one-of-20-ch, the-old-one-of-20-ch,\n", "HANDLE_GRACE": "1h"}, want: func(c *Config) {
			c.HandleSecrets, c.HandleGrace = []string{"the-new-one-of-20-ch", "the-old-one-of-20-ch"}, time.Hour
		}},
		{name: "webhook secrets", env: map[string]string{"WEBHOOK_SECRETS": secretA + "," + secretB}, want: func(c *Config) {
			for _, text := range []string{secretA, secretB} {
				secret, err := client.ParseSecret(text)
				if err != nil {
					t.Fatal(err)
				}
				c.WebhookSecrets = append(c.WebhookSecrets, secret)
			}
		}},
		{name: "empty token", env: map[string]string{"AUTH_TOKEN": ""}, want: func(*Config) {}},
		{name: "retries", env: map[string]string{
			"WEBHOOK_START_RETRY": `{"max_attempts": 1}`, "WEBHOOK_RETRY": `{"initial": 0.5, "factor": 2, "max": 60, "max_attempts": 20}`,
		}, want: func(c *Config) {
			c.StartRetry.MaxAttempts = 1
			c.Retry = task.Retry{MaxAttempts: 20, Initial: time.Second / 2, Factor: 2, Max: time.Minute}
		}},
		{name: "retry by flag", flags: map[string]string{"webhook-start-retry": `{"initial":5}`}, want: func(c *Config) {
			c.StartRetry.Initial, c.StartRetry.Max = 5*time.Second, 5*time.Second
		}},
		{name: "lease in seconds", env: map[string]string{"CLAIM_LEASE": "2"}, want: func(c *Config) { c.ClaimLease = 2 * time.Second }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := defaults()
			test.want(want)
			if diff := cmp.Diff(want, load(t, test.flags, test.env), cmp.AllowUnexported(Config{}, client.Secret{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadListsEverythingWrong(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"DATABASE_URL": "mysql://u:hunter2@h", "HOST_URL": "ftp://u:hunter2@x?hunter2", "PORT": "99999", "LISTEN_ADDR": "a:b", "LOG_LEVEL": "loud",
		"WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/99,foo", "CLAIM_LEASE": "0", "MAX_TASKS_PER_BATCH": "many", "SKIP_SSRF_VALIDATION": "perhaps",
		"MAX_BODY_BYTES": "32M", "BODY_WINDOW_BYTES": "1000",
		"DEAD_END_CANCEL_ENABLED": "maybe", "WEBHOOK_START_RETRY": `{"max": 601}`, "WEBHOOK_RETRY": "3",
	}
	_, err := Load(nil, func(name string) string { return env[name] })
	if err == nil {
		t.Fatal("no error")
	}
	for name := range env {
		if !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not named in %q", name, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a password: %q", err)
	}
}

// A token that guards nothing, or little, is refused, and never repeated.
func TestLoadRefusesTokens(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"   ":                       "must not be blank",
		"\n":                        "must not be blank",
		"hunter2":                   "at least 16 characters, has 7",
		"hunter2hunter2h":           "at least 16 characters, has 15",
		"hunter2 hunter2 hunter2":   "without spaces",
		"hunter2\thunter2hunter2":   "without spaces",
		"hunter2hünter2hunter2":     "printable ASCII",
		"hunter2\x00hunter2hunter2": "printable ASCII",
	} {
		for where, load := range map[string]func() (*Config, error){
			"environment": func() (*Config, error) {
				return Load(nil, func(name string) string { return map[string]string{"AUTH_TOKEN": token}[name] })
			},
			"flag": func() (*Config, error) {
				return Load(map[string]string{"auth-token": token}, func(string) string { return "" })
			},
		} {
			_, err := load()
			if err == nil || !strings.Contains(err.Error(), "AUTH_TOKEN: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%q by %s: %v, want %q", token, where, err, want)
			} else if strings.Contains(err.Error(), "hunter") {
				t.Errorf("%q by %s: the error shows it: %v", token, where, err)
			}
		}
	}
	// A flag that a script left empty does not turn the guard off.
	if _, err := Load(map[string]string{"auth-token": ""}, func(string) string { return "" }); err == nil {
		t.Error("an empty flag was taken")
	}
}

// Of the secrets that stand in lists, one that is wrong is refused by its place, and none is repeated.
func TestLoadRefusesSecrets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, value, want string }{
		{"HANDLE_SECRET", " ", "must not be blank"},
		{"HANDLE_SECRET", ",", "must not be blank"},
		{"HANDLE_SECRET", "hunter2", "number 1: must have at least 16 characters, has 7"},
		{"HANDLE_SECRET", "hunter2hunter2hunter2,hunter2", "number 2: must have at least 16"},
		{"HANDLE_SECRET", "hunter2 hunter2 hunter2", "number 1: must be printable ASCII without spaces"},
		{"WEBHOOK_SECRETS", "  ", "must not be blank"},
		{"WEBHOOK_SECRETS", "hunter2hunter2hunter2", "number 1: a secret begins with whsec_"},
		{"WEBHOOK_SECRETS", secretA + ",whsec_hunter2!", "number 2: a secret is whsec_ and then base64"},
		{"WEBHOOK_SECRETS", "whsec_aHVudGVyMg==", "number 1: a secret must have between 24 and 64 bytes, has 7"},
	} {
		_, err := Load(nil, func(name string) string { return map[string]string{test.name: test.value}[name] })
		if err == nil || !strings.Contains(err.Error(), test.name+": "+test.want) {
			t.Errorf("%s=%q: %v, want %q", test.name, test.value, err, test.want)
		} else if strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "aHVud") {
			t.Errorf("%s=%q: the error shows it: %v", test.name, test.value, err)
		}
	}
}

func TestLoadRefusesPorts(t *testing.T) {
	t.Parallel()
	for _, ports := range []string{"0", "65536", "-1", "http", "80-", "-80", "90-80", "80-90-100", "443,x", ",", "1.5"} {
		_, err := Load(nil, func(name string) string { return map[string]string{"WEBHOOK_ALLOWED_PORTS": ports}[name] })
		if err == nil || !strings.Contains(err.Error(), "WEBHOOK_ALLOWED_PORTS: ") {
			t.Errorf("%q: %v", ports, err)
		}
	}
}

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

func TestTableIsInTheReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), Table()) {
		t.Errorf("README.md lacks this table:\n%s", Table())
	}
}
