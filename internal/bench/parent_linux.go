package bench

import "syscall"

// endsWithParent has the system kill a child when this process is gone, however it ended.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
