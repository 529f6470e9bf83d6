"""The rules, as tables."""

from datetime import UTC, datetime

import pytest

from survey_svc.requests.rules import (
    Request,
    Status,
    StepKind,
    StepState,
    derive,
    is_open,
    is_wanted,
    newest_first,
    parse_time,
)
from survey_svc.study.profile import OpinionKind, Profile

N, W, T, U, D = (
    StepState.NOT_AVAILABLE,
    StepState.WAITING,
    StepState.TO_DO,
    StepState.UNDER_REVIEW,
    StepState.DONE,
)
FAVOURABLE, RESERVED, AGAINST = "1", "2", "3"
DOCTORAL = {"demandeur_statut": "5", "mobilite_universite_autre": "Lisbon"}
GUEST_TO_TEACH = {"demandeur_statut": "2", "invite_nom": "Bo"}
FILLED = {"form_complete": "2"}


def _derived(profile: Profile, **row: str) -> Request:
    return derive(profile, {"record_id": "r"} | row, lambda _, value: f"<{value}>")


class TestWhoGivesAnOpinion:
    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            pytest.param({}, [], id="nothing known"),
            pytest.param({"invitation_type": "1"}, ["labo"], id="research invitation"),
            pytest.param({"invitation_type": "2"}, [], id="teaching, nobody invited yet"),
            pytest.param(
                {"invitation_type": "2", "invite_nom": "Bo"},
                ["demandeur_composante"],
                id="teaching invitation",
            ),
            pytest.param(
                {"invitation_type": "3", "invite_nom": "Bo"},
                ["demandeur_composante", "labo"],
                id="both",
            ),
            pytest.param({"mobilite_type": "2"}, ["labo"], id="travel"),
            pytest.param({"mobilite_type": "1"}, [], id="invites, no type yet"),
            pytest.param(GUEST_TO_TEACH, ["demandeur_composante"], id="teacher invites"),
            pytest.param({"demandeur_statut": "2"}, [], id="teacher, nobody invited yet"),
            pytest.param({"demandeur_statut": "1"}, [], id="researcher-teacher"),
            pytest.param({"demandeur_statut": "3"}, ["labo"], id="engineer, no destination"),
            *(
                pytest.param(
                    {"demandeur_statut": status, destination: "x"},
                    ["labo", "encadrant"],
                    id=f"status {status} to {destination}",
                )
                for status in "345"
                for destination in (
                    "mobilite_universite_eunicoast",
                    "mobilite_universite_gu8",
                    "mobilite_universite_autre",
                )
            ),
            pytest.param(
                {"demandeur_statut": "1", "mobilite_type": "2", "mobilite_universite_gu8": "9"},
                ["labo"],
                id="researcher-teacher travels, no supervisor",
            ),
        ],
    )
    def test_wanted(self, profile: Profile, row: dict[str, str], expected: list[str]) -> None:
        """Each opinion is required exactly under the study's conditions."""
        wanted = [o.instrument for o in profile.opinions if is_wanted(o, row)]

        assert expected == wanted


