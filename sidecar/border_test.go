package main

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// A pod as Docker makes it, with one side played by us: eth0 to a bridge that has the gateway .1 and a neighbour .3,
// something where the TUN would be, and a nested container behind docker0.
func podNamespaces(t *testing.T) (pod, outside, tailnet, nested *namespace) {
	pod, outside, tailnet, nested = newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t)
	joinBy(pod, "eth0", []string{"10.9.0.2/28"}, outside, "bridge0", []string{"10.9.0.1/28", "10.9.0.3/28", "100.64.0.66/32"})
	joinBy(pod, tunName, []string{"100.64.0.1/32"}, tailnet, "peer0", []string{"100.64.0.9/32"})
	joinBy(pod, "docker0", []string{"172.30.0.1/24"}, nested, "eth0", []string{"172.30.0.2/24"})
	pod.route("default", "10.9.0.1")
	nested.route("default", "172.30.0.1")
	pod.run("ip", "route", "add", "100.64.0.9/32", "dev", tunName)
	tailnet.run("ip", "route", "add", "default", "via", "100.64.0.1", "dev", "peer0", "onlink")
	outside.run("ip", "route", "add", "172.30.0.0/24", "via", "10.9.0.2")
	pod.set("ipv4/ip_forward", "1")
	for _, name := range []string{"all", "eth0", tunName} {
		pod.set("ipv4/conf/"+name+"/rp_filter", "0") // so that it is the border that stops a forged source
	}
	return pod, outside, tailnet, nested
}

func raise(t *testing.T, pod *namespace) {
	t.Helper()
	pod.do(func() {
		gateways, err := bridgeGateways()
		pod.must(err)
		pod.must(Border{Gateways: gateways, WireGuardPort: 41641, WorkerPort: 7392, SSHPort: 22}.Raise())
	})
}

func TestBorder(t *testing.T) {
	pod, outside, tailnet, nested := podNamespaces(t)
	for _, port := range []string{"22", "7392", "3000"} {
		pod.listen(port)
		nested.listen(port)
	}
	outside.listen("443")
	raise(t, pod)
	raise(t, pod) // as after a restart of the sidecar

	for _, try := range []struct {
		what     string
		from     *namespace
		source   string
		to, want string
	}{
		{"published ssh from the agent machine", outside, "10.9.0.1", "10.9.0.2:22", "open"},
		{"published ssh from elsewhere", outside, "10.9.0.3", "10.9.0.2:22", "open"},
		{"the worker from the agent machine", outside, "10.9.0.1", "10.9.0.2:7392", "open"},
		{"the worker from a neighbour", outside, "10.9.0.3", "10.9.0.2:7392", "dropped"},
		{"the worker from the tailnet", tailnet, "", "100.64.0.1:7392", "dropped"},
		{"the worker from the workspace", pod, "", "127.0.0.1:7392", "open"},
		{"another port from the agent machine", outside, "10.9.0.1", "10.9.0.2:3000", "dropped"},
		{"another port from the tailnet", tailnet, "", "100.64.0.1:3000", "open"},
		{"another port from a nested container", nested, "", "172.30.0.1:3000", "open"},
		{"ssh from a forged tailnet address", outside, "100.64.0.66", "10.9.0.2:22", "dropped"},
		{"a nested container's port from the bridge", outside, "10.9.0.1", "172.30.0.2:3000", "dropped"},
		{"a nested container's port from the tailnet", tailnet, "", "172.30.0.2:3000", "open"},
		{"the way out", pod, "", "10.9.0.1:443", "open"},
		{"the way out of a nested container", nested, "", "10.9.0.1:443", "open"},
		{"a tailnet address by the bridge", pod, "", "100.64.7.7:443", "refused"},
		{"a tailnet address by the bridge, nested", nested, "", "100.64.7.7:443", "refused"},
	} {
		t.Run(try.what, func(t *testing.T) {
			if got := try.from.dial(try.source, try.to); got != try.want {
				t.Errorf("%s → %s is %s, not %s", try.source, try.to, got, try.want)
			}
		})
	}
}

// A Docker inside the pod publishes a port by DNAT in a table of its own; the border lets it work for the tailnet and
// holds the bridge back, and neither disturbs the other.
func TestBorderAndNestedDocker(t *testing.T) {
	pod, outside, tailnet, nested := podNamespaces(t)
	nested.listen("80")
	raise(t, pod)
	pod.run("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", "172.30.0.2:80")
	pod.run("iptables", "-P", "FORWARD", "DROP")
	pod.run("iptables", "-A", "FORWARD", "-o", "docker0", "-d", "172.30.0.2", "-p", "tcp", "--dport", "80", "-j", "ACCEPT")
	pod.run("iptables", "-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
	raise(t, pod)
	if got := tailnet.dial("", "100.64.0.1:8080"); got != "open" {
		t.Errorf("a published port is %s from the tailnet", got)
	}
	if got := outside.dial("10.9.0.1", "10.9.0.2:8080"); got != "dropped" {
		t.Errorf("a published port is %s from the bridge", got)
	}
}

// A forged tailnet source is dropped even where the port is open to all. UDP shows it: an answer is not needed.
func TestBorderLetsWireGuardIn(t *testing.T) {
	pod, outside, _, _ := podNamespaces(t)
	raise(t, pod)
	for _, try := range []struct {
		source, port string
		want         bool
	}{{"10.9.0.1", "41641", true}, {"10.9.0.3", "41641", true}, {"10.9.0.1", "5353", false}, {"100.64.0.66", "41641", false}} {
		var socket net.PacketConn
		pod.do(func() {
			var err error
			socket, err = net.ListenPacket("udp", "10.9.0.2:"+try.port)
			pod.must(err)
		})
		outside.do(func() {
			dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(try.source)}}
			conn, err := dialer.Dial("udp", "10.9.0.2:"+try.port)
			outside.must(err)
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			outside.must(err)
		})
		_ = socket.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		_, _, err := socket.ReadFrom(make([]byte, 16))
		socket.Close()
		if got := err == nil; got != try.want {
			t.Errorf("UDP from %s to port %s: arrived %v, not %v", try.source, try.port, got, try.want)
		}
	}
}

func TestBridgeGateways(t *testing.T) {
	pod, _, _, _ := podNamespaces(t)
	pod.do(func() {
		gateways, err := bridgeGateways()
		pod.must(err)
		if len(gateways) != 1 || gateways[0] != netip.MustParseAddr("10.9.0.1") {
			t.Errorf("the gateways are %v", gateways)
		}
	})
}
