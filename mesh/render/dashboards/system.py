"""Dashboard of the processes and their hosts."""

from mesh.chassis.telemetry import names
from mesh.render.dashboards.panel import Board, Chart, Figure, Unit

_MESH = 'job="amarre"'
_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'


def board() -> Board:
    """Return the dashboard."""
    return Board(
        uid="amarre-system",
        title="AMARRE / System",
        about="Processes and hosts: availability, load, usage.",
        rows=(("Processes", _PROCESSES), ("Hosts", _HOSTS)),
    )


_PROCESSES = (
    Figure(
        "Processes up",
        f"sum(up{{{_MESH}}})",
        about="Processes of the mesh that respond to scrapes.",
    ),
    Figure("Processes down", f"sum(1 - up{{{_MESH}}})"),
    Figure(
        "Restarts, 24 hours", f"sum(changes(process_start_time_seconds{{{_MESH}}}[1d]))", span=4
    ),
    Figure(
        "Longest uptime",
        f"time() - min(process_start_time_seconds{{{_MESH}}})",
        Unit.SECONDS,
    ),
    # Not by job: on Kubernetes a proxy and its process are scraped as one.
    Figure("Proxies", "count(envoy_server_live == 1)"),
    Figure("Active users, 15 minutes", f"max({names.USERS_ACTIVE})"),
    Chart(
        "CPU by process",
        {"{{process}}": f"rate(process_cpu_seconds_total{{{_MESH}}}[$__rate_interval])"},
        Unit.SHARE,
        limit=0.8,
        about="Share of one CPU; a Python process cannot use much more than one.",
    ),
    Chart(
        "Memory by process",
        {
            "{{process}}": f"process_resident_memory_bytes{{{_MESH}}}",
            "{{workload}} proxy": "envoy_server_memory_allocated",
        },
        Unit.BYTES,
    ),
    Chart(
        "Event loop delay, 95th percentile",
        {
            "{{process}}": "histogram_quantile(0.95, sum by (process, le) "
            f"(rate({names.EVENT_LOOP_LAG}_bucket[$__rate_interval])))"
        },
        Unit.SECONDS,
        limit=0.25,
    ),
    Chart(
        "Open files",
        {"{{process}}": f"process_open_fds{{{_MESH}}} / process_max_fds{{{_MESH}}}"},
        Unit.SHARE,
        limit=0.8,
    ),
    Chart("Database connections", {"{{process}}": names.DB_CONNECTIONS}),
    Chart(
        "Database statement duration, 95th percentile",
        {
            "{{process}} {{operation}}": (
                "histogram_quantile(0.95, sum by (process, operation, le) "
                f"(rate({names.DB_DURATION}_bucket[$__rate_interval])))"
            )
        },
        Unit.SECONDS,
        exemplars=True,
    ),
)

_HOSTS = (
    Chart(
        "CPU by host",
        {
            "{{instance}}": "1 - avg by (instance) "
            '(rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))'
        },
        Unit.SHARE,
        limit=0.8,
    ),
    Chart(
        "Memory used",
        {"{{instance}}": "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"},
        Unit.SHARE,
        limit=0.9,
    ),
    Chart(
        "Disk space used",
        {
            "{{instance}} {{mountpoint}}": "1 - max by (instance, mountpoint) "
            f"(node_filesystem_avail_bytes{{{_DISKS}}} / node_filesystem_size_bytes{{{_DISKS}}})"
        },
        Unit.SHARE,
        limit=0.9,
    ),
    Chart(
        "Network",
        {
            "{{instance}} in": "sum by (instance) "
            '(rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))',
            "{{instance}} out": "sum by (instance) "
            '(rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))',
        },
        Unit.BYTES_RATE,
        span=12,
    ),
    Chart(
        "Disk utilization",
        {
            "{{instance}} {{device}}": "rate(node_disk_io_time_seconds_total[$__rate_interval])",
        },
        Unit.SHARE,
        span=12,
    ),
)
