// Package config reads flags and the environment into one validated [Config].
//
// Every setting is a row of one table: its variable, its default, what it means and how it is read. The flags, the
// errors and the table in the README come from it.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"taskrunner/client"
	"taskrunner/internal/task"
)

// Config is a whole configuration.
type Config struct {
	// Postgres is the connection string; empty: SQLite at SQLitePath.
	Postgres   string
	SQLitePath string
	// Listen is the address to serve on, host and port.
	Listen string
	// HostURL is where workers reach the service, without a slash at its end.
	HostURL        string
	HostURLGuessed bool // nobody set it
	// AuthToken is what callers of the API must send; empty: anybody may call it. A secret.
	AuthToken string
	// HandleSecrets make and check the tokens of handles, as handle.Keys has it; none: handles have no tokens. HandleGrace is
	// how long after a task's end its handle still works.
	HandleSecrets []string
	HandleGrace   time.Duration
	// WebhookSecrets sign webhooks; none: they are not signed.
	WebhookSecrets []client.Secret
	LogLevel       slog.Level
	LogOff         bool
	// AllowedNetworks lets webhooks into networks that are refused by default.
	AllowedNetworks []string
	// AllowedPorts are the first and the last of each range of ports that webhooks may reach; none: the usual ones.
	AllowedPorts [][2]uint16
	ClaimLease   time.Duration
	// Retention is how long batches are kept after their end; 0: for good.
	Retention      time.Duration
	DeadEndCancel  bool
	MaxTasks       int
	MaxBody        int64
	BodyWindow     int64
	Window         int
	HostWindow     int
	WebhookTimeout time.Duration
	// StartRetry is the retry policy of on_start, Retry that of other actions.
	StartRetry, Retry task.Retry
	ShutdownTimeout   time.Duration
	// HintsOnly keeps the pump from what a look finds, so that tests see a hint that is lost. No setting says it.
	HintsOnly bool

	port   int
	listen string
}

// Setting is one row of the table.
type Setting struct {
	Name    string // of the environment variable
	Default string
	Help    string
	read    func(c *Config, value string) error
}

// Flag is the name of its command-line flag: DATABASE_URL is --database-url.
func (s Setting) Flag() string { return strings.ToLower(strings.ReplaceAll(s.Name, "_", "-")) }

