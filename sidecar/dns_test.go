package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// tailnetNames is a tailnet that knows alpha, and whose resolver says SERVFAIL to public names as the real one does.
type tailnetNames struct{ up bool }

func (n tailnetNames) Zones() []string {
	if !n.up {
		return nil
	}
	return append(reverseZones(), "perry.internal")
}

func (n tailnetNames) Query(_ context.Context, name string, kind dnsmessage.Type) ([]byte, error) {
	if name == "broken" {
		return nil, errors.New("broken")
	}
	message := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, Response: true}}
	message.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}}
	count := map[string]int{"alpha": 1, "alpha.perry.internal": 1, "many": 60}[name]
	for range count {
		message.Answers = append(message.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: message.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{100, 64, 0, 1}},
		})
	}
	switch {
	case count > 0:
	case contains(name, "perry.internal"):
		message.RCode = dnsmessage.RCodeNameError
	default:
		message.RCode = dnsmessage.RCodeServerFailure
	}
	return message.Pack()
}

func startTestStub(t *testing.T, up bool) string {
	stub, err := startDNSStub("127.0.0.1:0", tailnetNames{up}, slog.New(slog.DiscardHandler))
	for range 5 { // a port that is free for UDP may be taken for TCP
		if err == nil {
			break
		}
		stub, err = startDNSStub("127.0.0.1:0", tailnetNames{up}, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stub.Close)
	return stub.udp.LocalAddr().String()
}

func ask(t *testing.T, network, address, name string) dnsmessage.Message {
	t.Helper()
	query := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, RecursionDesired: true}}
	query.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	buffer := make([]byte, 4096)
	var n int
	if network == "tcp" {
		_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
		if err == nil {
			_, err = io.ReadFull(conn, buffer[:2])
		}
		if err == nil {
			n, err = io.ReadFull(conn, buffer[:binary.BigEndian.Uint16(buffer)])
		}
	} else if _, err = conn.Write(packed); err == nil {
		n, err = conn.Read(buffer)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buffer[:n]); err != nil {
		t.Fatal(err)
	}
	if answer.ID != 4711 || !answer.Response {
		t.Errorf("%s %s: the answer is to another question: %+v", network, name, answer.Header)
	}
	return answer
}

func TestStubAnswersForTheTailnetAlone(t *testing.T) {
	address := startTestStub(t, true)
	for _, try := range []struct {
		name    string
		code    dnsmessage.RCode
		answers int
	}{
		{"alpha.", dnsmessage.RCodeSuccess, 1},
		{"ALPHA.", dnsmessage.RCodeSuccess, 1},
		{"alpha.perry.internal.", dnsmessage.RCodeSuccess, 1},
		{"nobody.perry.internal.", dnsmessage.RCodeNameError, 0},
		{"nobody.", dnsmessage.RCodeRefused, 0},
		{"broken.", dnsmessage.RCodeRefused, 0},
		{"localhost.", dnsmessage.RCodeRefused, 0},
		{"example.com.", dnsmessage.RCodeRefused, 0},
		{"notperry.internal.", dnsmessage.RCodeRefused, 0},
		{"1.0.0.10.in-addr.arpa.", dnsmessage.RCodeRefused, 0},
		{"1.0.64.100.in-addr.arpa.", dnsmessage.RCodeRefused, 0}, // ours, and SERVFAIL by the fake
	} {
		for _, network := range []string{"udp", "tcp"} {
			answer := ask(t, network, address, try.name)
			if answer.RCode != try.code || len(answer.Answers) != try.answers {
				t.Errorf("%s %s: %v with %d answers, not %v with %d", network, try.name, answer.RCode, len(answer.Answers), try.code, try.answers)
			}
		}
	}
	if !ask(t, "udp", address, "nobody.perry.internal.").Authoritative {
		t.Error("without the flag, Docker asks the next server for a name of the tailnet")
	}
}

func TestStubRefusesAtOnceBeforeTheTailnetIsUp(t *testing.T) {
	address := startTestStub(t, false)
	before := time.Now()
	for _, name := range []string{"alpha.", "alpha.perry.internal.", "example.com."} {
		if answer := ask(t, "udp", address, name); answer.RCode != dnsmessage.RCodeRefused {
			t.Errorf("%s: %v", name, answer.RCode)
		}
	}
	if took := time.Since(before); took > 200*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

func TestStubSendsLongAnswersToTCP(t *testing.T) {
	address := startTestStub(t, true)
	if answer := ask(t, "udp", address, "many."); !answer.Truncated || len(answer.Answers) != 0 {
		t.Errorf("by UDP: truncated %v, %d answers", answer.Truncated, len(answer.Answers))
	}
	if answer := ask(t, "tcp", address, "many."); answer.Truncated || len(answer.Answers) != 60 {
		t.Errorf("by TCP: truncated %v, %d answers", answer.Truncated, len(answer.Answers))
	}
}

func TestStubLivesThroughNonsense(t *testing.T) {
	address := startTestStub(t, true)
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, nonsense := range [][]byte{{}, {1}, make([]byte, 12), make([]byte, 3000)} {
		if _, err := conn.Write(nonsense); err != nil {
			t.Fatal(err)
		}
	}
	if answer := ask(t, "udp", address, "alpha."); len(answer.Answers) != 1 {
		t.Error("it answers no more")
	}
}
