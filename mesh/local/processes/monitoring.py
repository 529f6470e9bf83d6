"""Prometheus and Alertmanager for the local mesh, if installed.

The rules are those of production; alert mails go to the outbox. Scrape targets are in separate
files, because replicas and canaries come and go.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mesh import topology
from mesh.contract import policy
from mesh.local import files
from mesh.local.data_folder import DataFolder
from mesh.local.processes.environment import monitoring_programs
from mesh.local.processes.plan import Plan, Unit
from mesh.render import rules
from mesh.render.rules import alertmanager, scraping
from mesh.render.rules.alertmanager import Delivery
from mesh.render.rules.scraping import Target
from mesh.topology import Kind, Probe, Process, Stage

RETENTION = "7d"
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


class Monitoring:
    """The two servers of one local mesh."""

    def __init__(self, data_folder: DataFolder, plan: Plan) -> None:
        self._folder = data_folder.data / "monitoring"
        self._state = data_folder.state
        self._scraped = data_folder.scraped
        self._plan = plan
        self.programs = monitoring_programs()
        """Paths of the installed servers."""

    def units(self) -> tuple[Unit, ...]:
        """Return the units of the installed servers."""
        return tuple(self._unit(name) for name in self.programs)

    def prepare(self) -> None:
        """Write the servers' configuration.

        Raises:
            OSError: It cannot be written.
        """
        address = self._plan.addresses.address
        _write(
            self._folder,
            {
                **rules.rule_files(
                    policy.load(), runbooks=f"http://{address(topology.CONSOLE)}/runbooks"
                ),
                "prometheus.yaml": scraping.configuration(
                    alertmanager=address(topology.ALERTMANAGER), from_files=True
                ),
                "alertmanager.yaml": alertmanager.configuration(
                    Delivery(smtp=address(topology.SMTP), domain="example.org")
                ),
                alertmanager.TEMPLATES: alertmanager.texts(),
                **scraping.target_files(()),
            },
        )
        (self._folder / "applications").mkdir(exist_ok=True)
        self._write_console_targets(self._plan.units)

    def follow(self, units: Iterable[Unit]) -> None:
        """Update the scrape targets; Prometheus and the console reload them at once."""
        known = list(units)
        _write(self._folder, scraping.target_files(_targets(known)))
        self._write_console_targets(known)

    def _write_console_targets(self, units: Iterable[Unit]) -> None:
        paths = {"amarre": "/metrics", "envoy": ""}
        found = [
            {"process": target.process, "url": f"http://{target.address}{paths[target.job]}"}
            for target in _targets(units)
        ]
        _write(self._state, {self._scraped.name: json.dumps(found, indent=2)})

    def _unit(self, name: str) -> Unit:
        offset = getattr(topology, name.upper())
        process = Process(
            name=name,
            kind=Kind.BACKEND,
            module="",
            port=offset,
            probe=Probe.HTTP,
            probe_path="/-/ready",
            stage=Stage.LOCAL,
        )
        return Unit(
            process=process,
            name=name,
            replica=1,
            port=self._plan.addresses.port(offset),
            command=(
                self.programs[name],
                *self._arguments(name, self._plan.addresses.address(offset)),
            ),
            environment={key: os.environ[key] for key in _KEPT if key in os.environ},
            kind=process.kind,
            probe=process.probe,
            probe_target=f"http://{self._plan.addresses.address(offset)}",
        )

    def _arguments(self, name: str, address: str) -> tuple[str, ...]:
        common = (
            f"--config.file={self._folder / name}.yaml",
            f"--web.listen-address={address}",
            f"--web.external-url=http://{address}/",
            "--log.level=warn",
            "--log.format=json",
        )
        if name == "alertmanager":
            return (*common, f"--storage.path={self._state / name}", "--cluster.listen-address=")
        return (
            *common,
            f"--storage.tsdb.path={self._state / name}",
            f"--storage.tsdb.retention.time={RETENTION}",
            "--enable-feature=exemplar-storage",
        )


def _targets(units: Iterable[Unit]) -> Iterator[Target]:
    for unit in units:
        workload = unit.process.identity
        listen = unit.environment.get("AMARRE_METRICS_LISTEN")
        if unit.proxy is not None:
            yield Target("envoy", unit.name, workload, unit.proxy.admin)
        elif listen:
            yield Target("amarre", unit.name, workload, listen)


def _write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        files.write(folder / name, text)
