package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	stubAddress    = "127.0.0.53:53"
	stubTimeout    = 2 * time.Second // Docker's resolver gives up after 4
	stubConcurrent = 64
)

// TailnetNames is what the stub asks. Both methods are for concurrent use.
type TailnetNames interface {
	// Zones are the domains that the tailnet answers for, without dots at the ends; nil before it is up.
	Zones() []string
	// Query returns a whole DNS message; its ID means nothing.
	Query(ctx context.Context, name string, kind dnsmessage.Type) ([]byte, error)
}

// DNSStub is the first of the servers that Docker's resolver asks (docker run --dns). It answers single labels and the
// tailnet's zones, and refuses everything else at once, upon which Docker asks the next server: public names neither
// break nor wait, whatever the state of the tailnet. Docker's rule is in moby's libnetwork/resolver.go.
type DNSStub struct {
	names TailnetNames
	log   *slog.Logger
	udp   net.PacketConn
	tcp   net.Listener
	room  chan struct{}
	work  sync.WaitGroup
}

// startDNSStub listens on UDP and TCP of the address until Close.
func startDNSStub(address string, names TailnetNames, log *slog.Logger) (*DNSStub, error) {
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, fmt.Errorf("The DNS stub cannot listen on %s (%w); end what listens there.", address, err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("The DNS stub cannot listen on %s (%w); end what listens there.", address, err)
	}
	stub := &DNSStub{names: names, log: log, udp: udp, tcp: tcp, room: make(chan struct{}, stubConcurrent)}
	stub.work.Go(stub.serveUDP)
	stub.work.Go(stub.serveTCP)
	return stub, nil
}

// Close ends the stub and waits for its goroutines.
func (d *DNSStub) Close() {
	d.udp.Close()
	d.tcp.Close()
	d.work.Wait()
}

func (d *DNSStub) serveUDP() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := d.udp.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(10 * time.Millisecond) // most are an ICMP error of an earlier answer; none may keep a core busy
			continue
		}
		query := slices.Clone(buffer[:n])
		select {
		case d.room <- struct{}{}:
		default:
			continue // a flood; those that matter ask again
		}
		d.work.Go(func() {
			defer func() { <-d.room }()
			if answer := d.answer(query); answer != nil {
				_, _ = d.udp.WriteTo(fitUDP(answer), from)
			}
		})
	}
}

func (d *DNSStub) serveTCP() {
	for {
		conn, err := d.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case d.room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		d.work.Go(func() {
			defer func() { <-d.room }()
			defer conn.Close()
			d.converse(conn)
		})
	}
}

// converse answers the queries of one TCP connection (RFC 1035 4.2.2: a length of two bytes before each message).
func (d *DNSStub) converse(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(2 * stubTimeout))
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := d.answer(query)
		if answer == nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := conn.Write(append(framed, answer...)); err != nil {
			return
		}
	}
}

// answer is nil for what is no query at all.
func (d *DNSStub) answer(query []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	if header.OpCode != 0 || question.Class != dnsmessage.ClassINET {
		return reply(header, question, dnsmessage.RCodeRefused)
	}
	name := strings.ToLower(strings.TrimSuffix(question.Name.String(), "."))
	within, single := placeOf(name, d.names.Zones())
	if !within && !single {
		return reply(header, question, dnsmessage.RCodeRefused)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stubTimeout)
	defer cancel()
	answer, err := d.names.Query(ctx, name, question.Type)
	if err != nil || len(answer) < 12 {
		d.log.Debug("the tailnet gave no answer", "name", name, "error", err)
		return reply(header, question, dnsmessage.RCodeRefused)
	}
	code := dnsmessage.RCode(answer[3] & 0xf)
	if code != dnsmessage.RCodeSuccess && (single || code != dnsmessage.RCodeNameError) {
		// Not a name of the tailnet's, or not answerable: others may know it.
		return reply(header, question, dnsmessage.RCodeRefused)
	}
	answer = slices.Clone(answer)
	binary.BigEndian.PutUint16(answer, header.ID)
	if within {
		answer[2] |= 0x04 // authoritative: Docker asks no further when such a name does not exist
	}
	return answer
}

// placeOf tells whether a name lies in one of the zones, or is a single label, which the tailnet completes itself.
// Nothing is either as long as there are no zones.
func placeOf(name string, zones []string) (within, single bool) {
	if name == "" || name == "localhost" || len(zones) == 0 {
		return false, false
	}
	for _, zone := range zones {
		if name == zone || strings.HasSuffix(name, "."+zone) {
			return true, false
		}
	}
	return false, !strings.Contains(name, ".")
}

// reply is an answer without records.
func reply(header dnsmessage.Header, question dnsmessage.Question, code dnsmessage.RCode) []byte {
	message := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, OpCode: header.OpCode, RecursionDesired: header.RecursionDesired,
			RecursionAvailable: true, RCode: code,
		},
		Questions: []dnsmessage.Question{question},
	}
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// fitUDP cuts an answer that is too long for plain UDP to its header and question, with the flag that sends the asker
// to TCP.
func fitUDP(answer []byte) []byte {
	if len(answer) <= 512 {
		return answer
	}
	var parser dnsmessage.Parser
	header, err := parser.Start(answer)
	if err != nil {
		return answer
	}
	question, err := parser.Question()
	if err != nil {
		return answer
	}
	short := reply(header, question, header.RCode)
	if len(short) > 2 {
		short[2] |= 0x02
	}
	return short
}

// reverseZones are the in-addr.arpa and ip6.arpa domains of the tailnet's addresses: 100.64.0.0/10 is 64 of them.
func reverseZones() []string {
	zones := make([]string, 0, 65)
	for second := 64; second < 128; second++ {
		zones = append(zones, fmt.Sprintf("%d.100.in-addr.arpa", second))
	}
	return append(zones, "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa")
}
