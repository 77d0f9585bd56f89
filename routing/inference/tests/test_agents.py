"""Signals of coding agents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.catalogue.schema import parse
from codexflow.env import REPOSITORY
from routing.inference import agents
from routing.inference.agents import announced_stage, has_diff, split_boilerplate, without_diff
from routing.inference.infer import Prompt, infer

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml").inference
EDITING = ("Read", "Edit", "Bash")


def decided(text: str = "add a header", system: str = "", tools: tuple[str, ...] = ()) -> tuple[str, str]:
    return infer(Prompt(last_user_text=text, system_text=system, tool_names=tools), SHIPPED)


@pytest.mark.parametrize(
    "system",
    [
        "Plan mode is active. You MUST NOT make any edits.",
        "You are a coding agent.\nYou are now in **Plan Mode**. Do not write code.",
        "# Active Approval Mode: Plan\nYou are operating in **Plan Mode**.",
        "CRITICAL: Plan mode ACTIVE - you are in READ-ONLY phase.",
        "You're in plan mode.",
        "You are in read-only mode. Present a plan.",
        "Act as an expert architect engineer and provide direction to your editor engineer.",
        "x " * 20_000 + "Plan mode is active.",
    ],
)
def test_an_announced_plan_mode_means_plan(system: str) -> None:
    assert decided(system=system, tools=EDITING) == ("plan", "agent-plan")


@pytest.mark.parametrize(
    "system",
    [
        "When you are in plan mode, call ExitPlanMode.",
        "Do not edit files while plan mode is active, and plan, review and check everything.",
        "If you are in read-only mode, say so.",
        "ACT MODE V.S. PLAN MODE: the environment_details specify the current mode.",
        "Plan mode is active.\nYou have exited plan mode. You can now make edits.",
        "You are in read-only mode.\nYour operational mode has changed from plan to build.",
    ],
)
def test_a_plan_mode_that_is_only_described_or_over_does_not(system: str) -> None:
    assert decided(system=system, tools=EDITING) == ("code", "agent-code")


def test_the_last_announcement_counts() -> None:
    back = "Plan mode is active. You have exited plan mode. Plan mode is active."
    assert decided(system=back, tools=EDITING)[0] == "plan"


def test_a_reminder_in_the_message_counts_but_its_words_do_not() -> None:
    active = "<system-reminder>\nPlan mode is active.\n</system-reminder>\nadd a header"
    assert decided(active, tools=EDITING) == ("plan", "agent-plan")
    chatter = "<system-reminder>plan and review, then review the plan</system-reminder>\nhello"
    assert decided(chatter) == ("code", "default")


def test_a_question_about_plan_mode_does_not_announce_it() -> None:
    assert decided("Why does it say that plan mode is active?", tools=EDITING) == ("code", "agent-code")


@pytest.mark.parametrize("tool", ["ExitPlanMode", "exit_plan_mode", "plan_mode_respond", "present_plan"])
def test_a_planning_tool_counts_only_where_nothing_can_be_edited(tool: str) -> None:
    assert decided(tools=("Read", tool)) == ("plan", "agent-plan")
    assert decided(tools=(*EDITING, tool)) == ("code", "agent-code")


@pytest.mark.parametrize(
    "system",
    [
        "You are an expert code reviewer. Be brief.",
        "You are acting as a reviewer for a proposed code change made by another engineer.",
        "Your task is to perform a security review of this branch.",
        "Sen deneyimli bir kod inceleme uzmanısın.",
    ],
)
def test_a_reviewers_role_means_review(system: str) -> None:
    assert decided("def f(): return 1", system) == ("review", "agent-review")


def test_a_reviewer_far_down_in_a_system_prompt_is_not_the_role() -> None:
    system = "You are a coding agent. " + "Write good code. " * 100 + "You are a code reviewer when asked."
    assert decided(system=system, tools=EDITING) == ("code", "agent-code")


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("/review", "review"),
        ("/security-review", "review"),
        ("/review 42 please", "review"),
        ("/plan a new header", "plan"),
        ("<command-name>/review</command-name>", "review"),
    ],
)
def test_commands_name_a_stage(command: str, stage: str) -> None:
    assert decided(command, tools=EDITING) == (stage, f"agent-{stage}")


def test_a_path_is_no_command() -> None:
    for path in ("/plan/index.html is empty", "/reviews fails", "/review_all", "/plan.html"):
        assert announced_stage(system_text="", boilerplate="", user_text=path, tool_names=EDITING) is None


@pytest.mark.parametrize("tool", ["Edit", "MultiEdit", "Write", "apply_patch", "replace_in_file", "write_to_file"])
def test_tools_that_edit_mean_code_unless_something_else_is_requested(tool: str) -> None:
    assert decided("the plan page is empty, and so is the review page", tools=(tool,)) == ("code", "agent-code")
    assert decided("review the changes on this branch", tools=(tool,)) == ("review", "intent")
    assert decided("write a plan for the header", tools=(tool,)) == ("plan", "intent")


DIFF = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-fix\n+write\n"


@pytest.mark.parametrize("phrase", agents._PLAN_MODE)
def test_every_phrase_that_announces_planning_is_found(phrase: str) -> None:
    assert announced_stage(system_text=phrase, boilerplate="", user_text="", tool_names=()) == "plan"


@given(st.from_regex(agents._REVIEWER))
def test_every_role_of_a_reviewer_is_found(text: str) -> None:
    assert agents._is_reviewer(text) == bool(agents._REVIEWER.search(text[: agents._ROLE_CHARS]))


def test_a_diff_means_review_unless_something_else_is_requested() -> None:
    assert decided(DIFF) == ("review", "diff")
    assert decided(f"Please review this:\n```diff\n{DIFF}```") == ("review", "diff")
    assert decided(f"Apply this patch\n{DIFF}") == ("code", "intent")
    assert decided(f"{DIFF}\nfix the failing hunk") == ("code", "intent")
    assert decided(f"Bu yamayı uygula\n{DIFF}") == ("code", "intent")


def test_a_text_that_only_resembles_a_diff_is_none() -> None:
    for text in ("mail me @ home", "* one\n* two", "--- a\n+++ b", "run git diff --git"):
        assert not has_diff(text)
    assert without_diff(f"look\n{DIFF}at this") == "look\nat this"


def test_boilerplate_is_split_from_the_users_text() -> None:
    text = "before <environment_details>mode</environment_details> after ```\ncode\n``` end <file path='x'>never closed"
    user_text, boilerplate = split_boilerplate(text)
    assert user_text.split() == ["before", "after", "end"]
    assert "mode" in boilerplate
