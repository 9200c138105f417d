//go:build !unix

package pgtest

import (
	"errors"
	"syscall"
)

type procAttr = syscall.SysProcAttr

type ids struct{ uid, gid int }

func serverUser() (*procAttr, *ids, error) {
	return nil, nil, errors.New("start PostgreSQL: not supported on this system; set " + urlVariable + " to the URL of a server whose user may create schemas")
}

func tempBase(*ids) string { return "" }
