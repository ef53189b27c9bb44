"""Drives the optimizers of torch and its relatives."""

import torch


class Torch:
    """Drives a torch optimizer; a list for the rate is written into the group before each step."""

    def __init__(self, start, make, rate=None, loss=False):
        self.leaves = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
        self.optimizer = make(list(self.leaves.values()))
        self.rate = rate if isinstance(rate, list) else None
        self.loss = loss

    def step(self, gradients, value, count):
        if self.rate is not None:
            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            for group in inner.param_groups:
                group["lr"] = self.rate[count]
        for key, leaf in self.leaves.items():
            leaf.grad = torch.tensor(gradients[key])
        if self.loss:
            self.optimizer.step(loss=torch.tensor(value))
        else:
            self.optimizer.step()

    def params(self):
        return {k: v.detach().numpy().copy() for k, v in self.leaves.items()}


class ScheduleFree(Torch):
    """Training weights y are the parameters; the averaged weights x are read in evaluation mode."""

    def __init__(self, start, make):
        super().__init__(start, make)
        self.optimizer.train()

    def eval_params(self):
        self.optimizer.eval()
        x = self.params()
        self.optimizer.train()
        return x


class Separable(Torch):
    """Hands the objective's gradient over with its graph, for Hessian-vector products."""

    def __init__(self, start, make, problem):
        super().__init__(start, make)
        self.problem = problem

    def step(self, gradients, value, count):
        self.optimizer.zero_grad()
        loss = 0.0
        for key, x in self.leaves.items():
            a, b, c = (torch.tensor(self.problem[letter][key]) for letter in "abc")
            loss = loss + (a * x**2 / 2 + b * x**4 / 4 + c * x).sum()
        torch.manual_seed(count)
        loss.backward(create_graph=True)
        self.optimizer.step()
        for leaf in self.leaves.values():
            leaf.grad = None


def by_torch(make, driver=Torch, **options):
    """A run with `make(leaves, **package arguments)`."""

    def bind(rate=None, **arguments):
        first = rate[0] if isinstance(rate, list) else rate
        if first is not None:
            arguments["lr"] = first

        def run(start):
            more = {"rate": rate} if driver is Torch else {}
            return driver(start, lambda leaves: make(leaves, **arguments), **more, **options)

        return run

    return bind
