"""Who needs a passkey in addition to a mailed link."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from auth_svc.ports import OPERATOR, SECOND_FACTOR

RequiredFor = Literal["chosen", "operators", "everybody"]


@dataclass(frozen=True)
class SecondFactorPolicy:
    """Who needs a second factor: users who opted in, also ``operators``, or ``everybody``.

    A user without a passkey can register one with only the first factor.
    """

    asked: RequiredFor = "chosen"

    def is_required_for(self, labels: Collection[str]) -> bool:
        """Return whether a user with these *labels* must present a passkey."""
        return (
            self.asked == "everybody"
            or SECOND_FACTOR in labels
            or (self.asked == "operators" and OPERATOR in labels)
        )