// Settings is the table.
func Settings() []Setting {
	return []Setting{
		{"DATABASE_URL", "sqlite:taskrunner.db", "Where tasks are kept: postgres://… or sqlite:PATH", readDatabase},
		{"HOST_URL", "http://localhost:PORT", "Where workers reach this service; handles begin with it", readHostURL},
		{"PORT", "8085", "Port to serve on", readPort},
		{"LISTEN_ADDR", "all interfaces", "Address to serve on: HOST or HOST:PORT", func(c *Config, v string) error {
			c.listen = v
			return nil
		}},
		{"AUTH_TOKEN", "none", "Bearer token that callers and workers must send, at least 16 characters; a flag shows in the list of processes", readAuthToken},
		{"HANDLE_SECRET", "none", "Makes handles carry a token that reports need; at least 16 characters, several by commas: the first makes tokens, all are accepted",
			readHandleSecrets},
		{"HANDLE_GRACE", "24h", "How long after a task's end the token of its handle is still accepted", duration(func(c *Config) *time.Duration { return &c.HandleGrace }, time.Second, 30*24*time.Hour)},
		{"WEBHOOK_SECRETS", "none", "Sign webhooks by the Standard Webhooks specification; each whsec_ and the base64 of 24 to 64 bytes, several by commas: all sign",
			readWebhookSecrets},
		{"LOG_LEVEL", "info", "error, warn, info or debug; RUST_LOG is read as well", readLogLevel},
		{"WEBHOOK_ALLOWED_NETWORKS", "none", "Networks that webhooks may reach besides public ones: CIDRs, loopback, private, any",
			readNetworks},
		{"WEBHOOK_ALLOWED_PORTS", "all but those of other protocols", "Ports that webhooks may reach: 443,8000-8999, or any", readPorts},
		{"SKIP_SSRF_VALIDATION", "0", "1 is the same as WEBHOOK_ALLOWED_NETWORKS=any", readSkipSSRF},
		{"WEBHOOK_TIMEOUT", "10s", "How long one webhook may take", duration(func(c *Config) *time.Duration { return &c.WebhookTimeout }, time.Second, time.Minute)},
		retrySetting("WEBHOOK_START_RETRY", "Retry policy of on_start where the task does not say; members left out are as here",
			task.TriggerStart, func(c *Config) *task.Retry { return &c.StartRetry }),
		retrySetting("WEBHOOK_RETRY", "The same of other actions", task.TriggerSuccess, func(c *Config) *task.Retry { return &c.Retry }),
		{"WEBHOOK_WINDOW", "2048", "on_starts in flight at once, over all hosts; as many other webhooks beside them", number(func(c *Config) *int { return &c.Window }, 1, 10_000)},
		{"WEBHOOK_HOST_WINDOW", "256", "on_starts in flight at once to one host; as many other webhooks beside them", number(func(c *Config) *int { return &c.HostWindow }, 1, 10_000)},
		{"CLAIM_LEASE", "30s", "After how long the claims of a dead process are taken over; its deliveries at twice their time-out, if that is longer", duration(func(c *Config) *time.Duration { return &c.ClaimLease }, time.Second, time.Hour)},
		{"DEAD_END_CANCEL_ENABLED", "0", "1 cancels tasks whose children have all ended, none by Success", readDeadEnds},
		{"RETENTION_DAYS", "30", "How long a batch is kept after its last task has ended; fractions work, 0 keeps all", readRetention},
		{"MAX_TASKS_PER_BATCH", "10000", "Tasks that one POST may create", number(func(c *Config) *int { return &c.MaxTasks }, 1, 1_000_000)},
		{"MAX_BODY_BYTES", "33554432", "Size of a request body", bytes(func(c *Config) *int64 { return &c.MaxBody }, 1024, 4<<30)},
		{"BODY_WINDOW_BYTES", "67108864", "Size of all request bodies above 64 KiB together that are in work; others wait, and are answered 503 after 10 s; with HANDLE_SECRET, PATCH /task and PUT /task without AUTH_TOKEN have a quarter as much of their own",
			bytes(func(c *Config) *int64 { return &c.BodyWindow }, 1<<20, 1<<40)},
		{"SHUTDOWN_TIMEOUT", "30s", "How long a stop may take to finish what is in flight", duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout }, time.Second, time.Hour)},
	}
}

