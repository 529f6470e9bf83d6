"""
A fake OpenStack on loopback, with the parts of Keystone, Neutron, Nova, Cinder and Magnum that the
real Terraform provider uses. Like the real services, it rejects overlapping subnets, addresses
outside their subnet, and IPv6 ranges in rules for IPv4.
"""

import contextlib
import ipaddress
import json
import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Thing = dict[str, Any]
NAMES = {
    "networks": "network",
    "subnets": "subnet",
    "routers": "router",
    "ports": "port",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
    "floatingips": "floatingip",
    "servers": "server",
    "os-server-groups": "server_group",
    "volumes": "volume",
    "flavors": "flavor",
    "images": "image",
}
"""What one thing of a kind is called in bodies; several add an s."""
FLAVORS = {
    "m1.small": (1, 2048),
    "m1.large": (4, 8192),
    "c1.large": (4, 16384),
    "g1.large": (4, 32768),
    "m1.xlarge": (8, 16384),
}
SERVICES = {
    "network": "/net",
    "compute": "/nova/v2.1",
    "image": "/glance",
    "volumev3": "/cinder/v3/p",
    "block-storage": "/cinder/v3/p",
    "identity": "/v3",
    "container-infra": "/magnum/v1",
    "container-infrastructure-management": "/magnum/v1",
}
_TIME = "2026-01-01T00:00:00Z"
_MAC = "fa:16:3e:00:00:01"


class RefusedError(Exception):
    """The request violates a rule of the cloud."""


