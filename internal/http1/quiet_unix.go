//go:build unix

package http1

import (
	"net"
	"syscall"
)

// quiet reports that nothing has come over an idle connection: neither its end, nor what nobody has asked for.
func quiet(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	nothing := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:]) // sockets of Go never block
		nothing = err == syscall.EAGAIN
		return true
	})
	return err == nil && nothing
}
