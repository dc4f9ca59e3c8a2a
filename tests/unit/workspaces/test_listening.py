"""What listens, out of what a workspace says of itself."""

from controlplane.workspaces.listening import PORTS_SHOWN, listening
from protocol.workspaces import ListeningPort

REAL = """\
udp UNCONN 0      0      127.0.0.53:53    0.0.0.0:*
udp UNCONN 0      0      127.0.0.11:35685 0.0.0.0:*
tcp LISTEN 0      4096   127.0.0.53:53    0.0.0.0:*
tcp LISTEN 0      128       0.0.0.0:22    0.0.0.0:*
tcp LISTEN 0      5       127.0.0.1:3000  0.0.0.0:* users:(("python3",pid=54,fd=3))
tcp LISTEN 0      128          [::]:22       [::]:*
tcp LISTEN 0      511             *:5173        *:* users:(("node",pid=9,fd=1),("node",pid=10,fd=1))
tcp LISTEN 0      1       127.0.0.1:18789 0.0.0.0:*
udp UNCONN 0      0         0.0.0.0:41641 0.0.0.0:*
udp UNCONN 0      0  100.64.0.3%tailscale0:5353 0.0.0.0:*
"""


def test_what_ss_says() -> None:
    def port(
        number: int, protocol: str, address: str, loopback: bool = False, process: str | None = None
    ) -> ListeningPort:
        return ListeningPort(port=number, protocol=protocol, address=address, loopback=loopback, process=process)

    assert listening(REAL) == [
        port(22, "tcp", "0.0.0.0"),
        port(22, "tcp", "::"),
        port(3000, "tcp", "127.0.0.1", True, "python3"),
        port(5173, "tcp", "::", False, "node"),
        port(5353, "udp", "100.64.0.3"),
    ]


def test_hostile_words_are_bounded() -> None:
    many = "".join(f"tcp LISTEN 0 5 127.0.0.1:{port} 0.0.0.0:*\n" for port in range(1, 5000))
    assert len(listening(many)) == PORTS_SHOWN
    assert listening("tcp LISTEN 0 5 evil:3000 x\ntcp LISTEN 0 5 127.0.0.1:99999 x\n\x1b]0;\x07\ntcp\n") == []
    (one,) = listening('tcp LISTEN 0 5 127.0.0.1:3000 0.0.0.0:* users:(("\x1b[31mx",pid=1,fd=1))')
    assert one.process is None