class Cloud:
    """The resources of a project, by kind and id."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Thing]] = {}
        self.base = ""
        self.add("networks", {"name": "public", "router:external": True, "admin_state_up": True})
        self.things["images"] = {"img": {"id": "img", "name": "debian-13", "status": "active"}}
        for name, (cores, ram) in FLAVORS.items():
            public = {"os-flavor-access:is_public": True, "OS-FLV-EXT-DATA:ephemeral": 0}
            sizes = {"vcpus": cores, "ram": ram, "disk": 40, "swap": "", "rxtx_factor": 1}
            self.add("flavors", {"name": name, **sizes, **public})

    def add(self, kind: str, facts: Thing) -> Thing:
        """Create a resource, with the common fields of every service."""
        status = "available" if kind == "volumes" else "ACTIVE"
        thing = {
            "id": str(uuid.uuid4()),
            "tenant_id": "p",
            "project_id": "p",
            "tags": [],
            "status": status,
            "device_id": "",
            "device_owner": "",
            "mac_address": _MAC,
            "attachments": [],
            "metadata": {},
            **facts,
        }
        self.things.setdefault(kind, {})[thing["id"]] = thing
        return thing

    def scale(self, nodes: int) -> None:
        """Change the number of nodes of every cluster, as an autoscaler does."""
        for cluster in self.things["clusters"].values():
            cluster["node_count"] = nodes

    def check(self, kind: str, thing: Thing) -> None:
        """
        Check a resource against the rules of the real services.

        Raises:
            RefusedError: It breaks one.
        """
        if kind == "subnets":
            mine = ipaddress.ip_network(thing["cidr"])
            for other in self.things.get(kind, {}).values():
                same = other["network_id"] == thing["network_id"] and other is not thing
                if same and mine.overlaps(ipaddress.ip_network(other["cidr"])):
                    raise RefusedError(f"Requested subnet {mine} overlaps with {other['cidr']}")
        if kind == "ports":
            for ip in thing.get("fixed_ips", []):
                cidr = self.things["subnets"][ip["subnet_id"]]["cidr"]
                if ipaddress.ip_address(ip["ip_address"]) not in ipaddress.ip_network(cidr):
                    raise RefusedError(f"IP address {ip['ip_address']} is not valid for {cidr}")
        if kind == "security-group-rules" and thing.get("remote_ip_prefix"):
            network = ipaddress.ip_network(thing["remote_ip_prefix"], strict=False)
            if network.version != int(thing["ethertype"][-1]):
                raise RefusedError("Conflicting value ethertype for remote_ip_prefix")

    def complete(self, kind: str, facts: Thing) -> Thing:
        """Add the fields that the service itself sets."""
        match kind:
            case "security-groups":
                return facts | {"security_group_rules": [], "stateful": True}
            case "os-server-groups":
                policies = facts.get("policies") or [facts.get("policy")]
                return facts | {"policies": policies, "members": []}
            case "routers":
                return facts | {"routes": [], "ha": False}
            case "subnets":
                network = ipaddress.ip_network(facts["cidr"])
                pool = {"start": str(network[2]), "end": str(network[-2])}
                decided = {"gateway_ip": str(network[1]), "enable_dhcp": True}
                lists = {"allocation_pools": [pool], "host_routes": [], "service_types": []}
                return facts | decided | lists
            case "floatingips":
                number = len(self.things.get(kind, {}))
                inner = self.things["ports"][facts["port_id"]]["fixed_ips"][0]["ip_address"]
                addresses = {"floating_ip_address": f"203.0.113.{10 + number}"}
                return facts | addresses | {"fixed_ip_address": inner}
            case "servers":
                return self._server(facts)
        return facts

    def _server(self, facts: Thing) -> Thing:
        networks = facts.pop("networks")
        addresses: dict[str, list[Thing]] = {}
        for port in (self.things["ports"][network["port"]] for network in networks):
            name = self.things["networks"][port["network_id"]]["name"]
            mine = {"addr": port["fixed_ips"][0]["ip_address"], "version": 4}
            kinds = {"OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": _MAC}
            addresses.setdefault(name, []).append(mine | kinds)
        return facts | {
            "flavor": {"id": facts.pop("flavorRef")},
            "image": {"id": facts.pop("imageRef")},
            "addresses": addresses,
            "wanted": networks,
            "security_groups": [],
            "created": _TIME,
            "updated": _TIME,
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:power_state": 1,
            "OS-EXT-AZ:availability_zone": facts.get("availability_zone"),
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _say(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        try:
            self._route(split.path.rstrip("/"), query, json.loads(raw or b"{}"))
        except RefusedError as fault:
            self._say(400, {"NeutronError": {"type": "BadRequest", "message": str(fault)}})
        except KeyError as fault:
            self._say(404, {"error": {"message": f"no {fault}"}})

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 - base class

    def _route(self, path: str, query: dict[str, str], body: Any) -> None:
        if path in {"", "/v3"} and self.command == "GET":
            links = [{"rel": "self", "href": f"{self.cloud.base}/v3/"}]
            v3 = {"id": "v3.14", "status": "stable", "links": links}
            return self._say(200, {"version": v3} if path else {"versions": {"values": [v3]}})
        if path == "/v3/auth/tokens":
            return self._say(201, self._token(), {"X-Subject-Token": "t"})
        path = re.sub(r"^/(net/v2.0|nova/v2.1|glance/v2|cinder/v3/p|magnum/v1)/", "", path)
        kind, identity, *more = [*path.split("/"), ""]
        more = [part for part in more if part]
        if kind in {"clusters", "certificates", "clustertemplates"}:
            return self._magnum(kind, identity, more, body)
        if more and kind == "routers":
            return self._interface(identity, more[0], body)
        if more and kind == "servers":
            return self._part_of_server(identity, more, body)
        if more and kind == "flavors":
            return self._say(200, {"extra_specs": {}})
        if more and kind == "volumes":
            return self._say(202)
        if self.command == "POST":
            return self._create(kind, body)
        if identity in {"", "detail"}:
            return self._list(kind, query)
        return self._one(kind, identity, body)

    def _token(self) -> Thing:
        domain = {"id": "default", "name": "Default"}
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "interface": interface,
                        "region": "R",
                        "region_id": "R",
                        "id": f"{kind}-{interface}",
                        "url": self.cloud.base + path,
                    }
                    for interface in ("public", "internal", "admin")
                ],
            }
            for kind, path in SERVICES.items()
        ]
        times = {"expires_at": "2099-01-01T00:00:00.000000Z", "issued_at": _TIME}
        who = {
            name: {"id": name[0], "name": name[0], "domain": domain} for name in ("user", "project")
        }
        return {"token": {"methods": ["password"], "roles": [], "catalog": catalog, **times, **who}}

    def _create(self, kind: str, body: Any) -> None:
        one = NAMES[kind]
        facts = self.cloud.complete(kind, dict(body[one]))
        self.cloud.check(kind, facts)
        status = {"servers": 202, "volumes": 202, "os-server-groups": 200}.get(kind, 201)
        self._say(status, {one: self.cloud.add(kind, facts)})

    def _list(self, kind: str, query: dict[str, str]) -> None:
        asked = ("name", "id", "network_id", "device_id", "port_id", "fixed_ips")
        found = list(self.cloud.things.get(kind, {}).values())
        for name in asked:
            found = [t for t in found if name not in query or str(t.get(name)) == query[name]]
        if query.get("router:external") == "true":
            found = [t for t in found if t.get("router:external")]
        self._say(200, {f"{NAMES[kind]}s": [] if "marker" in query else found})

    def _one(self, kind: str, identity: str, body: Any) -> None:
        thing = self.cloud.things.get(kind, {})[identity]
        if self.command == "DELETE":
            del self.cloud.things[kind][identity]
            return self._say(204)
        if self.command == "PUT":
            thing.update(body.get(NAMES[kind], {}))
            self.cloud.check(kind, thing)
        return self._say(200, thing if kind == "images" else {NAMES[kind]: thing})

    def _interface(self, router: str, verb: str, body: Any) -> None:
        ports, subnets = self.cloud.things.setdefault("ports", {}), self.cloud.things["subnets"]
        if verb == "remove_router_interface":
            for port in list(ports.values()):
                of_subnet = port["fixed_ips"][0]["subnet_id"] == body.get("subnet_id")
                if port["device_id"] == router and of_subnet:
                    del ports[port["id"]]
            return self._say(200, {"id": router})
        subnet = subnets[body["subnet_id"]]
        address = {"subnet_id": subnet["id"], "ip_address": subnet["gateway_ip"]}
        facts = {
            "device_id": router,
            "device_owner": "network:router_interface",
            "name": "",
            "network_id": subnet["network_id"],
            "fixed_ips": [address],
            "admin_state_up": True,
        }
        port = self.cloud.add("ports", facts)
        said = {"id": router, "port_id": port["id"], "subnet_id": subnet["id"], "tenant_id": "p"}
        return self._say(200, said)

    def _part_of_server(self, identity: str, more: list[str], body: Any) -> None:
        server = self.cloud.things["servers"][identity]
        if more[0] == "os-volume_attachments":
            return self._attachment(identity, more[1:], body)
        if more[0] == "os-interface":
            ports = [self.cloud.things["ports"][network["port"]] for network in server["wanted"]]
            attached = [
                {
                    "port_id": port["id"],
                    "net_id": port["network_id"],
                    "port_state": "ACTIVE",
                    "mac_addr": _MAC,
                    "fixed_ips": port["fixed_ips"],
                }
                for port in ports
            ]
            return self._say(200, {"interfaceAttachments": attached})
        return self._say(200, {"tags": []})

    def _attachment(self, server: str, more: list[str], body: Any) -> None:
        identity = more[0] if more else body["volumeAttachment"]["volumeId"]
        volume = self.cloud.things["volumes"][identity]
        if not more:
            volume |= {"status": "in-use", "attachments": [{"server_id": server}]}
        elif self.command == "DELETE":
            volume |= {"status": "available", "attachments": []}
            return self._say(202)
        elif volume["status"] != "in-use":
            raise KeyError(identity)
        ids = {"id": identity, "volumeId": identity, "serverId": server, "device": "/dev/vdb"}
        return self._say(200, {"volumeAttachment": ids})

    def _magnum(self, kind: str, identity: str, more: list[str], body: Any) -> None:
        clusters = self.cloud.things.setdefault("clusters", {})
        if kind == "clustertemplates":
            return self._say(
                200, {"uuid": identity, "name": "t", "labels": {}, "coe": "kubernetes"}
            )
        if kind == "certificates":
            pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
            status = 201 if self.command == "POST" else 200
            return self._say(status, {"pem": pem, "cluster_uuid": identity, "csr": ""})
        if self.command == "POST":
            key = str(uuid.uuid4())
            made = {"uuid": key, "status": "CREATE_COMPLETE", "project_id": "p", "user_id": "u"}
            times = {"created_at": "2026-01-01T00:00:00+00:00", "updated_at": None}
            clusters[key] = {**made, **times, "api_address": "https://192.0.2.9:6443", **body}
            return self._say(202, {"uuid": key})
        cluster = clusters[identity]
        if more:
            groups = [
                {
                    "uuid": role,
                    "name": f"default-{role}",
                    "role": role,
                    "is_default": True,
                    "cluster_id": identity,
                    "node_count": cluster[count],
                }
                for role, count in (("master", "master_count"), ("worker", "node_count"))
            ]
            return self._say(200, {"nodegroups": groups})
        return self._say(200, cluster)


@contextlib.contextmanager
def running() -> Iterator[Cloud]:
    """Serve a new cloud on loopback while the body runs."""
    cloud = Cloud()
    handler = type("Handler", (_Handler,), {"cloud": cloud})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        cloud.base = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield cloud
        finally:
            server.shutdown()
            thread.join()
