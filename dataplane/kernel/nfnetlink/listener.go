package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener waits for changes of nftables' rules in one network namespace. The kernel
// multicasts a message for each object of a transaction, many thousands when kube-proxy
// writes its rules. The last message has the new generation (nf_tables_commit in
// net/netfilter/nf_tables_api.c). A filter in the kernel lets only this last one pass,
// so that a transaction of any size wakes the agent once.
type Listener struct {
	file   *os.File
	socket syscall.RawConn
}

// Listen begins to listen in the network namespace of the calling thread.
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", os.NewSyscallError("socket", err))
	}
	// The filter comes first: a message that came before would not be filtered.
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, onlyMessages(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listening to nftables' notifications: %w", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "nftables notifications")}
	if l.socket, err = l.file.SyscallConn(); err != nil {
		l.Close()
		return nil, fmt.Errorf("listening to nftables' notifications: %w", err)
	}
	return l, nil
}

// onlyMessages is a filter that lets packets pass whose first message is of a kind. The kind is in
// the processor's byte order. The filter loads it as if it were in the network's.
func onlyMessages(kind uint16) *unix.SockFprog {
	const kindAt, all = 4, 0xffff
	loaded := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, kind))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: kindAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(loaded)},
		{Code: unix.BPF_RET | unix.BPF_K, K: all},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}

// Wait returns when rules have changed since it was called last. It also returns when they may
// have: the kernel drops messages that find no room (ENOBUFS). The error says that the listener was
// closed.
func (l *Listener) Wait() error {
	buffer := make([]byte, Short)
	heard := false
	var failed error
	err := l.socket.Read(func(fd uintptr) bool {
		for {
			switch _, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT); {
			case err == nil, errors.Is(err, unix.ENOBUFS):
				heard = true
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return heard // otherwise wait
			default:
				failed = os.NewSyscallError("recvfrom", err)
				return true
			}
		}
	})
	return errors.Join(err, failed)
}

// Close ends the listening and every Wait.
func (l *Listener) Close() { _ = l.file.Close() }