// Load reads every setting from flags, which may hold names of [Setting.Flag], or else from the environment, or else
// takes its default. The error lists everything that is wrong, by the names of the variables.
func Load(flags map[string]string, getenv func(string) string) (*Config, error) {
	c := &Config{}
	var errs []error
	for _, s := range Settings() {
		value, given := flags[s.Flag()]
		if !given {
			raw := getenv(s.Name)
			value, given = strings.TrimSpace(raw), raw != ""
		}
		if value == "" && s.Name == "LOG_LEVEL" {
			value = rustLog(getenv("RUST_LOG"))
		}
		if value == "" {
			value = s.fallback()
		}
		// Whoever sets a secret wants to be guarded: a blank one is a mistake, not a secret left out.
		if value == "" && (!s.secret() || !given) {
			continue
		}
		if err := s.read(c, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	if err := c.address(); err != nil {
		errs = append(errs, fmt.Errorf("LISTEN_ADDR: %w", err))
	}
	if c.HostURL == "" {
		c.HostURL, c.HostURLGuessed = "http://localhost:"+strconv.Itoa(c.port), true
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("configuration: %w", errors.Join(errs...))
	}
	return c, nil
}

// secret reports whether the value is never repeated, nor taken for one left out when it is blank.
func (s Setting) secret() bool {
	return s.Name == "AUTH_TOKEN" || s.Name == "HANDLE_SECRET" || s.Name == "WEBHOOK_SECRETS"
}

// fallback is the default as a value, where it is one.
func (s Setting) fallback() string {
	switch s.Name {
	case "HOST_URL", "LISTEN_ADDR", "WEBHOOK_ALLOWED_NETWORKS", "WEBHOOK_ALLOWED_PORTS":
		return ""
	}
	if s.secret() {
		return ""
	}
	return s.Default
}

func (c *Config) address() error {
	host, port := c.listen, strconv.Itoa(c.port)
	if h, p, err := net.SplitHostPort(c.listen); err == nil {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || n > 65535 {
			return fmt.Errorf("%q has no port between 0 and 65535", c.listen)
		}
		host, port = h, p
		c.port, _ = strconv.Atoi(p)
	} else if strings.Count(c.listen, ":") == 1 {
		return fmt.Errorf("%q is not HOST or HOST:PORT", c.listen)
	}
	c.Listen = net.JoinHostPort(strings.Trim(host, "[]"), port)
	return nil
}

// readDatabase never repeats the value: it may hold a password.
func readDatabase(c *Config, value string) error {
	switch scheme, rest, _ := strings.Cut(value, ":"); scheme {
	case "postgres", "postgresql":
		if _, err := url.Parse(value); err != nil {
			return errors.New("is not a URL")
		}
		c.Postgres = value
		return nil
	case "sqlite", "file":
		path := strings.TrimPrefix(rest, "//")
		if path == "" || path == ":memory:" || strings.ContainsAny(path, "?#") {
			return errors.New("sqlite: needs a plain path of a file")
		}
		c.SQLitePath = filepath.Clean(path)
		return nil
	}
	return errors.New("must begin with postgres:// or with sqlite: and a path")
}

// readHostURL never repeats the value either.
func readHostURL(c *Config, value string) error {
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be an http or https URL without query")
	}
	if u.User != nil {
		return errors.New("must not hold a password: it is sent to workers")
	}
	c.HostURL = strings.TrimRight(value, "/")
	return nil
}

func readPort(c *Config, value string) error {
	n, err := between(value, 0, 65535)
	c.port = n
	return err
}

// minToken is in characters; fewer can be guessed.
const minToken = 16

// readAuthToken never repeats the value. What it takes fits into a header as it is.
func readAuthToken(c *Config, value string) error {
	if strings.TrimSpace(value) == "" {
		return errors.New("must not be blank; leave it out to let everybody in")
	}
	c.AuthToken = value
	return checkToken(value)
}

func checkToken(value string) error {
	switch {
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("must be printable ASCII without spaces")
	case len(value) < minToken:
		return fmt.Errorf("must have at least %d characters, has %d", minToken, len(value))
	}
	return nil
}

func readHandleSecrets(c *Config, value string) error {
	return readSecrets(value, func(secret string) error {
		c.HandleSecrets = append(c.HandleSecrets, secret)
		return checkToken(secret)
	})
}

func readWebhookSecrets(c *Config, value string) error {
	return readSecrets(value, func(text string) error {
		secret, err := client.ParseSecret(text)
		c.WebhookSecrets = append(c.WebhookSecrets, secret)
		return err
	})
}

// readSecrets reads a list, of which it repeats nothing: only the place of what is wrong.
func readSecrets(value string, read func(secret string) error) error {
	var errs []error
	n := 0
	for secret := range strings.SplitSeq(value, ",") {
		if secret = strings.TrimSpace(secret); secret == "" {
			continue
		}
		n++
		if err := read(secret); err != nil {
			errs = append(errs, fmt.Errorf("number %d: %w", n, err))
		}
	}
	if n == 0 {
		return errors.New("must not be blank; leave it out to do without")
	}
	return errors.Join(errs...)
}

func readLogLevel(c *Config, value string) error {
	switch strings.ToLower(value) {
	case "off":
		c.LogOff = true
	case "error":
		c.LogLevel = slog.LevelError
	case "warn", "warning":
		c.LogLevel = slog.LevelWarn
	case "info":
		c.LogLevel = slog.LevelInfo
	case "debug", "trace":
		c.LogLevel = slog.LevelDebug
	default:
		return fmt.Errorf("%q is not error, warn, info or debug", value)
	}
	return nil
}

// rustLog takes the level out of a filter such as "warn,taskrunner=debug": the one for this program, or else the one
// without a name. What it does not understand it leaves out, as the original does.
func rustLog(filter string) string {
	general, own := "", ""
	for _, part := range splitList(filter) {
		switch target, level, named := strings.Cut(part, "="); {
		case !named && readLogLevel(&Config{}, target) == nil:
			general = target
		case named && (target == "taskrunner" || target == "task_runner") && readLogLevel(&Config{}, level) == nil:
			own = level
		}
	}
	if own != "" {
		return own
	}
	return general
}

func readNetworks(c *Config, value string) error {
	var errs []error
	for _, entry := range splitList(value) {
		_, notNetwork := netip.ParsePrefix(entry)
		_, notAddress := netip.ParseAddr(entry)
		if word := strings.ToLower(entry); notNetwork != nil && notAddress != nil &&
			word != "loopback" && word != "private" && word != "any" {
			errs = append(errs, fmt.Errorf("%q is not a CIDR, loopback, private or any", entry))
		}
		c.AllowedNetworks = append(c.AllowedNetworks, entry)
	}
	return errors.Join(errs...)
}

func readPorts(c *Config, value string) error {
	var errs []error
	for _, entry := range splitList(value) {
		low, high, isRange := strings.Cut(entry, "-")
		if strings.EqualFold(entry, "any") {
			low, high, isRange = "1", "65535", true
		}
		if !isRange {
			high = low
		}
		first, err := between(low, 1, 65535)
		last, errLast := between(high, 1, 65535)
		if err != nil || errLast != nil || first > last {
			errs = append(errs, fmt.Errorf("%q is not a port, a range such as 8000-8999, or any", entry))
			continue
		}
		c.AllowedPorts = append(c.AllowedPorts, [2]uint16{uint16(first), uint16(last)})
	}
	if len(errs) == 0 && len(c.AllowedPorts) == 0 {
		return fmt.Errorf("%q names no port", value)
	}
	return errors.Join(errs...)
}

func readSkipSSRF(c *Config, value string) error {
	skip, err := yes(value)
	if skip {
		c.AllowedNetworks = append(c.AllowedNetworks, "any")
	}
	return err
}

func readDeadEnds(c *Config, value string) (err error) {
	c.DeadEndCancel, err = yes(value)
	return err
}

// readRetention reads days.
func readRetention(c *Config, value string) error {
	const most = 36_500
	days, err := strconv.ParseFloat(value, 64)
	if err != nil || !(days >= 0 && days <= most) {
		return fmt.Errorf("%q is not a number of days between 0 and %d", value, most)
	}
	c.Retention = time.Duration(days * float64(24*time.Hour))
	return nil
}

func yes(value string) (bool, error) {
	on, err := strconv.ParseBool(strings.ToLower(value))
	if err != nil {
		return false, fmt.Errorf("%q is not 0 or 1", value)
	}
	return on, nil
}

func splitList(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == ';' })
}

