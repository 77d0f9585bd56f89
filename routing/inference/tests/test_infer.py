"""Stage inference from the text, in English and Turkish."""

import re
import timeit
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codexflow.catalogue.schema import NO_INTENT, InferenceConfig, parse
from codexflow.env import REPOSITORY
from routing.inference.infer import MAX_CHARS, Prompt, infer
from routing.inference.words import fold, one_i, words

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml").inference


AGAIN = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="again").inference


def stage_of(text: str, config: InferenceConfig = SHIPPED) -> str:
    return infer(Prompt(last_user_text=text), config)[0]


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("Plan the migration to PostgreSQL", "plan"),
        ("Design a structure for the cache", "plan"),
        ("Write a parser and fix the tests", "code"),
        ("Please review this function", "review"),
        ("Check the security of this endpoint", "review"),
        ("REVIEW THIS", "review"),
        ("I FIX IT", "code"),
        ("Yeni modülün mimarisini tasarla", "plan"),
        ("Haydi birlikte planlayalım", "plan"),
        ("Göç nasıl planlanan sürede biter?", "plan"),
        ("Bir sınıf oluştur", "code"),
        ("Testleri oluşturalım", "code"),
        ("BİR FONKSİYON YAZ", "code"),
        ("Bu kodu incele", "review"),
        ("İncele", "review"),
        ("INCELE", "review"),
        ("İNCELEYELİM", "review"),
        ("ıncele", "review"),
        ("I\u0307ncele", "review"),
        ("İncele".lower(), "review"),
        ("Güvenliğini kontrol et", "review"),
        ("kontrolünü yap", "review"),
        ("“incele”…", "review"),
        ("olus\u0327tur", "code"),
    ],
)
def test_keywords_of_both_languages_decide_the_stage(text: str, stage: str) -> None:
    assert infer(Prompt(last_user_text=text), SHIPPED) == (stage, "keyword")


@pytest.mark.parametrize(
    "text", ["", "Hello!", "the airplane landed", "decode", "plan_id", "preview", "yazın gelirim", "🙂"]
)
def test_without_a_whole_keyword_the_stage_is_code_by_default(text: str) -> None:
    assert infer(Prompt(last_user_text=text), SHIPPED) == ("code", "default")


def test_most_hits_win() -> None:
    assert stage_of("write: review, check and analyze") == "review"
    assert stage_of("review it, then write, create and fix") == "code"


def test_a_tie_goes_to_the_earliest_hit() -> None:
    assert stage_of("review the plan") == "review"
    assert stage_of("plan the review") == "plan"
    assert stage_of("fix what the review says") == "code"


def test_a_word_of_several_stages_speaks_for_plan_then_review_then_code() -> None:
    everywhere = {"plan": ("x",), "code": ("x", "y"), "review": ("x", "y")}
    config = InferenceConfig(keywords=everywhere, stems={})
    assert (stage_of("x", config), stage_of("y", config)) == ("plan", "review")


def test_a_keyword_beats_a_stem_and_the_longer_stem_the_shorter() -> None:
    config = InferenceConfig(
        keywords={"review": ("planners",)}, stems={"plan": ("plan",), "code": ("planner",), "review": ()}
    )
    assert [stage_of(text, config) for text in ("planners", "plannersx", "planned")] == ["review", "code", "plan"]


def test_only_the_end_of_a_long_message_counts() -> None:
    filler = "x" * 99 + " "
    assert stage_of("review " + filler * (MAX_CHARS // 100 + 1)) == "code"
    assert stage_of(filler * 10_000 + "review") == "review"


def test_a_word_that_is_cut_does_not_count() -> None:
    assert infer(Prompt(last_user_text="p" + "review" + " " * (MAX_CHARS - 6)), SHIPPED)[1] == "default"


def test_code_above_a_question_does_not_hide_it() -> None:
    code = "```python\n" + "write(code)\n" * MAX_CHARS + "```"
    assert stage_of(f"{code}\nreview it") == "review"
    assert stage_of(f"```\n{'x' * 5000}\n```\nPlan how to split it.\n```\n{'fix ' * 4000}\n```") == "plan"


def test_another_configuration_takes_effect_at_once() -> None:
    other = InferenceConfig(keywords={"plan": ("incele",)}, stems={})
    assert [stage_of("incele", config) for config in (SHIPPED, other, SHIPPED)] == ["review", "plan", "review"]


def test_the_configured_lists_take_precedence() -> None:
    """A keyword that is moved to another stage also requests that stage."""
    moved = replace(
        SHIPPED, keywords={"plan": ("inspect",), "code": ("architect", "plan", "kontrol"), "review": ("build", "yaz")}
    )
    for text, stage in (
        ("architect the thing", "code"),
        ("build the thing", "review"),
        ("please inspect the thing", "plan"),
        ("write a plan for the thing", "code"),
        ("bana bir şey yazar mısın", "review"),
    ):
        assert stage_of(text, moved) == stage, text


def test_without_the_section_of_requests_keywords_alone_decide() -> None:
    words_only = replace(SHIPPED, intent=NO_INTENT)
    assert stage_of("write a plan for the party code") == "plan"
    assert infer(Prompt(last_user_text="write a plan for the party code"), words_only) == ("code", "keyword")


def test_a_list_of_keywords_is_only_counted() -> None:
    assert infer(Prompt(last_user_text="plan incele"), SHIPPED) == ("plan", "keyword")
    assert infer(Prompt(last_user_text="write plan, fix review, create spec"), SHIPPED) == ("code", "keyword")


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("Mobil uygulaması çok büyük, eklentiler de öyle", "code"),
        ("kodu yazmadan konuşalım", "code"),
        ("analytics dashboard", "code"),
        ("the reviewer is on holiday", "code"),
        ("our designer left", "code"),
        ("kontrolör kartı", "code"),
    ],
)
def test_a_word_that_only_begins_like_a_stem_does_not_match(text: str, stage: str) -> None:
    assert infer(Prompt(last_user_text=text), SHIPPED) == (stage, "default")


