"""Command-line arguments and default environment variables of each process."""

import json
import shutil

from mesh import topology
from mesh.local.addresses import HOST, Addresses
from mesh.topology import Process

OPERATOR = "operator@example.org"
"""The operator of a local mesh, unless ``AMARRE_AUTH_OPERATORS`` names others."""


def arguments(addresses: Addresses, process: Process) -> tuple[str, ...]:
    """Return the command-line arguments of *process*."""
    state, data_folder = addresses.data_folder.state, addresses.data_folder
    match process.name:
        case "redcap":
            return (
                *("--listen", addresses.address(topology.REDCAP)),
                *("--base-url", f"http://{addresses.address(topology.REDCAP)}"),
                *("--database", str(state / "redcap.sqlite")),
                *("--token-file", str(data_folder.secret("redcap-token"))),
                *("--super-token-file", str(data_folder.secret("redcap-super-token"))),
            )
        case "outbox":
            return (
                *("--http", addresses.address(topology.OUTBOX)),
                *("--smtp", addresses.address(topology.SMTP)),
                *("--database", str(state / "outbox.sqlite")),
            )
        case _:
            return ()


def defaults(addresses: Addresses, process: Process) -> dict[str, str]:
    """Return default variables of *process*; the user's environment overrides them."""
    state, data_folder = addresses.data_folder.state, addresses.data_folder
    match process.name:
        case "auth":
            return {
                "AMARRE_AUTH_DATABASE": f"sqlite+aiosqlite:///{state / 'auth.sqlite'}",
                "AMARRE_AUTH_SIGNING_KEY_FILE": str(data_folder.secret("auth-signing-key.pem")),
                "AMARRE_AUTH_KEY_SET_LISTEN": f"unix:{addresses.key_set}",
                "AMARRE_AUTH_SMTP_URL": f"smtp://{addresses.address(topology.SMTP)}",
                "AMARRE_AUTH_LINK_URL": f"{addresses.app}/login",
                "AMARRE_AUTH_PASSKEY_ORIGINS": f"{addresses.app},{addresses.app_tls}",
                "AMARRE_AUTH_OPERATORS": OPERATOR,
                "AMARRE_AUTH_CONSOLE_URL": f"http://{addresses.address(topology.CONSOLE)}",
                "AMARRE_AUTH_CONSOLE_TOKEN_FILE": str(data_folder.secret("console-token")),
            }
        case "survey":
            return {
                "AMARRE_SURVEY_REDCAP_URL": f"http://{addresses.address(topology.REDCAP)}/api/",
                "AMARRE_SURVEY_REDCAP_TOKEN_FILE": str(data_folder.secret("redcap-token")),
                "AMARRE_SURVEY_STORE": f"sqlite+aiosqlite:///{state / 'survey.sqlite'}",
            }
        case "health":
            return {
                "AMARRE_HEALTH_BACKENDS": json.dumps(
                    {
                        other.name: f"http://{addresses.address(other.port)}{other.probe_path}"
                        for other in map(topology.process, ("redcap", "outbox"))
                    }
                ),
            }
        case "gateway":
            hosts = (HOST, "localhost")
            origins = [f"http://{h}:{addresses.port(topology.EDGE_HTTP)}" for h in hosts]
            origins += [f"https://{h}:{addresses.port(topology.EDGE_HTTPS)}" for h in hosts]
            return {
                "AMARRE_GATEWAY_HTTP_LISTEN": addresses.address(topology.EDGE_HTTP),
                "AMARRE_GATEWAY_HTTPS_LISTEN": addresses.address(topology.EDGE_HTTPS),
                "AMARRE_GATEWAY_TLS_DIR": str(data_folder.certs / "edge"),
                "AMARRE_GATEWAY_ORIGINS": ",".join(origins),
            }
        case "console":
            return {
                "AMARRE_CONSOLE_LISTEN": addresses.address(topology.CONSOLE),
                "AMARRE_CONSOLE_OTLP_GRPC": addresses.address(topology.OTLP_GRPC),
                "AMARRE_CONSOLE_OTLP_HTTP": addresses.address(topology.OTLP_HTTP),
                "AMARRE_CONSOLE_DATABASE": str(state / "console.sqlite"),
                "AMARRE_CONSOLE_TOKEN_FILE": str(data_folder.secret("console-token")),
                "AMARRE_CONSOLE_CONTROL": str(data_folder.control),
                "AMARRE_CONSOLE_SCRAPE_FILE": str(data_folder.scraped),
                **_alerting(addresses),
            }
        case _:
            return {}


def _alerting(addresses: Addresses) -> dict[str, str]:
    """Return the URLs of Prometheus and Alertmanager for the console."""
    ports = {"prometheus": topology.PROMETHEUS, "alertmanager": topology.ALERTMANAGER}
    return {
        f"AMARRE_CONSOLE_{name.upper()}": f"http://{addresses.address(ports[name])}"
        for name in monitoring_programs()
    }


def monitoring_programs() -> dict[str, str]:
    """Return the paths of Prometheus and Alertmanager, if installed."""
    found = {}
    for name, programs in topology.MONITORING.items():
        paths = [path for program in programs if (path := shutil.which(program))]
        if paths:
            found[name] = paths[0]
    return found
