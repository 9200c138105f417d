//go:build !linux

package bench

import "syscall"

// endsWithParent can promise nothing here.
func endsWithParent() *syscall.SysProcAttr { return nil }