def test_the_longer_of_stem_and_exception_decides() -> None:
    config = InferenceConfig(
        keywords={}, stems={"code": ("uygula", "uygulamak")}, not_stems=("uygulama",), intent=NO_INTENT
    )
    assert [
        infer(Prompt(last_user_text=text), config)[1] for text in ("uygulayalım", "uygulamalar", "uygulamaktan")
    ] == [
        "keyword",
        "default",
        "keyword",
    ]


def test_turkish_without_turkish_letters_is_understood() -> None:
    for text in ("bir sinif olustur", "gozden gecirir misin", "guvenligi denetle", "yeni mimariyi tasarlayalim"):
        assert stage_of(text) == stage_of(text.replace("olustur", "oluştur").replace("gozden gecir", "gözden geçir"))
    assert stage_of("yazdiklarimi gozden gecirir misin") == "review"


letters = "abIİıiŞşÇçĞğÖöÜüÉßẞ_9"
texts = (
    st.text()
    | st.text(letters + "\u0307\u0327 .,“”—\u00a0\n")
    | st.lists(st.sampled_from(["plan", "Incele", "YAZ", "kontrolü", "x", "İncele."])).map(" ".join)
)


@given(text=texts)
@example(text="\ud800 plan \udfff")
@example(text="".join(chr(code) for code in range(0x100, 0x400)))
@example(text="".join(chr(code) for code in range(0x2000, 0x2100)) + "ŞEY")
def test_words_equal_those_of_the_regular_expression(text: str) -> None:
    found = re.findall(r"\w+", one_i(text))
    expected = [word.casefold().encode("utf-8", "surrogatepass") for word in found]
    assert words(text) == expected


@given(text=st.text(letters + " ."))
def test_folding_ignores_case_and_dots(text: str) -> None:
    assert fold(fold(text)) == fold(text.lower()) == fold(text)
    for one, other in (("I", "ı"), ("İ", "i"), ("I", "i")):
        assert fold(text.replace(one, other)) == fold(text)


@given(text=texts)
def test_inference_is_consistent(text: str) -> None:
    """The same prompt gives the same stage and reason, whichever configuration was used in between; case does not
    matter; the stage is one of the three, and without a sign it is code.
    """
    prompt = Prompt(last_user_text=text)
    stage, reason = infer(prompt, SHIPPED)
    infer(prompt, InferenceConfig(keywords={"plan": ("x",)}, stems={}))
    assert infer(prompt, SHIPPED) == (stage, reason)
    assert infer(Prompt(last_user_text=text.lower()), SHIPPED) == (stage, reason)
    assert stage in ("plan", "code", "review")
    assert reason in ("keyword", "intent") or (stage, reason) == ("code", "default")


@given(
    text=texts,
    system=st.sampled_from(["", "Plan mode is active.", "You are a code reviewer.", "Write code."]) | st.text(),
    tools=st.lists(st.sampled_from(["Edit", "Read", "ExitPlanMode", "plan_mode_respond"])),
)
def test_an_equal_configuration_gives_the_same_stage(text: str, system: str, tools: list[str]) -> None:
    prompt = Prompt(last_user_text=text, system_text=system, tool_names=tuple(tools))
    first = infer(prompt, SHIPPED)
    assert infer(prompt, replace(AGAIN, not_stems=())) == infer(prompt, replace(SHIPPED, not_stems=()))
    assert infer(prompt, SHIPPED) == infer(prompt, AGAIN) == first


@pytest.mark.parametrize(
    "unit",
    ["fix ", "review the plan and ", "```", "<system-reminder>", "<file ", "diff --git a/x\n@@ -1", "inceler misin ",
     "ş", "*** ", "you are ", "you are in plan mode when ", "a.b. ", "/plan"],
)  # fmt: skip
def test_inference_takes_linear_time(unit: str) -> None:
    """Ten times the text takes at most about ten times as long, also where blocks and verbs never end."""

    def cost(chars: int) -> float:
        text = unit * (chars // len(unit))
        prompt = Prompt(last_user_text=text, system_text=text)
        return min(timeit.repeat(lambda: infer(prompt, SHIPPED), number=1, repeat=3))

    cost(1000)
    assert cost(1_000_000) < max(0.1, 60 * cost(64_000))
