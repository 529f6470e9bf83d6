"""Who needs a passkey in addition to a mailed link."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from auth_svc.ports import OPERATOR, SECOND_FACTOR

RequiredFor = Literal["chosen", "operators", "everybody"]


@dataclass(frozen=True)
class SecondFactorPolicy:
    """Of whom a second factor is asked: who ``chosen`` it, ``operators`` as well, or ``everybody``.

    A user without a passkey adds one with only the first factor.
    """

    asked: RequiredFor = "chosen"

    def is_required_for(self, labels: Collection[str]) -> bool:
        """Say whether a user with these *labels* must show a passkey."""
        return (
            self.asked == "everybody"
            or SECOND_FACTOR in labels
            or (self.asked == "operators" and OPERATOR in labels)
        )
