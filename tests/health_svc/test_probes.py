"""Allowed hosts and addresses, and the results of probes."""

from datetime import timedelta

import pytest

from health_svc.addresses import is_public
from health_svc.errors import HostNotAllowedError, InvalidParametersError
from health_svc.probes import Prober
from tests.health_svc.fakes import FakeNetwork

HOST = "portal.example.org"
PUBLIC = "93.184.216.34"
OTHER = "2606:2800:220:1:248:1893:25c8:1946"
SHORT = timedelta(milliseconds=50)


def prober(network: FakeNetwork, *, allow_private: bool = False) -> Prober:
    return Prober(network, frozenset({HOST}), allow_private=allow_private)


class TestAllowList:
    @pytest.mark.parametrize(
        "host",
        ["example.org", f"{HOST}.evil.com", f"evil-{HOST}", "127.0.0.1", "localhost"],
        ids=["parent", "suffix", "prefix", "address", "localhost"],
    )
    async def test_other_host(self, host: str) -> None:
        """A host that is not on the list is rejected before any name resolution."""
        network = FakeNetwork({host: (PUBLIC,)}, alive=frozenset({PUBLIC}))

        with pytest.raises(HostNotAllowedError):
            await prober(network).probe(host, 443)

        assert [] == network.lookups

    @pytest.mark.parametrize(
        "host", ["", "https://x.org", "x.org:443", "x.org/a", "-x.org", "a..b", "x\n.org", "é.org"]
    )
    async def test_no_host_name(self, host: str) -> None:
        """A malformed host name is an invalid parameter."""
        with pytest.raises(InvalidParametersError):
            await prober(FakeNetwork({})).probe(host, 443)

    @pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}."])
    async def test_spelling(self, host: str) -> None:
        """Case and a final dot are ignored; the response repeats the requested name."""
        network = FakeNetwork({HOST: (PUBLIC,)}, alive=frozenset({PUBLIC}))

        found = await prober(network).probe(host, 443)

        assert found.online
        assert host == found.host


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "10.0.0.8",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1%eth0",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "192.0.0.192",
            "168.63.129.16",
            "198.18.0.1",
            "::7f00:1",
            "::5db8:d822",
            "::ffff:0:93.184.216.34",
            "64:ff9b:1::808:808",
            "fec0::1",
            "3fff::1",
            "5f00::1",
            "100::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2002:5db8:d822::",
        ],
    )
    def test_not_public(self, address: str) -> None:
        """Special-purpose networks of the IANA registries are not public, on any Python."""
        assert not is_public(address)

    @pytest.mark.parametrize(
        "address",
        [PUBLIC, OTHER, "::ffff:93.184.216.34", "64:ff9b::808:808", "2606:4700::1111", "192.1.0.1"],
    )
    def test_public(self, address: str) -> None:
        """Addresses of the public Internet are public."""
        assert is_public(address)

    async def test_one_private(self) -> None:
        """One private address among public ones rejects the host without connecting."""
        network = FakeNetwork({HOST: (PUBLIC, "10.0.0.1")}, alive=frozenset({PUBLIC, "10.0.0.1"}))

        with pytest.raises(HostNotAllowedError):
            await prober(network).probe(HOST, 443)

        assert [] == network.connections

    async def test_one_look_up(self) -> None:
        """The name is resolved once, even when the probe connects twice."""
        network = FakeNetwork(
            {HOST: (PUBLIC,)}, alive=frozenset({PUBLIC}), untrusted=frozenset({PUBLIC})
        )

        await prober(network).probe(HOST, 443)

        assert [HOST] == network.lookups
        assert [PUBLIC, PUBLIC] == [connection.address for connection in network.connections]

    async def test_private_when_allowed(self) -> None:
        """Outside production private addresses may be allowed."""
        network = FakeNetwork({HOST: ("127.0.0.1",)}, alive=frozenset({"127.0.0.1"}))

        assert (await prober(network, allow_private=True).probe(HOST, 443)).online


class TestFindings:
    async def test_second_address(self) -> None:
        """When the first address hangs, the next one is tried within the same timeout."""
        network = FakeNetwork(
            {HOST: (OTHER, PUBLIC)}, alive=frozenset({PUBLIC}), hanging=frozenset({OTHER})
        )

        found = await prober(network).probe(HOST, 443, timeout=SHORT)

        assert found.online
        assert [PUBLIC] == [connection.address for connection in network.connections]

    async def test_unknown_name(self) -> None:
        """A name without an address is offline, with the reason."""
        found = await prober(FakeNetwork({})).probe(HOST, 443)

        assert not found.online
        assert "the name has no address" == found.tcp.error
        assert found.tcp.latency_ms is None
        assert not found.tls.ok

    async def test_time_out(self) -> None:
        """A host that never responds is offline after the timeout."""
        network = FakeNetwork({HOST: (PUBLIC,)}, hanging=frozenset({PUBLIC}))

        found = await prober(network).probe(HOST, 443, timeout=SHORT)

        assert "timed out" == found.tcp.error

    async def test_call_ends_first(self) -> None:
        """The remaining deadline of the call bounds both steps, whatever the timeout."""
        network = FakeNetwork({HOST: (PUBLIC,)}, hanging=frozenset({PUBLIC}))

        found = await prober(network).probe(HOST, 443, timeout=timedelta(days=1), within=SHORT)

        assert "timed out" == found.tcp.error

    async def test_untrusted(self) -> None:
        """An untrusted certificate leaves the host online, not authorized, and is shown."""
        network = FakeNetwork(
            {HOST: (PUBLIC,)}, alive=frozenset({PUBLIC}), untrusted=frozenset({PUBLIC})
        )

        found = await prober(network).probe(HOST, 443)

        assert found.online
        assert not found.tls.authorized
        assert "self-signed certificate" == found.tls.error
        assert found.tls.handshake is not None
        assert all(connection.closed for connection in network.connections)
