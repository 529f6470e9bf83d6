"""The policy model, and each contradiction that it rejects."""

from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format

from mesh.contract import policy
from mesh.contract.faults import PolicyError
from mesh.contract.policy import Mesh

PROTOS = Path(__file__).parents[3] / "protos"
GOOD_POLICY = """
  callers: "gateway"
  deadline { seconds: 2 }
  session: SESSION_RULE_NONE
  objective { availability: 0.999 latency { seconds: 1 } }
"""
GOOD_SERVICE = """
  max_concurrent_requests: 10
  max_pending_requests: 10
  outlier {
    consecutive_failures: 5 interval { seconds: 1 } base_ejection_time { seconds: 5 }
    max_ejection_percent: 50
  }
"""


def read(
    method_policy: str | None = GOOD_POLICY,
    *,
    options: str = "",
    service_policy: str = GOOD_SERVICE,
    field: str = "",
) -> Mesh:
    """Read a contract with one method with this policy."""
    if method_policy is not None:
        options += f"[amarre.mesh.v1.policy] {{ {method_policy} }}"
    file = text_format.Parse(
        f"""
        name: "amarre/health/v1/trial_service.proto"
        package: "amarre.health.v1"
        syntax: "proto3"
        dependency: "amarre/mesh/v1/policy.proto"
        dependency: "google/api/annotations.proto"
        dependency: "buf/validate/validate.proto"
        message_type {{ name: "TryRequest" {field} }}
        message_type {{ name: "TryResponse" }}
        service {{
          name: "TrialService"
          method {{
            name: "Try"
            input_type: ".amarre.health.v1.TryRequest"
            output_type: ".amarre.health.v1.TryResponse"
            options {{ {options} }}
          }}
          options {{ [amarre.mesh.v1.service_policy] {{ {service_policy} }} }}
        }}
        """,
        descriptor_pb2.FileDescriptorProto(),
    )
    pool = descriptor_pool.DescriptorPool()
    for known in policy.image().file:
        pool.Add(known)
    pool.Add(file)
    return policy.read([pool.FindFileByName(file.name)])


def pattern(accepts: str = "", *, items: bool = False) -> str:
    """Return a field with a pattern, and with words for it."""
    rules = 'string { pattern: "^[a-z]$" }'
    if items:
        rules = f"repeated {{ items {{ {rules} }} }}"
    return f"""field {{
      name: "letter" number: 1 type: TYPE_STRING
      label: {"LABEL_REPEATED" if items else "LABEL_OPTIONAL"}
      options {{ [buf.validate.field] {{ {rules} }} {accepts} }}
    }}"""


@pytest.mark.parametrize("items", [False, True])
def test_pattern_without_words(items: bool) -> None:
    """
    A pattern needs words for the caller who breaks it, also in the items of a list.
    """
    read(field=pattern('[amarre.mesh.v1.accepts]: "a letter"', items=items))
    with pytest.raises(PolicyError) as ei:
        read(field=pattern(items=items))

    assert ["AM017"] == [fault.number for fault in ei.value.faults]
    assert "TryRequest.letter" in str(ei.value)


GET = '[google.api.http] { get: "/api/v1/try" } '
PUT = '[google.api.http] { put: "/api/v1/try" } '


