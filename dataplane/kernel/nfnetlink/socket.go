package nfnetlink

import (
	"encoding/binary"
	"errors"
	"iter"
	"time"

	"golang.org/x/sys/unix"
)

// headerBytes is the length of the header of each message (struct nfgenmsg).
const headerBytes = 4

// AnswerWithin bounds the wait for an answer of the kernel.
const AnswerWithin = 5 * time.Second

// Sizes of a socket's buffer. No message of the answer may be longer.
const (
	Short = 4 << 10
	Long  = 64 << 10
)

// ErrChanging means that another program changed the objects while they were read.
var ErrChanging = errors.New("it changes while it is read")

// Socket asks the netfilter of one network namespace. It isn't safe for use by
// several goroutines at once.
type Socket struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// Open makes a socket in the network namespace of the calling thread.
func Open(buffer int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	s := &Socket{fd: fd, buffer: make([]byte, buffer)}
	within := unix.NsecToTimeval(AnswerWithin.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &within)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the socket.
func (s *Socket) Close() { _ = unix.Close(s.fd) }

// Request is a question to one subsystem of netfilter.
type Request struct {
	Subsystem  int
	Command    int
	Dump       bool // asks for all objects of a kind
	Change     bool // changes something; the answer only says whether that was done
	New        bool // makes something, and fails where there is one of that name
	Family     uint8
	Attributes []byte
}

// Reply is one message of the answer.
type Reply struct {
	Family     uint8
	Attributes []byte // valid until the next message
}

// Ask sends a request and gives each message of the answer to handle. The answer to a
// change has no message: it is an error or none.
func (s *Socket) Ask(request Request, handle func(Reply)) error {
	flags := uint16(unix.NLM_F_REQUEST)
	if request.Dump {
		flags |= unix.NLM_F_DUMP
	}
	if request.Change {
		flags |= unix.NLM_F_ACK
	}
	if request.New {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	s.sequence++
	message := s.message(nil, request.Subsystem<<8|request.Command, flags, request.Family, 0, request.Attributes)
	if err := s.send(message); err != nil {
		return err
	}
	return s.receive(request, handle)
}

// Transact makes changes of one subsystem as one transaction (a batch of nfnetlink): all
// of them or, with an error, none.
func (s *Socket) Transact(subsystem int, changes []Request) error {
	s.sequence++
	ends := func(b []byte, kind int) []byte {
		return s.message(b, kind, unix.NLM_F_REQUEST, unix.AF_UNSPEC, uint16(subsystem), nil)
	}
	batch := ends(nil, unix.NFNL_MSG_BATCH_BEGIN)
	for i, change := range changes {
		flags := uint16(unix.NLM_F_REQUEST) // the kernel answers only after an error
		if i == len(changes)-1 {
			flags |= unix.NLM_F_ACK
		}
		batch = s.message(batch, subsystem<<8|change.Command, flags, change.Family, 0, change.Attributes)
	}
	if err := s.send(ends(batch, unix.NFNL_MSG_BATCH_END)); err != nil {
		return err
	}
	return s.receive(Request{Change: true}, func(Reply) {})
}

// message appends a message (struct nlmsghdr, struct nfgenmsg, attributes) with the
// present sequence number.
func (s *Socket) message(b []byte, kind int, flags uint16, family uint8, resource uint16, attributes []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+headerBytes+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, s.sequence)
	b = append(b, 0, 0, 0, 0) // to the kernel
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attributes...)
}

func (s *Socket) send(message []byte) error {
	return unix.Sendto(s.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads the answer to the last request. The answer to a dump ends with a message of its
// own. Any other answer is one message.
func (s *Socket) receive(request Request, handle func(Reply)) error {
	interrupted := false
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, unix.MSG_TRUNC) // returns the whole length
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n > len(s.buffer) {
			err = unix.EMSGSIZE
		}
		if err != nil {
			return err
		}
		for m := range messages(s.buffer[:n]) {
			if m.sequence != s.sequence { // to a request that was given up
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.kind == unix.NLMSG_ERROR || m.kind == unix.NLMSG_DONE:
				if err := outcome(m.body); err != nil || !interrupted {
					return err
				}
				return ErrChanging
			case len(m.body) >= headerBytes:
				handle(Reply{m.body[0], m.body[headerBytes:]})
			}
			if !request.Dump {
				return nil
			}
		}
	}
}

// outcome reads the error number that ends an answer.
func outcome(body []byte) error {
	if len(body) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}

// message is one message of netlink (struct nlmsghdr in linux/netlink.h).
type message struct {
	kind     int
	flags    uint16
	sequence uint32
	body     []byte
}

func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return
			}
			m := message{
				kind:     int(binary.NativeEndian.Uint16(b[4:])),
				flags:    binary.NativeEndian.Uint16(b[6:]),
				sequence: binary.NativeEndian.Uint32(b[8:]),
				body:     b[unix.SizeofNlMsghdr:length],
			}
			if !yield(m) {
				return
			}
			b = b[min(aligned(length), len(b)):]
		}
	}
}

// aligned rounds up to the next place where a message may begin.
func aligned(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
