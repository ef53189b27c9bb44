"""The rules of adaptive methods, written out in NumPy."""

import itertools

import numpy as np
from trajectories import (
    rate_at,
)


def amsgrad(
    x,
    gs,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    max_of="corrected",
):
    m, v, top, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        c1 = 1 - b1**t if bias_correction_mu else 1
        c2 = 1 - b2**t if bias_correction_nu else 1
        if max_of == "corrected":
            top = np.maximum(top, v / c2)
            d = top
        else:
            top = np.maximum(top, v)
            d = top / c2
        x = x - rate_at(learning_rate, t) * (m / c1) / (np.sqrt(d + eps_root) + eps)
        out.append(x)
    return out


def adabound(
    x,
    gs,
    learning_rate=1e-3,
    final_learning_rate=0.1,
    gamma=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    decoupled=False,
    maximum=False,
    base_learning_rate=None,
):
    m, v, top, out = 0 * x, 0 * x, 0 * x, []
    base = base_learning_rate or rate_at(learning_rate, 1)
    for t, g in enumerate(gs, 1):
        rate = rate_at(learning_rate, t)
        if not decoupled:
            g = g + weight_decay * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        top = np.maximum(top, v)
        r = rate * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(top if maximum else v) + eps)
        f = final_learning_rate * rate / base
        r = np.clip(r, f * (1 - 1 / (gamma * t + 1)), f * (1 + 1 / (gamma * t)))
        x = x - r * m - (weight_decay * x if decoupled else 0)
        out.append(x)
    return out


def ademamix(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    alpha=5.0,
    b3_warmup=None,
    alpha_warmup=None,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=0.0,
    count_offset=0,
):
    def half_life(b):
        return np.log(0.5) / np.log(b) - 1 if b > 0 else -1.0

    m1, m2, v, out = 0 * x, 0 * x, 0 * x, []
    for t, g in enumerate(gs, 1):
        i = t - 1 + count_offset
        a = alpha(i) if callable(alpha) else alpha
        if alpha_warmup and not callable(alpha):
            a = alpha * min(i / alpha_warmup, 1)
        b = b3(i) if callable(b3) else b3
        if b3_warmup and i < b3_warmup and not callable(b3):
            mixed = (1 - i / b3_warmup) * half_life(b1) + i / b3_warmup * half_life(b3)
            b = 0.5 ** (1 / (mixed + 1)) if mixed > -1 else 0.0
        m1, m2 = b1 * m1 + (1 - b1) * g, b * m2 + (1 - b) * g
        v = b2 * v + (1 - b2) * g**2
        u = (m1 / (1 - b1**t) + a * m2) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - rate_at(learning_rate, t) * (u + weight_decay * x)
        out.append(x)
    return out


def fadam(
    x,
    gs,
    learning_rate=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    power=0.5,
    clip_threshold=1.0,
    weight_decay=0.1,
):
    def clipped(z):
        return z * clip_threshold / max(1, np.sqrt(np.mean(z**2)))

    m, f, out = 0 * x, np.ones_like(x), []
    for t, g in enumerate(gs, 1):
        bt = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        f = bt * f + (1 - bt) * g**2
        d = f**power + eps * max(1, np.sqrt(np.mean(g**2)))
        m = b1 * m + (1 - b1) * clipped(g / d)
        x = x - rate_at(learning_rate, t) * (m + weight_decay * clipped(x / d))
        out.append(x)
    return out


def gravity(x, gs, learning_rate=0.1, alpha=0.01, beta=0.9, count_start=0, start=None):
    v, out = alpha / rate_at(learning_rate, 1) * (0 if start is None else start), []
    for t, g in enumerate(gs, 1):
        n = t - 1 + count_start
        b = (beta * n + 1) / (n + 2)
        z = g / (1 + (g / (1 / np.max(abs(g)))) ** 2)
        v = b * v + (1 - b) * z
        x = x - rate_at(learning_rate, t) * v
        out.append(x)
    return out


def innaprop(x, gs, learning_rate=1e-3, alpha=0.1, beta=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
    v, psi, out = 0 * x, (1 - alpha * beta) * x, []
    for t, g in enumerate(gs, 1):
        eta = rate_at(learning_rate, t)
        y = x * (1 - eta * weight_decay)
        v = b2 * v + (1 - b2) * g**2
        d = np.sqrt(v) / np.sqrt(1 - b2**t) + eps
        psi = psi * (1 - eta / beta) + eta * (1 / beta - alpha) * y
        x = y * (1 + eta * (1 - alpha * beta) / (beta - eta)) - eta / (beta - eta) * psi
        x = x - eta * beta * g / d
        out.append(x)
    return out


def optimistic_amsgrad(
    x,
    gs,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    predictor="extrapolation",
    history=5,
    reg=1e-3,
    bias_correction=True,
    weight_decay=0.0,
    predicted=None,
):
    auxiliary, th, v, top, guess, seen, out = x, 0 * x, 0 * x, 0 * x, 0 * x, [], []
    for t, g in enumerate(gs, 1):
        g = g + weight_decay * x
        seen.append(g)
        if predictor == "given":
            guess = ahead = predicted[t - 1]
        elif predictor == "extrapolation" and len(seen) > history:
            known = [np.ravel(y) for y in seen[-history - 1 :]]
            rows = np.array([b - a for a, b in itertools.pairwise(known)])
            z = np.linalg.solve(rows @ rows.T + reg * np.eye(history), np.ones(history))
            ahead = np.reshape((z / z.sum()) @ np.array(known[1:]), np.shape(g))
        else:
            ahead = g
        v = b2 * v + (1 - b2) * (g - guess) ** 2
        top = np.maximum(top, v)
        d = np.sqrt(top) + eps
        h = b1 * th + (1 - b1) * ahead
        th = b1 * th + (1 - b1) * g
        a = rate_at(learning_rate, t)
        if bias_correction:
            a = a * np.sqrt(1 - b2**t) / (1 - b1**t)
        auxiliary = auxiliary - a * th / d
        x = auxiliary - a * h / d
        guess = ahead
        out.append(x)
    return out