@pytest.mark.parametrize(
    ("number", "method_policy", "options"),
    [
        ("AM001", None, ""),
        ("AM002", GOOD_POLICY.replace('"gateway"', '"stranger"'), ""),
        ("AM002", GOOD_POLICY.replace('callers: "gateway"', ""), ""),
        ("AM003", GOOD_POLICY.replace("deadline { seconds: 2 }", ""), ""),
        ("AM004", GOOD_POLICY.replace("seconds: 2", "seconds: 61"), ""),
        ("AM005", GOOD_POLICY.replace("session: SESSION_RULE_NONE", ""), ""),
        ("AM006", GOOD_POLICY.replace("RULE_NONE", "RULE_REQUIRED"), ""),
        (
            "AM007",
            GOOD_POLICY.replace('"gateway"', '"auth"'),
            GET + "idempotency_level: NO_SIDE_EFFECTS",
        ),
        ("AM008", GOOD_POLICY.replace("0.999", "0.2"), ""),
        ("AM009", GOOD_POLICY.replace("latency { seconds: 1 }", "latency { seconds: 3 }"), ""),
        ("AM010", GOOD_POLICY, GET),
        ("AM011", GOOD_POLICY + 'roles: "operator"', ""),
        ("AM012", GOOD_POLICY + 'rest { invalid_body: "NO_SUCH_REASON" }', ""),
        ("AM013", GOOD_POLICY, PUT),
        ("AM014", GOOD_POLICY + "session_effect: SESSION_EFFECT_OPEN", ""),
        ("AM015", GOOD_POLICY + "session_effect: SESSION_EFFECT_REVOKE", ""),
        ("AM016", GOOD_POLICY + "sign_in_age { seconds: 600 }", ""),
    ],
)
def test_contradiction_of_a_method(number: str, method_policy: str | None, options: str) -> None:
    """
    A contradiction is rejected with its number and the name of the rpc, and nothing else is.
    """
    with pytest.raises(PolicyError) as ei:
        read(method_policy, options=options)

    faults = ei.value.faults
    assert [number] == [fault.number for fault in faults]
    assert "amarre.health.v1.TrialService.Try" == faults[0].element


@pytest.mark.parametrize(
    ("number", "service_policy"),
    [
        ("AM020", GOOD_SERVICE.replace("max_pending_requests: 10", "")),
        ("AM021", GOOD_SERVICE.replace("interval { seconds: 1 }", "").split("outlier")[0]),
        ("AM022", GOOD_SERVICE.replace("50", "101")),
    ],
)
def test_contradiction_of_a_service(number: str, service_policy: str) -> None:
    """
    A service without limits, or with impossible ones, is rejected with its number.
    """
    with pytest.raises(PolicyError) as ei:
        read(service_policy=service_policy)

    assert [number] == [fault.number for fault in ei.value.faults]


def test_all_faults_at_once() -> None:
    """
    All errors of a contract are reported at once.
    """
    broken = GOOD_POLICY.replace('"gateway"', '"stranger"').replace("0.999", "2")

    with pytest.raises(PolicyError) as ei:
        read(broken)

    assert ["AM002", "AM008"] == [fault.number for fault in ei.value.faults]


class TestOurContracts:
    """The model of the contracts in this repository."""

    def test_good_contract(self) -> None:
        """
        A contract without contradictions is accepted: each case above fails only for its own
        reason.
        """
        assert ["health.Try"] == [method.short_name for method in read()]

    def test_every_method_is_there(self) -> None:
        """
        There are twenty-five methods of three services, each with a policy.
        """
        assert 26 == len(list(policy.load()))

    def test_retries_follow_idempotency(self) -> None:
        """
        Methods with side effects may not be retried, unless the contract declares them idempotent.
        """
        may = {method.name for method in policy.load() if method.may_retry}

        assert "ListRequests" in may
        assert "LogOut" in may
        assert not may & {"CreateRequest", "SignUp", "LogIn"}

    def test_source_leads_to_the_contract(self) -> None:
        """
        The source of a method is the file and line of its rpc.
        """
        method = policy.load().method("survey.ListRequests")
        file, _, line = method.source.rpartition(":")

        text = (PROTOS / file).read_text().splitlines()[int(line) - 1]
        assert "rpc ListRequests" in text

    def test_deadline_and_objective(self) -> None:
        """
        Durations are read to the microsecond.
        """
        method = policy.load().method("auth.VerifySession")

        assert timedelta(seconds=1) == method.deadline
        assert timedelta(milliseconds=50) == method.objective.latency
