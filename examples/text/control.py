"""Controllers in place of a schedule: they set the rate of one optimizer by its losses."""

from collections.abc import Callable
from typing import Any

from gradchain.optimizers import AutoLRS

CONTROLLERS = ("auto_lrs",)

CANDIDATES, SHORTEST_SEARCH = 4, 16
RANGE = 10.0
"""How far from the rate that was given others are tried, as a factor both ways."""


class Search:
    """AutoLRS over a run: two stages, the second twice as long as the first.

    Steps of the search count as steps of the run.

    Attributes:
      kept: the training state at the start of the stage.
      decisions: every rate that was tried or chosen, with the step from which on it held.
    """

    def __init__(self, label: str, rate: float, steps: int, seed: int):
        explore = max(SHORTEST_SEARCH, steps // 40)
        exploit = steps // 3 - CANDIDATES * explore
        if exploit < explore:
            least = 3 * (CANDIDATES + 1) * SHORTEST_SEARCH
            raise ValueError(f"{label}: auto_lrs needs at least {least} steps, and has {steps}")
        self.controller = AutoLRS(
            rate / RANGE,
            rate * RANGE,
            explore_steps=explore,
            exploit_steps=exploit,
            num_candidates=CANDIDATES,
            max_exploit_steps=20 * explore,  # the second stage looks at the validation loss
            seed=seed,
        )
        self.decisions: list[dict[str, Any]] = []
        self.kept: Any = None
        self.controller.step()

    @property
    def rate(self) -> float:
        """The rate of the next step."""
        return self.controller.decision.learning_rate

    def best(self, training: Any) -> Any:
        """The state to use now: that before a search that goes on."""
        searching = self.controller.state["phase"] == "explore"
        return self.kept if searching and self.controller.decision.action != "save" else training

    def obey(
        self, step: int, training: Any, copy: Callable[[Any], Any], evaluate: Callable[[Any], float]
    ) -> Any:
        """Does what was decided until it is to train, and returns the state to train from."""
        while self.controller.decision.action != "train":
            action, rate = self.controller.decision
            loss = None
            if action == "evaluate":
                loss = evaluate(training)
            else:
                phase = self.controller.state["phase"]
                shown = {"step": step, "action": action, "phase": phase, "learning_rate": rate}
                self.decisions.append(shown)
            if action == "save":
                self.kept = copy(training)
            elif action == "restore":
                training = copy(self.kept)
            self.controller.step(loss)
        return training

    def report(self, loss: float) -> None:
        """Hands the loss of a training step on."""
        self.controller.step(loss)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint; `kept` goes with the training state."""
        return {"controller": self.controller.to_dict(), "decisions": self.decisions}

    def resume(self, values: dict[str, Any], kept: Any) -> None:
        """Goes on where another stood."""
        self.controller = AutoLRS.from_dict(values["controller"])
        self.decisions = list(values["decisions"])
        self.kept = kept
