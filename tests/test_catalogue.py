"""The catalogue: what is found in it, what is built from it by name, what it refuses."""

import gradchain
import optax
import pytest
from gradchain.catalogue import METHODS, TAGS, find, get_method, get_schedule
from gradchain.registry import method, schedule
from samples import REAL_ONLY, SAMPLES


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("SOPHIA*", {"sophia_g", "sophia_h"}),
        ("logits_fn", {"sophia_g"}),
        ("width-transfer", {"mu_lo", "mup_adam", "mup_second_order"}),
        ("2302.06675", {"lion"}),
        ("*symbolic discovery*", {"lion"}),
        ("lookah?ad", {"lookahead"}),
        ("nothing of the sort", set()),
    ],
)
def test_find_looks_at_names_tags_needs_titles_and_arxiv_numbers(pattern, expected):
    assert set(find(pattern)) == expected


def test_find_lists_families_and_everything_in_order():
    assert {"sgd", "lion"} <= set(find("momentum"))
    assert find() == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_by_name_alone_a_method_is_built_and_every_required_argument_is_needed(name):
    entry = METHODS[name]
    entry.build()
    assert entry.tags
    arguments = entry.arguments()
    for required in entry.required:
        some = {key: value for key, value in arguments.items() if key != required}
        with pytest.raises((TypeError, ValueError), match=required):
            entry.factory(**some)


def test_by_name_a_wrapper_is_put_around_adam_and_a_clip_in_front_of_it():
    assert repr(get_method("cautious").build(0.1)).startswith("cautious(")
    clipped = get_method("clip_by_global_norm").build(0.1, max_norm=2.0)
    assert repr(clipped).startswith("chain(clip_by_global_norm(")
    assert isinstance(clipped, optax.GradientTransformationExtraArgs)


def test_every_tag_is_used_and_the_samples_are_of_methods():
    assert {tag for entry in METHODS.values() for tag in entry.tags} == set(TAGS)
    assert set(SAMPLES) | REAL_ONLY <= set(METHODS)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean.*adabelief"):
        get_method("adabeleif")
    with pytest.raises(ValueError, match=r"did you mean.*cosine_decay"):
        get_schedule("cosine_decey")


def sgd(learning_rate):
    """A second method of a name that is taken."""
    return gradchain.optimizers.sgd(learning_rate)


@pytest.mark.parametrize(
    ("enter", "problem"),
    [
        (lambda f: method("Nobody", kind="optimizer")(f), "kind must be one of transformation"),
        (lambda f: method("Nobody", tags=("fast",))(f), "unknown tags .'fast'"),
        (lambda f: method("Nobody")(f), "sgd is in the catalogue already"),
        (lambda f: schedule("Nobody", name="rex")(f), "rex is in the catalogue already"),
        (lambda f: schedule("Nobody", kind="rate")(f), "kind must be one of schedule"),
    ],
)
def test_entries_are_refused_by_name(enter, problem):
    with pytest.raises(ValueError, match=problem):
        enter(sgd)
