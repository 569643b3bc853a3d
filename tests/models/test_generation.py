"""Answers of tiny random models, fp32 on the CPU: alone or in company, greedy or by beams."""

import copy
import functools
import random
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from models.configuration import Generation
from models.errors import DataError, SettingError
from models.generation import generate, longest_prompt

VOCABULARY, PAD, END = 24, 0, 1
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": END}


def make(family: str, **changes: Any) -> Any:
    """A model with random weights."""
    torch.manual_seed(3)
    match family:
        case "marian":
            heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
            sizes = {
                f"{side}_{size}": n for side in ("encoder", "decoder") for size, n in (("layers", 2), ("ffn_dim", 32))
            }
            settings = {"d_model": 16, "max_position_embeddings": 48, "decoder_start_token_id": PAD}
            return MarianMTModel(MarianConfig(**{**SPECIAL, **heads, **sizes, **settings, **changes}))
        case "t5":
            settings = {
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 32,
                "num_layers": 2,
                "num_heads": 2,
                "initializer_factor": 3.0,
            }
            return T5ForConditionalGeneration(
                T5Config(**{**SPECIAL, "decoder_start_token_id": PAD, **settings, **changes})
            )
        case "gpt2":
            settings = {"n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 2}
            return GPT2LMHeadModel(GPT2Config(**{**SPECIAL, "bos_token_id": END, **settings, **changes}))
        case _:
            settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
            settings |= {"max_position_embeddings": 48}
            return LlamaForCausalLM(LlamaConfig(**{**SPECIAL, "bos_token_id": END, **settings, **changes}))


def some_prompts(count: int = 24, longest: int = 12) -> list[list[int]]:
    chance = random.Random(0)
    return [[chance.randrange(2, VOCABULARY) for _ in range(chance.randint(1, longest))] for _ in range(count)]


def taught(family: str) -> Any:
    """A copy, which a test may change, of the one that is trained for all tests."""
    return copy.deepcopy(teach(family))


@functools.cache
def teach(family: str) -> Any:
    """A model, trained for moments to give some prompts answers of 0 to 15 random tokens: unlike a random model's,
    its answers differ, and some end early."""
    model, chance, prompts = make(family), random.Random(1), some_prompts()
    answers = [[chance.randrange(2, VOCABULARY) for _ in range(chance.randint(0, 15))] + [END] for _ in prompts]
    pairs = list(zip(prompts, answers, strict=True))
    if model.config.is_encoder_decoder:
        inputs = padded([prompt for prompt, _ in pairs], PAD)
        labels = padded([tokens for _, tokens in pairs], -100)
    else:
        inputs = padded([prompt + tokens for prompt, tokens in pairs], PAD)
        labels = padded([[-100] * len(prompt) + tokens for prompt, tokens in pairs], -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        model.train()(input_ids=inputs, attention_mask=(inputs != PAD).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def answer(model: Any, prompts: list[list[int]], **changes: Any) -> list[list[int]]:
    batch_tokens = changes.pop("batch_tokens", 100_000)
    pad = changes.pop("pad", PAD)
    settings = Generation(**{"max_new_tokens": 12, **changes})
    return generate(model, prompts, settings=settings, end=END, pad=pad, batch_tokens=batch_tokens)


@pytest.fixture(scope="module", params=["marian", "t5", "gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    return taught(request.param)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_the_prompts_that_share_its_batch(model: Any, beams: int) -> None:
    prompts = some_prompts()
    together = answer(model, prompts, beams=beams)
    alone = [answer(model, [prompt], beams=beams)[0] for prompt in prompts]
    assert together == alone
    assert answer(model, prompts, beams=beams, batch_tokens=200) == alone
    assert len({tuple(tokens) for tokens in together}) > 5  # not one answer to everything
    assert len({len(tokens) for tokens in together}) > 1  # some end before others


def test_greedy_answers_are_the_likeliest_token_after_each_prefix(model: Any) -> None:
    prompts = some_prompts(6)
    for prompt, got in zip(prompts, answer(model, prompts), strict=True):
        wanted: list[int] = []
        while len(wanted) < 12:
            with torch.no_grad():
                if model.config.is_encoder_decoder:
                    given = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([[PAD, *wanted]])}
                else:
                    given = {"input_ids": torch.tensor([prompt + wanted])}
                scores = model.eval()(**given).logits[0, -1]
            scores[PAD] = -torch.inf
            if (token := int(scores.argmax())) == END:
                break
            wanted.append(token)
        assert got == wanted


def test_beams_find_an_answer_at_least_as_likely_as_the_greedy_one() -> None:
    model = taught("marian")
    prompts = some_prompts(12)

    def likelihood(prompt: list[int], tokens: list[int]) -> float:
        ended = [*tokens, END] if len(tokens) < 12 else tokens
        with torch.no_grad():
            logits = model.eval()(
                input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[PAD, *ended[:-1]]])
            ).logits
        return float(logits[0].log_softmax(-1)[range(len(ended)), ended].sum())

    pairs = [answer(model, prompts, beams=beams, length_penalty=0.0) for beams in (1, 8)]
    scores = [[likelihood(*pair) for pair in zip(prompts, answers, strict=True)] for answers in pairs]
    assert sum(scores[1]) > sum(scores[0])


def test_a_larger_length_penalty_gives_longer_answers() -> None:
    model, prompts = taught("marian"), some_prompts()
    short, long = (answer(model, prompts, beams=4, length_penalty=penalty) for penalty in (-2.0, 4.0))
    assert sum(map(len, short)) < sum(map(len, long))


def test_answers_come_in_the_order_of_the_prompts() -> None:
    model, prompts = taught("gpt2"), some_prompts()
    shuffled = random.Random(1).sample(range(len(prompts)), len(prompts))
    forward = answer(model, prompts, batch_tokens=120)
    assert answer(model, [prompts[index] for index in shuffled], batch_tokens=120) == [forward[i] for i in shuffled]


@pytest.mark.parametrize(("beams", "most"), [(1, 160 // 20), (2, 160 // 40)])
def test_a_batch_is_bounded_by_prompts_answers_and_beams(
    beams: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = make("gpt2"), []
    original = model.generate
    monkeypatch.setattr(model, "generate", lambda tokens, **rest: sizes.append(len(tokens)) or original(tokens, **rest))
    answer(model, [[2] * 8] * 10, beams=beams, batch_tokens=160)
    assert sizes[0] == most
    assert sum(sizes) == 10


def test_no_prompts_give_no_answers(model: Any) -> None:
    assert answer(model, []) == []


def test_neither_end_nor_padding_is_in_an_answer(model: Any) -> None:
    assert not {PAD, END} & {token for tokens in answer(model, some_prompts(), beams=2) for token in tokens}


def test_padding_is_never_generated_even_where_it_is_likeliest() -> None:
    model, prompts = taught("marian"), some_prompts()
    plain = answer(model, prompts)
    model.final_logits_bias[0, PAD] = 100.0
    assert answer(model, prompts) == plain


def test_padding_may_be_the_end_token() -> None:
    model, prompts = taught("gpt2"), some_prompts()
    apart = [answer(model, [prompt], pad=END)[0] for prompt in prompts]
    assert answer(model, prompts, pad=END) == apart


def test_mode_and_saved_generation_settings_are_as_before() -> None:
    model = make("marian", dropout=0.5).train()
    model.model.encoder.eval()
    saved = model.generation_config
    modes = [module.training for module in model.modules()]
    first, second = answer(model, some_prompts()), answer(model, some_prompts())
    assert first == second  # without dropout
    assert model.generation_config is saved
    assert [module.training for module in model.modules()] == modes


def test_mode_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("marian").train()
    saved = model.generation_config
    monkeypatch.setattr(model, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer(model, [[2]])
    assert model.training
    assert model.generation_config is saved


@pytest.mark.parametrize("family", ["marian", "gpt2"])
def test_the_models_saved_way_of_generating_is_not_taken(family: str) -> None:
    model, prompts = taught(family), some_prompts()
    plain = answer(model, prompts)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=9.0,
        top_k=3,
        num_beams=3,
        num_return_sequences=2,
        max_length=3,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        forced_eos_token_id=7,
        bad_words_ids=[[5]],
        eos_token_id=9,
        pad_token_id=9,
        decoder_start_token_id=PAD,
    )
    assert answer(model, prompts) == plain


def test_nothing_is_written_to_the_terminal(model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    answer(model, some_prompts(4))
    answer(model, some_prompts(4), length_penalty=2.0)
    answer(model, some_prompts(4), beams=2, length_penalty=2.0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_works_in_any_gradient_mode_and_leaves_the_model_trainable(context: Any) -> None:
    model = make("llama")
    with context():
        answer(model, some_prompts(3))
    model.train()(input_ids=torch.tensor([[2, 3]]), labels=torch.tensor([[2, 3]])).loss.backward()
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_reads_the_end_of_a_prompt_that_is_too_long(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = make(family), []
    original = model.generate
    monkeypatch.setattr(model, "generate", lambda rows, **rest: read.extend(rows.tolist()) or original(rows, **rest))
    assert longest_prompt(model, Generation(max_new_tokens=12)) == 48 - 12
    prompt = [random.Random(2).randrange(2, VOCABULARY) for _ in range(60)]
    answer(model, [[5, 6], prompt])
    assert read == [prompt[-36:], [PAD] * 34 + [5, 6]]


def test_relative_positions_have_no_longest_prompt() -> None:
    assert longest_prompt(make("t5"), Generation(max_new_tokens=1000)) is None
    assert len(answer(make("t5"), [[2] * 600])) == 1


def test_a_source_may_fill_the_models_positions_and_no_more() -> None:
    model = make("marian")
    assert len(answer(model, [[2] * 48], max_new_tokens=48)) == 1
    with pytest.raises(DataError, match=r"prompts\[1\]: at most the model's 48 positions, got 49 tokens"):
        answer(model, [[2], [2] * 49])


@pytest.mark.parametrize(("family", "most"), [("marian", 48), ("gpt2", 47)])
def test_answers_that_do_not_fit_the_positions_are_refused(family: str, most: int) -> None:
    with pytest.raises(SettingError, match=rf"generation\.max_new_tokens: at most {most}, .* got {most + 1}\."):
        answer(make(family), [[2]], max_new_tokens=most + 1)
    assert len(answer(make(family), [[2]], max_new_tokens=most)) == 1


def test_an_empty_prompt_is_refused(model: Any) -> None:
    with pytest.raises(DataError, match=r"prompts\[1\]: at least one token, got none"):
        answer(model, [[2], []])


def test_a_decoder_without_a_first_token_is_refused() -> None:
    with pytest.raises(SettingError, match="decoder_start_token_id"):
        answer(make("t5", decoder_start_token_id=None), [[2]])
