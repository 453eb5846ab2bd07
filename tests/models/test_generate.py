"""Generated text, logits and likelihoods agree with each other and with the model's own arithmetic."""

import pytest
import torch
from scipy import stats
from tiny_families import COMMON_FIRST, PROMPTS

from auditgap.errors import UsageError
from auditgap.models import add, editing, generate, log_likelihood, next_logits, open_model, token_id, tokenize
from auditgap.models.tokens import prompt_ids

LITTLE = "Once upon a time, there was a little {}. One day,"


@pytest.fixture(scope="module")
def reader(stories):
    return open_model(stories)


def _greedy_without_cache(model, prompt: str, n: int) -> list[int]:
    ids = prompt_ids(model, [prompt])[0]
    start = len(ids)
    with torch.no_grad():
        for _ in range(n):
            ids.append(int(model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
    return [i for i in ids[start:] if i != 2]


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_greedy_text_is_the_argmax_with_cache_and_padding(tiny, family):
    """Past the sliding window too (4 tokens in Gemma and Mistral)."""
    model = tiny(family)
    for prompt, text in zip(PROMPTS, generate(model, PROMPTS, max_new_tokens=6), strict=True):
        expected = model.tokenizer.decode(_greedy_without_cache(model, prompt, 6), skip_special_tokens=True)
        assert text.strip() == expected


@pytest.mark.parametrize("family", COMMON_FIRST)
def test_likelihood_of_one_token_is_its_log_softmax(tiny, family):
    model = tiny(family)
    logits = next_logits(model, PROMPTS)
    for word in ("he", "w3"):
        expected = logits.log_softmax(-1)[:, token_id(model, word)]
        torch.testing.assert_close(log_likelihood(model, PROMPTS, [f" {word}"] * 3), expected, rtol=1e-4, atol=1e-4)


def test_likelihood_is_a_chain_and_does_not_depend_on_the_batch(tiny):
    model = tiny("llama")
    answers = [" he w1", " she", " w2 w3 w4 ."]
    chained = [
        log_likelihood(model, [prompt + "".join(f" {w}" for w in words[:i])], [f" {words[i]}"])
        for prompt, words in zip(PROMPTS, (answer.split() for answer in answers), strict=True)
        for i in range(len(words))
    ]
    total = torch.stack([sum(chained[:2]), chained[2], sum(chained[3:])])[:, 0]  # type: ignore[arg-type]
    for batch_size in (1, 2, 32):
        torch.testing.assert_close(log_likelihood(model, PROMPTS, answers, batch_size=batch_size), total, rtol=1e-4, atol=1e-4)


def test_sampling_repeats_by_seed_and_not_by_batch(tiny, left_as_found):
    model = tiny("llama")
    with left_as_found(model):
        first = generate(model, PROMPTS, max_new_tokens=8, temperature=1.0, seed=3)
    assert first == generate(model, PROMPTS, max_new_tokens=8, temperature=1.0, seed=3, batch_size=1)
    assert first != generate(model, PROMPTS, max_new_tokens=8, temperature=1.0, seed=4)
    assert generate(model, PROMPTS, max_new_tokens=8, temperature=1e-4, seed=3) == generate(model, PROMPTS, max_new_tokens=8)


def test_sampling_follows_the_softmax(tiny):
    """Chi-square of 4,000 first tokens; the same counts against temperature 2 are refused."""
    model, n = tiny("llama"), 4000
    words = generate(model, ["the boy"] * n, max_new_tokens=1, temperature=0.7, seed=0, batch_size=n)
    ids = [token_id(model, word.strip()) for word in words if word.strip() and word.strip() != "<unk>"]
    logits = next_logits(model, ["the boy"])[0].double()
    counts = torch.bincount(torch.tensor(ids), minlength=60)[3:60].double()

    def p_value(temperature: float) -> float:
        expected = (logits / temperature).softmax(-1)[3:60]
        return stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue

    assert p_value(0.7) > 1e-3
    assert p_value(2.0) < 1e-6


def test_text_ends_at_the_end_token(tiny):
    model = tiny("llama")
    direction = model.hf.lm_head.weight[2].detach()
    with editing(model, {"resid_post.2": add(direction, scale=1e4)}):
        assert generate(model, PROMPTS, max_new_tokens=5) == ["", "", ""]


def test_real_model_logit_differences(reader):
    """+5.68 and -3.90, measured independently of this project in float32; 0.01 because two digits are given."""
    assert (token_id(reader, " she"), token_id(reader, " he")) == (358, 281)
    logits = next_logits(reader, [LITTLE.format("girl"), LITTLE.format("boy")])
    assert (logits[:, 358] - logits[:, 281]).tolist() == pytest.approx([5.68, -3.90], abs=0.01)


def test_real_model_continues_as_published(reader):
    (text,) = generate(reader, ["Once upon a time"], max_new_tokens=20)
    assert text.startswith(", there was a little girl named Lily.")
    assert generate(reader, [LITTLE.format("girl")], max_new_tokens=1)[0].startswith(" ")


def test_real_model_ablation_holds(reader):
    from auditgap.models import ablating

    unit = torch.nn.functional.normalize(reader.hf.get_input_embeddings().weight[358].detach(), dim=0)
    with ablating(reader, unit) as ablation:
        next_logits(reader, [LITTLE.format("girl")])
    assert 0.0 < ablation.max_residual <= 1e-5


def test_real_model_in_bfloat16_is_near(stories, reader):
    half = next_logits(open_model(stories, dtype="bfloat16"), [LITTLE.format("girl")])
    full = next_logits(reader, [LITTLE.format("girl")])
    assert half.dtype == torch.float32
    assert (half - full).abs().max() <= 0.03 * full.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: generate(m, ["w1"], max_new_tokens=0), "expected max_new_tokens >= 1"),
        (lambda m: generate(m, ["w1"], max_new_tokens=1, temperature=-1.0), "temperature >= 0"),
        (lambda m: generate(m, ["w1"], max_new_tokens=1, temperature=float("nan")), "temperature >= 0"),
        (lambda m: generate(m, ["w1"], max_new_tokens=47), "prompt 0 has 2 tokens and 47 more are asked, the context holds 48"),
        (lambda m: log_likelihood(m, ["w1", "w2"], [" w1"]), "got 2 prompts and 1 answers"),
        (lambda m: log_likelihood(m, ["w1", "w2"], [" w1", ""]), "row 1: answer '' does not start on a token boundary"),
        (lambda m: log_likelihood(m, ["w1"], ["2"]), "row 0: answer '2' does not start on a token boundary"),
        (lambda m: token_id(m, "w1 w2"), r"expected 'w1 w2' to be one token, got 2: \['w1', 'w2'\]"),
        (lambda m: token_id(m, ""), "got 0"),
    ],
)
def test_bad_input_is_refused(tiny, call, message):
    with pytest.raises(UsageError, match=message):
        call(tiny("llama"))


def test_logits_of_padded_and_bare_prompts_agree(tiny):
    model = tiny("gpt2")
    alone = torch.cat([next_logits(model, [prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(next_logits(model, PROMPTS), alone, rtol=1e-5, atol=1e-5)
    tokens = tokenize(model, PROMPTS)
    with torch.no_grad():
        careless = model.hf(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits[:, -1]
    assert (careless - alone).abs().max() > 1e-2, "default position_ids under left padding are a gross error on GPT-2"
