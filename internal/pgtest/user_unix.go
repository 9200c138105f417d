//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

type procAttr = syscall.SysProcAttr

// ids names the user that the server runs as.
type ids struct{ uid, gid int }

// serverUser returns how to start the server's processes. The ids are nil where they run as the current user; root, as
// which PostgreSQL refuses to run, lends them the user postgres or nobody. They get a process group of their own, so that
// an interrupt from the terminal reaches the test process alone.
func serverUser() (*procAttr, *ids, error) {
	attr := &procAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attr, nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("read id of user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("read group of user %s: %w", name, err)
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return attr, &ids{int(uid), int(gid)}, nil
	}
	return nil, nil, errors.New("start PostgreSQL: it refuses to run as root, and there is no user postgres or nobody to run it as; run the tests as another user")
}

// tempBase returns the directory to make a cluster's in: the usual one, unless the server's user cannot reach it (a
// TMPDIR inside root's home), then /tmp.
func tempBase(owner *ids) string {
	base := os.TempDir()
	if owner == nil {
		return base
	}
	for dir := base; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return "/tmp"
		}
		if dir == filepath.Dir(dir) {
			return base
		}
	}
}
