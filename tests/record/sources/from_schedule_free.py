"""Schedule-free learning as its authors have it."""

import schedulefree
from cases import case
from torch_driver import ScheduleFree, by_torch


def schedule_free(name, make, theirs, ours):
    rate = ours["learning_rate"]
    case(
        "schedule_free",
        f"{ours.pop('form')}_{name}",
        by_torch(make, ScheduleFree)(rate, **theirs),
        ours,
        "schedulefree",
        api=f"schedule_free_{make.__name__.removesuffix('ScheduleFree').lower()}",
        steps=10,
        notes="params are y, eval_params are x",
    )


for form, make, rate in (
    ("sgd", schedulefree.SGDScheduleFree, 0.1),
    ("adamw", schedulefree.AdamWScheduleFree, 0.05),
):
    beta = {"momentum": 0.8} if form == "sgd" else {"betas": (0.8, 0.95)}
    second = {} if form == "sgd" else {"b2": 0.95, "eps": 0.1}
    beta |= {} if form == "sgd" else {"eps": 0.1}
    schedule_free(
        "decay_warmup",
        make,
        {**beta, "weight_decay": 0.3, "warmup_steps": 4},
        {
            "form": form,
            "learning_rate": rate,
            "b1": 0.8,
            **second,
            "weight_decay": 0.3,
            "warmup_steps": 4,
        },
    )
    schedule_free(
        "weights",
        make,
        {"r": 1.5, "weight_lr_power": 1.0, "warmup_steps": 3},
        {
            "form": form,
            "learning_rate": rate,
            "r": 1.5,
            "weight_lr_power": 1.0,
            "warmup_steps": 3,
        },
    )
schedule_free(
    "silent",
    schedulefree.RAdamScheduleFree,
    {"betas": (0.8, 0.9), "eps": 0.1, "weight_decay": 0.2},
    {"form": "radam", "learning_rate": 0.05, "b1": 0.8, "b2": 0.9, "eps": 0.1, "weight_decay": 0.2},
)
schedule_free(
    "sgd_phase",
    schedulefree.RAdamScheduleFree,
    {"silent_sgd_phase": False, "r": 1.0},
    {"form": "radam", "learning_rate": 0.05, "silent_sgd_phase": False, "r": 1.0},
)
