package bench

import (
	"fmt"
	"io"
	"time"
)

// progress shows what happens while it happens: on a terminal in one line that is written over, elsewhere a line a run.
type progress struct {
	out      io.Writer
	terminal bool
	what     string
	begun    time.Time
	shown    time.Time
}

func (p *progress) begin(format string, args ...any) {
	p.what, p.begun = fmt.Sprintf(format, args...), time.Now()
}

// now says how far the run is.
func (p *progress) now(format string, args ...any) {
	if p.terminal && time.Since(p.shown) > 200*time.Millisecond {
		p.shown = time.Now()
		fmt.Fprintf(p.out, "\r\x1b[K%s: %s", p.what, fmt.Sprintf(format, args...))
	}
}

func (p *progress) end(err error) {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	outcome := "ok"
	if err != nil {
		outcome = "WRONG: " + err.Error()
	}
	fmt.Fprintf(p.out, "%s: %.1fs, %s\n", p.what, time.Since(p.begun).Seconds(), outcome)
}