class TestSteps:
    @pytest.mark.parametrize(
        ("row", "states", "status"),
        [
            pytest.param({}, [T, N], Status.TO_COMPLETE, id="new"),
            pytest.param({"form_complete": "1"}, [T, N], Status.TO_COMPLETE, id="unverified form"),
            pytest.param(DOCTORAL, [T, W, W, N], Status.TO_COMPLETE, id="form begun"),
            pytest.param(DOCTORAL | FILLED, [D, U, U, W], Status.TO_FOLLOW, id="opinions wait"),
            pytest.param(
                DOCTORAL | FILLED | {"labo_complete": "2", "avis_laboratoire_position": "1"},
                [D, D, U, W],
                Status.TO_FOLLOW,
                id="one opinion given",
            ),
            pytest.param(
                DOCTORAL | FILLED | {"labo_complete": "2", "encadrant_complete": "2"},
                [D, D, D, T],
                Status.TO_COMPLETE,
                id="every opinion given",
            ),
            pytest.param(
                DOCTORAL
                | FILLED
                | {"labo_complete": "2", "encadrant_complete": "2"}
                | {"avis_laboratoire_position": AGAINST, "avis_encadrant_position": FAVOURABLE},
                [D, D, D, N],
                Status.TO_FOLLOW,
                id="one opinion against",
            ),
            pytest.param(
                DOCTORAL | FILLED | {"labo_complete": "2", "avis_laboratoire_position": AGAINST},
                [D, D, U, N],
                Status.TO_FOLLOW,
                id="one against, one missing",
            ),
            pytest.param(
                DOCTORAL | FILLED | {"labo_complete": "1", "avis_laboratoire_position": AGAINST},
                [D, U, U, W],
                Status.TO_FOLLOW,
                id="an opinion being written does not count",
            ),
            pytest.param(
                DOCTORAL
                | FILLED
                | {"labo_complete": "2", "avis_laboratoire_position": RESERVED}
                | {"encadrant_complete": "2", "avis_encadrant_position": RESERVED},
                [D, D, D, T],
                Status.TO_COMPLETE,
                id="reservations do not stop",
            ),
            pytest.param(
                {"demandeur_statut": "1"} | FILLED,
                [D, T],
                Status.TO_COMPLETE,
                id="no opinion needed",
            ),
            pytest.param(
                FILLED | {"validation_finale_complete": "2"}, [D, D], Status.DONE, id="finished"
            ),
            pytest.param(
                DOCTORAL | {"labo_complete": "2", "avis_laboratoire_position": AGAINST},
                [T, W, W, N],
                Status.TO_COMPLETE,
                id="form opened again after an opinion",
            ),
        ],
    )
    def test_states(
        self, profile: Profile, row: dict[str, str], states: list[StepState], status: Status
    ) -> None:
        """Steps and status follow from completion and opinions."""
        request = _derived(profile, **row)

        assert states == [step.state for step in request.steps]
        assert status is request.status

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (FAVOURABLE, OpinionKind.FAVOURABLE),
            (RESERVED, OpinionKind.WITH_RESERVATIONS),
            (AGAINST, OpinionKind.UNFAVOURABLE),
            ("", None),
            ("7", None),
        ],
    )
    def test_opinion(self, profile: Profile, code: str, expected: OpinionKind | None) -> None:
        """A given opinion has a position."""
        row = GUEST_TO_TEACH | FILLED | {"demandeur_composante_complete": "2"}

        step = _derived(profile, **row, avis_composante_position=code).steps[1]

        assert (StepKind.OPINION, expected) == (step.kind, step.opinion)

    @pytest.mark.parametrize(
        ("row", "status"),
        [
            ({}, Status.TO_COMPLETE),
            (FILLED, Status.DONE),
            (DOCTORAL | FILLED, Status.TO_FOLLOW),
            (
                GUEST_TO_TEACH
                | FILLED
                | {"demandeur_composante_complete": "2", "avis_composante_position": AGAINST},
                Status.TO_FOLLOW,
            ),
        ],
        ids=["new", "filled", "opinions wait", "against"],
    )
    def test_without_final(self, profile: Profile, row: dict[str, str], status: Status) -> None:
        """A study without final validation is done after form and opinions."""
        short = profile.model_copy(update={"final": None})

        assert status is _derived(short, **row).status


class TestTitle:
    @pytest.mark.parametrize(
        ("row", "title"),
        [
            ({}, ""),
            ({"invite_nom": "Bo", "mobilite_universite_gu8": "9"}, "<Bo>"),
            ({"mobilite_universite_gu8": "9"}, "<9>"),
            ({"invite_nom": "x" * 3000}, "<" + "x" * 999),
        ],
        ids=["unknown", "guest", "destination", "endless"],
    )
    def test_title(self, profile: Profile, row: dict[str, str], title: str) -> None:
        """
        The title is the guest's name, else the destination, as a label that fits the contract.
        """
        assert title == _derived(profile, **row).title


class TestOpenAndOrder:
    @pytest.mark.parametrize(
        ("complete", "expected"), [("", True), ("0", True), ("1", True), ("2", False)]
    )
    def test_open(self, profile: Profile, complete: str, expected: bool) -> None:
        """A request prevents a second one until its form is complete."""
        assert expected is is_open(profile, {"form_complete": complete})

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("2026-03-01 10:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("", None),
            ("yesterday", None),
            ("0001-01-01T00:00:00Z", None),
        ],
    )
    def test_time(self, text: str, expected: datetime | None) -> None:
        """Times are parsed as UTC; anything else is None."""
        assert expected == parse_time(text)

    def test_newest_first(self, profile: Profile) -> None:
        """The newest request comes first, one without a time last."""
        times = {"a": "2026-01-01", "b": "", "c": "2026-02-01"}
        requests = [
            _derived(profile, record_id=record, created_at=time) for record, time in times.items()
        ]

        assert ["c", "a", "b"] == [request.id for request in newest_first(requests)]
