package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
)

const (
	// receiveBytes is how many bytes are read at once. In a listing, the kernel fills messages
	// of up to 32 KiB for a reader that has room (netlink_dump in
	// net/netlink/af_netlink.c).
	receiveBytes = 64 << 10

	// deletesAtOnce bounds the answers that wait in the socket's buffer.
	deletesAtOnce = 64

	// answerWithin is how long the kernel may take for the next part of an answer,
	// in seconds.
	answerWithin = 10
)

// Table is the table of connections of one network namespace. It isn't safe for
// use by several goroutines at once.
//
// It has a socket of its own and reads into one buffer: the netlink library
// takes new memory for every message, some hundred bytes for each connection.
type Table struct {
	socket   int
	buffer   []byte
	sequence uint32
}

// Open connects to the network namespace of the calling thread. Any thread may use the table
// afterwards.
func Open() (*Table, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", os.NewSyscallError("socket", err))
	}
	timeout := unix.Timeval{Sec: answerWithin}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = unix.Close(socket)
		return nil, fmt.Errorf("limiting a netlink socket's waiting: %w", os.NewSyscallError("setsockopt", err))
	}
	return &Table{socket: socket, buffer: make([]byte, receiveBytes)}, nil
}

// Close closes the connection.
func (t *Table) Close() { _ = unix.Close(t.socket) }

// List calls yield with each connection of both families. The entry is valid until
// yield returns.
func (t *Table) List(yield func(*Entry)) error {
	t.sequence++
	request := t.request(nil, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_UNSPEC, nil)
	if err := t.send(request); err != nil {
		return fmt.Errorf("listing connections: %w", err)
	}
	var entry Entry // one for all connections, since it lives on the heap
	err := t.receive(func(kind uint16, content []byte) {
		if kind != unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW || len(content) < nl.SizeofNfgenmsg {
			return
		}
		if entry.parse(content[nl.SizeofNfgenmsg:]) {
			yield(&entry)
		}
	})
	if err != nil {
		return fmt.Errorf("listing connections: %w", err)
	}
	return nil
}

// Delete forgets connections. A connection that is gone already is no error.
func (t *Table) Delete(keys []Key) error {
	for len(keys) > 0 {
		n := min(len(keys), deletesAtOnce)
		t.sequence++
		var request []byte
		for i, key := range keys[:n] {
			flags := uint16(0) // the kernel answers only after an error
			if i == n-1 {
				flags = unix.NLM_F_ACK
			}
			request = t.request(request, nl.IPCTNL_MSG_CT_DELETE, flags, family(key), key.attributes())
		}
		if err := t.send(request); err != nil {
			return fmt.Errorf("deleting connections: %w", err)
		}
		if err := t.acknowledged(); err != nil {
			return fmt.Errorf("deleting connections: %w", err)
		}
		keys = keys[n:]
	}
	return nil
}

func family(key Key) uint8 {
	if key.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (k Key) attributes() []byte {
	var b []byte
	nlattr.Append(&b, nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, k.original...)
	if k.id != nil {
		nlattr.Append(&b, nl.CTA_ID|unix.NLA_F_NET_BYTEORDER, k.id...)
	}
	if k.zone != nil {
		nlattr.Append(&b, nl.CTA_ZONE|unix.NLA_F_NET_BYTEORDER, k.zone...)
	}
	return b
}

// request appends a message: struct nlmsghdr, struct nfgenmsg, attributes.
func (t *Table) request(b []byte, command int, flags uint16, family uint8, attributes []byte) []byte {
	length := unix.SizeofNlMsghdr + nl.SizeofNfgenmsg + len(attributes)
	b = binary.NativeEndian.AppendUint32(b, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NFNL_SUBSYS_CTNETLINK<<8|command))
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, t.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0, 0, 0)
	return append(b, attributes...)
}

func (t *Table) send(request []byte) error {
	err := unix.Sendto(t.socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	return os.NewSyscallError("sendto", err)
}

// errDone ends reading.
var errDone = errors.New("no more messages")

// receive reads messages up to the end of a listing.
func (t *Table) receive(yield func(kind uint16, content []byte)) error {
	err := t.read(func(kind uint16, content []byte) error {
		switch kind {
		case unix.NLMSG_DONE:
			if err := errorOf(content); err != nil {
				return err
			}
			return errDone
		case unix.NLMSG_ERROR:
			return errorOf(content)
		}
		yield(kind, content)
		return nil
	})
	return notDone(err)
}

func notDone(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// acknowledged reads the answers to deletions. The kernel always answers the last one. An entry
// that is gone counts as deleted.
func (t *Table) acknowledged() error {
	var failed error
	err := t.read(func(kind uint16, content []byte) error {
		if kind != unix.NLMSG_ERROR {
			return nil
		}
		if err := errorOf(content); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = errors.Join(failed, err)
		}
		// struct nlmsgerr: the error, then the header of the request.
		if len(content) >= 4+unix.SizeofNlMsghdr && binary.NativeEndian.Uint16(content[4+6:])&unix.NLM_F_ACK != 0 {
			return errDone
		}
		return nil
	})
	return errors.Join(failed, notDone(err))
}

// errorOf reads a struct nlmsgerr.
func errorOf(content []byte) error {
	if len(content) < 4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(content)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// read calls yield with each message that answers the present request, until it
// returns an error, and returns that.
func (t *Table) read(yield func(kind uint16, content []byte) error) error {
	for {
		n, _, err := unix.Recvfrom(t.socket, t.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for b := t.buffer[:n]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return unix.EBADMSG
			}
			if binary.NativeEndian.Uint32(b[8:]) == t.sequence { // otherwise it answers a request that was given up
				if err := yield(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:length]); err != nil {
					return err
				}
			}
			b = b[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}
