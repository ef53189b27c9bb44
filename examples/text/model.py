"""A decoder-only Transformer small enough for a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding of queries or keys, of shape (batch, length, heads, size).

    Distances between characters then show in every product of a query and a key. With learned
    positions the same model needs several times as many steps to leave bigrams behind.
    """
    length, size = x.shape[1], x.shape[3]
    # The usual base of 10,000 is meant for contexts of thousands of words.
    frequencies = 1000.0 ** -(jnp.arange(0, size, 2) / size)
    angles = jnp.arange(length)[:, None, None] * frequencies
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


class Block(nnx.Module):
    """Causal attention, then a feed-forward layer, each on a normalised residual stream."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.mix = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.feed_norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).reshape(batch, length, 3, self.heads, -1)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        seen = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        x = x + self.mix(seen.reshape(batch, length, width))
        return x + self.down(jax.nn.gelu(self.up(self.feed_norm(x))))


class Transformer(nnx.Module):
    """Character codes of shape (batch, length) -> logits of the next character."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, rngs: nnx.Rngs):
        normal = nnx.initializers.normal
        self.embed = nnx.Embed(vocabulary, width, embedding_init=normal(0.2), rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(
            width, vocabulary, use_bias=False, kernel_init=normal(0.02), rngs=rngs
        )

    def __call__(self, codes: jax.Array) -> jax.Array:
        x = self.embed(codes)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean loss in nats per character."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def generate(
    graph: nnx.GraphDef[Transformer],
    params: Any,
    prompt: jax.Array,
    length: int,
    key: jax.Array,
    temperature: float = 0.7,
) -> jax.Array:
    """`length` characters that continue a prompt of exactly one context."""
    model = nnx.merge(graph, params)

    def add_one(window: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model(window[None])[0, -1]
        code = jax.random.categorical(key, logits / temperature)
        return jnp.append(window[1:], code.astype(window.dtype)), code

    return jax.lax.scan(add_one, prompt, jax.random.split(key, length))[1]
