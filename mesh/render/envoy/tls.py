"""
mTLS between sidecars: TLS 1.3, exact SPIFFE ids on both sides, secrets in watched files.

Source:
    SPIFFE X509-SVID, section 5 (validation).
"""

from typing import Any

from mesh.contract.faults import WORKLOADS
from mesh.render.envoy.proxy import Edge, Proxy, dns_name, spiffe_id, typed

_TLS = "envoy.extensions.transport_sockets.tls.v3"
_ONLY_1_3 = {
    "tls_minimum_protocol_version": "TLSv1_3",
    "tls_maximum_protocol_version": "TLSv1_3",
    # An RSA key of 1024 bits is too short for a PSS signature with SHA-512 (RFC 8017, 9.1.1).
    "signature_algorithms": [
        *("ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384", "ed25519", "rsa_pss_rsae_sha512")
    ],
}
SVID, BUNDLE, EDGE = "svid", "bundle", "edge"
"""Names of the secrets, and of their files in ``secrets/``."""


def from_peers(proxy: Proxy) -> dict[str, Any]:
    """Return the transport socket of the inbound listener: mTLS, only workloads of this mesh."""
    everyone = [spiffe_id(name) for name in sorted(WORKLOADS)]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            f"{_TLS}.DownstreamTlsContext",
            require_client_certificate=True,
            common_tls_context=_mutual(proxy, everyone),
        ),
    }


def to_peer(proxy: Proxy, service: str) -> dict[str, Any]:
    """Return the transport socket to *service*, which must present exactly its own identity."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            f"{_TLS}.UpstreamTlsContext",
            sni=dns_name(service),
            common_tls_context=_mutual(proxy, [spiffe_id(service)]),
        ),
    }


def from_browsers(proxy: Proxy) -> dict[str, Any]:
    """Return the transport socket of the HTTPS edge."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            f"{_TLS}.DownstreamTlsContext",
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [_secret(proxy, EDGE)],
            },
        ),
    }


def _mutual(proxy: Proxy, identities: list[str]) -> dict[str, Any]:
    return {
        "alpn_protocols": ["h2"],
        "tls_params": _ONLY_1_3,
        "tls_certificate_sds_secret_configs": [_secret(proxy, SVID)],
        "combined_validation_context": {
            "default_validation_context": {
                # The root is the only CA (path length 0), and TLS libraries ignore its path length.
                "max_verify_depth": 1,
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": identity}} for identity in identities
                ],
            },
            "validation_context_sds_secret_config": _secret(proxy, BUNDLE),
        },
    }


def _secret(proxy: Proxy, name: str) -> dict[str, Any]:
    path = f"{proxy.folder}/secrets/{name}.yaml"
    return {
        "name": name,
        "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"},
    }


def certificate(name: str, folder: str) -> dict[str, Any]:
    """Return the secret *name*: the certificate in *folder*, reloaded when its link changes."""
    return _resource(
        name,
        "tls_certificate",
        {
            "certificate_chain": {"filename": f"{folder}/..data/tls.crt"},
            "private_key": {"filename": f"{folder}/..data/tls.key"},
            "watched_directory": {"path": folder},
        },
    )


def bundle(folder: str) -> dict[str, Any]:
    """Return the secret with the trusted roots."""
    return _resource(
        BUNDLE,
        "validation_context",
        {
            "trusted_ca": {"filename": f"{folder}/..data/ca.crt"},
            "watched_directory": {"path": folder},
        },
    )


def secrets(proxy: Proxy) -> dict[str, dict[str, Any]]:
    """Return the secret files of *proxy*, by name."""
    found = {SVID: certificate(SVID, proxy.svid_dir), BUNDLE: bundle(proxy.svid_dir)}
    if isinstance(proxy.edge, Edge) and proxy.edge.https:
        found[EDGE] = certificate(EDGE, proxy.edge.tls_dir)
    return found


def _resource(name: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"resources": [typed(f"{_TLS}.Secret", name=name, **{kind: content})]}