func number(field func(*Config) *int, low, high int) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := between(value, low, high)
		*field(c) = n
		return err
	}
}

func bytes(field func(*Config) *int64, low, high int) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := between(value, low, high)
		*field(c) = int64(n)
		return err
	}
}

func between(value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number between %d and %d", value, low, high)
	}
	return n, nil
}

// duration reads "30s", "2m" or whole seconds.
func duration(field func(*Config) *time.Duration, low, high time.Duration) func(*Config, string) error {
	return func(c *Config, value string) error {
		d, err := time.ParseDuration(value)
		if seconds, errInt := strconv.Atoi(value); errInt == nil {
			d, err = time.Duration(seconds)*time.Second, nil
		}
		if err != nil || d < low || d > high {
			return fmt.Errorf("%q is not a duration between %s and %s", value, low, high)
		}
		*field(c) = d
		return nil
	}
}

// retrySetting reads a policy as actions have it; what it leaves out is as in its default.
func retrySetting(name, help string, trigger task.Trigger, field func(*Config) *task.Retry) Setting {
	fallback := task.DefaultRetry(trigger)
	return Setting{name, fallback.String(), help, func(c *Config, value string) error {
		r, err := task.ParseRetry([]byte(value), trigger)
		*field(c) = r.Or(fallback)
		return err
	}}
}

// Table is the configuration table of the README, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, s := range Settings() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", s.Name, s.Default, s.Help)
	}
	return b.String()
}
