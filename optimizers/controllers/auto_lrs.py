"""AutoLRS: the learning rate of each stage is searched for on the way."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, SupportsFloat

import numpy as np

from ...registry import method
from ...transforms import FlowError, Length, NonNegativeConstant, PositiveConstant, Size, checked
from .exponential_forecast import SHORTEST, exponential_forecast
from .gp_lcb import gp_lcb
from .kept import Kept

Action = Literal["train", "save", "restore", "evaluate"]
Trial = tuple[float, float]
Suggest = Callable[[Sequence[Trial], float, float, np.random.Generator], float]
"""`(trials, min_learning_rate, max_learning_rate, random) -> rate` to be tried next."""

DIVERGED = 1e6
"""What a candidate with a loss that is not finite is told to predict."""
ASK_AGAIN = 10


class RateDecision(NamedTuple):
    """What the loop is to do next.

    Attributes:
      action: "train": one step, and report its training loss; "evaluate": report the validation
        loss; "save": keep params, optimizer state and counters; "restore": go back to them.
      learning_rate: the rate from now on.
    """

    action: Action
    learning_rate: float


@method(
    "Jin et al. 2021, AutoLRS: Automatic Learning-Rate Schedule by Bayesian Optimization on the "
    "Fly",
    arxiv="2105.10762",
    kind="controller",
    tags=("own-rate", "loop"),
    required={"min_learning_rate": 1e-4, "max_learning_rate": 1.0},
    name="auto_lrs",
)
class AutoLRS(Kept):
    """Searches the rate of the next stage by short runs, then trains with the best.

        rate of the stage = argmin over candidates of the forecast a exp(b x) + c of their losses

    A stage saves the training state and tries `num_candidates` rates: each trains `explore_steps`
    steps from the saved state, and `exponential_forecast` of its losses says what the loss would be
    after `exploit_steps`. The rate with the lowest forecast then trains `exploit_steps` steps from
    the saved state. Both numbers double after a stage, until `explore_steps` is a tenth of
    `max_exploit_steps`; from there on forecasts are of the validation loss, which is evaluated at
    about 16 points of each short run. Where it rises there to the loss at the start of the whole
    search, its last value takes the place of its forecast. A loss that is not finite counts as 1e6.

    The loop holds the training state and does what it is told:

        decision = controller.step()
        while ...:
            loss = None
            if decision.action == "save": kept = copy of the training state
            elif decision.action == "restore": state = copy of what was kept
            elif decision.action == "evaluate": loss = the validation loss
            else: state, loss = train_step(state, decision.learning_rate)
            decision = controller.step(loss)

    What is restored includes the optimizer's moments and counters. The rate goes in as an injected
    hyper-parameter, which never compiles anew.

    Args:
      min_learning_rate: the smallest rate that is tried, above 0.
      max_learning_rate: the largest one.
      explore_steps: steps of a short run in the first stage, from 16 on.
      exploit_steps: steps of the first stage.
      num_candidates: rates that are tried in a stage.
      max_exploit_steps: see above.
      warmup_steps: steps before the first stage, with rates that rise linearly.
      warmup_learning_rate: the rate at their end.
      suggest: `(trials, min_learning_rate, max_learning_rate, random) -> rate`, with trials the
        pairs of rate and forecast of this stage; default `gp_lcb`, which needs scikit-learn.
      seed: of what `suggest` draws.

    Raises:
      ValueError: for an argument out of range.

    Example:
      >>> from gradchain.optimizers import AutoLRS
      >>> controller = AutoLRS(
      ...     0.01, 1.0, explore_steps=16, exploit_steps=32, num_candidates=2,
      ...     suggest=lambda trials, low, high, random: [low, high][len(trials)])
      >>> x, decision, actions = 2.0, controller.step(), []
      >>> while len(actions) < 80:
      ...     actions.append(decision.action)
      ...     if decision.action == "save":
      ...         kept = x
      ...     elif decision.action == "restore":
      ...         x = kept
      ...     loss, x = x * x, x - decision.learning_rate * x / 2
      ...     decision = controller.step(loss)
      >>> [(i, a) for i, a in enumerate(actions) if a != "train"], decision.learning_rate
      ([(0, 'save'), (17, 'restore'), (34, 'restore'), (67, 'save')], 0.01)

    References:
      Jin et al. 2021 (arXiv 2105.10762), and the authors' code, YuchenJin/autolrs, whose numbers
      these are. Its Gaussian process is scikit-optimize's, with a weight of 1e6 on what is unknown;
      see `gp_lcb`.
    """

    @checked()
    def __init__(
        self,
        min_learning_rate: PositiveConstant,
        max_learning_rate: PositiveConstant,
        explore_steps: Size = 100,
        exploit_steps: Size = 1000,
        num_candidates: Size = 10,
        max_exploit_steps: Size = 8000,
        warmup_steps: Length = 0,
        warmup_learning_rate: NonNegativeConstant = 0.0,
        suggest: Suggest = gp_lcb,
        *,
        seed: int = 0,
    ) -> None:
        if not min_learning_rate < max_learning_rate:
            raise FlowError(
                f"AutoLRS: max_learning_rate={max_learning_rate!r} must be above "
                f"min_learning_rate={min_learning_rate!r}"
            )
        if explore_steps < SHORTEST:
            raise FlowError(f"AutoLRS: explore_steps={explore_steps!r} must be in [16, inf)")
        self.suggest = suggest
        self.settings = {
            "min_learning_rate": float(min_learning_rate),
            "max_learning_rate": float(max_learning_rate),
            "explore_steps": explore_steps,
            "exploit_steps": exploit_steps,
            "num_candidates": num_candidates,
            "max_exploit_steps": max_exploit_steps,
            "warmup_steps": warmup_steps,
            "warmup_learning_rate": float(warmup_learning_rate),
            "seed": seed,
        }
        self.state: dict[str, Any] = {
            "phase": "warmup",
            "action": None,
            "learning_rate": 0.0,
            "steps": 0,
            "explore_steps": explore_steps,
            "exploit_steps": exploit_steps,
            "validating": explore_steps * 10 >= max_exploit_steps,
            "first_loss": None,
            "losses": [],
            "trials": [],
            "asked": 0,
        }

    @property
    def decision(self) -> RateDecision:
        """What `step` said last: where a loop goes on that reads its controller from a file."""
        return RateDecision(self.state["action"], self.state["learning_rate"])

    def step(self, loss: SupportsFloat | None = None) -> RateDecision:
        """The next action.

        Args:
          loss: what the last action gave: the training loss of "train", the validation loss of
            "evaluate"; None or anything for "save", "restore" and at the very start.

        Returns:
          What to do next, and at which rate.

        Raises:
          ValueError: where the last action asked for a loss and there is none.
        """
        self._report(loss)
        action, rate = {
            "warmup": self._warmup,
            "explore": self._explore,
            "exploit": self._exploit,
        }[self.state["phase"]]()
        self.state.update(action=action, learning_rate=rate)
        return self.decision

    def _report(self, loss: SupportsFloat | None) -> None:
        at = self.state
        if at["action"] not in ("train", "evaluate"):
            return
        if loss is None:
            raise FlowError(f"AutoLRS: step(loss) needs the loss of the action {at['action']!r}")
        trained = at["action"] == "train"
        at["steps"] += trained
        if at["phase"] != "explore":
            return
        if at["first_loss"] is None:
            at["first_loss"] = float(loss)
        if trained != at["validating"]:
            at["losses"].append(float(loss))

    def _warmup(self) -> tuple[Action, float]:
        steps, of = self.state["steps"], self.settings["warmup_steps"]
        if steps < of:
            return "train", self.settings["warmup_learning_rate"] / of * (steps + 1)
        return self._new_stage()

    def _new_stage(self) -> tuple[Action, float]:
        self.state.update(phase="explore", trials=[])
        return "save", self._new_candidate()

    def _new_candidate(self) -> float:
        self.state.update(steps=0, losses=[])
        return self._ask()

    def _explore(self) -> tuple[Action, float]:
        at = self.state
        due = at["validating"] and at["action"] == "train" and at["steps"] % self._interval == 0
        if due:
            return "evaluate", at["learning_rate"]
        if at["steps"] < at["explore_steps"]:
            return "train", at["learning_rate"]
        at["trials"].append([at["learning_rate"], self._forecast()])
        if len({rate for rate, _ in at["trials"]}) < self.settings["num_candidates"]:
            return "restore", self._new_candidate()
        best, _ = min(at["trials"], key=lambda trial: trial[1])
        at.update(phase="exploit", steps=0, losses=[])
        return "restore", best

    def _exploit(self) -> tuple[Action, float]:
        at = self.state
        if at["steps"] < at["exploit_steps"]:
            return "train", at["learning_rate"]
        if not at["validating"]:
            at["explore_steps"] *= 2
            at["exploit_steps"] *= 2
            at["validating"] = at["explore_steps"] * 10 >= self.settings["max_exploit_steps"]
        return self._new_stage()

    @property
    def _interval(self) -> int:
        """Training steps between two evaluations."""
        return int(self.state["explore_steps"] // SHORTEST)

    def _forecast(self) -> float:
        at = self.state
        losses = at["losses"]
        if not all(map(math.isfinite, losses)):
            return DIVERGED
        if not at["validating"]:
            return exponential_forecast(losses, at["exploit_steps"])
        if max(losses) >= at["first_loss"]:
            return float(losses[-1])
        horizon = int(at["exploit_steps"] / self._interval)
        return exponential_forecast(losses, horizon, training_loss=False)

    def _ask(self) -> float:
        """A rate that was not tried in this stage; one that was is told to the search again."""
        at, ends = (
            self.state,
            (self.settings["min_learning_rate"], self.settings["max_learning_rate"]),
        )
        known = dict(at["trials"])
        for _ in range(ASK_AGAIN):
            rate = float(self.suggest([(r, f) for r, f in at["trials"]], *ends, self._random()))
            if rate not in known:
                return rate
            at["trials"].append([rate, known[rate]])
        return float(np.exp(self._random().uniform(*np.log(ends))))

    def _random(self) -> np.random.Generator:
        self.state["asked"] += 1
        return np.random.default_rng([self.settings["seed"], self.state["asked"]])
