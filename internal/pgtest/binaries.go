package pgtest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// minVersion is the oldest major version that the service supports.
const minVersion = 15

// binGlobs are the places where packages put the server programs without adding them to PATH: Debian, Homebrew, a build
// from source, the macOS installer.
var binGlobs = []string{
	"/usr/lib/postgresql/*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/usr/local/pgsql/bin",
	"/Library/PostgreSQL/*/bin",
}

var majorVersion = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// findBinaries returns the directory that holds initdb, pg_ctl and postgres of one version: PATH's if that is new
// enough, else the newest of binGlobs.
func findBinaries(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// A link to one program says where the others are.
		if path, err = filepath.EvalSymlinks(path); err == nil && binariesVersion(ctx, filepath.Dir(path)) >= minVersion {
			return filepath.Dir(path), nil
		}
	}
	best, bestVersion := "", minVersion-1
	for _, glob := range binGlobs {
		dirs, err := filepath.Glob(glob)
		if err != nil {
			return "", fmt.Errorf("find PostgreSQL: %w", err)
		}
		for _, dir := range dirs {
			if v := binariesVersion(ctx, dir); v > bestVersion {
				best, bestVersion = dir, v
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("find PostgreSQL: no initdb, pg_ctl and postgres of version %d or newer on PATH or in %v: %s",
			minVersion, binGlobs, installHint())
	}
	return best, nil
}

// binariesVersion returns the major version of the server programs in dir, 0 if they are not all there.
func binariesVersion(ctx context.Context, dir string) int {
	for _, name := range []string{"initdb", "pg_ctl"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return 0
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	m := majorVersion.FindSubmatch(out)
	if m == nil {
		return 0
	}
	v, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0
	}
	return v
}

func installHint() string {
	install := "install PostgreSQL's server and put its bin directory on PATH"
	switch runtime.GOOS {
	case "linux":
		install = "run scripts/ensure-postgres.sh (it does apt-get install postgresql; elsewhere use your system's packages)"
	case "darwin":
		install = "run brew install postgresql@17"
	}
	return install + ", or set " + urlVariable + " to the URL of a server whose user may create schemas"
}
