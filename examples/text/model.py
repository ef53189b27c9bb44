"""A decoder-only Transformer small enough for a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


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
        seen = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(seen.reshape(batch, length, width))
        return x + self.down(jax.nn.gelu(self.up(self.feed_norm(x))))


class Transformer(nnx.Module):
    """Character codes of shape (batch, length) -> logits of the next character."""

    def __init__(
        self, vocabulary: int, context: int, width: int, layers: int, heads: int, rngs: nnx.Rngs
    ):
        small = nnx.initializers.normal(0.02)
        self.embed = nnx.Embed(vocabulary, width, embedding_init=small, rngs=rngs)
        self.position = nnx.Embed(context, width, embedding_init=small, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, kernel_init=small, rngs=rngs)

    def __call__(self, codes: jax.Array) -> jax.Array:
        x = self.embed(codes) + self.position(jnp.arange(codes.shape[1]))
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
