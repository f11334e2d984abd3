"""What fuzzing found."""

from dataclasses import dataclass, field


@dataclass
class Found:
    """Of one round, or of many added up. `stops` and `lost` are sentences: where a worker would have stopped or gone wrong, and
    good events whose result was another for the bad ones around them."""

    inputs: int = 0
    refused: int = 0
    good: int = 0
    stops: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        self.inputs += other.inputs
        self.refused += other.refused
        self.good += other.good
        self.stops += other.stops
        self.lost += other.lost

    @property
    def clean(self) -> bool:
        return not (self.stops or self.lost)
