"""Signals of coding agents: their mode, role, tools and commands, and the boilerplate around the user's text. Pure.

Their system prompts are long and mention planning, writing and reviewing everywhere, so none of their words is counted:
only a sentence that announces a mode, or the role in the first lines, is a signal.
"""

import re

# Tools that change files: an agent that has them works on code.
_EDIT_TOOLS = frozenset(
    {
        "apply_diff",
        "apply_patch",
        "applypatch",
        "create_file",
        "edit",
        "edit_block",
        "edit_file",
        "edit_files",
        "editfile",
        "insert_content",
        "insert_edit_into_file",
        "modify_file",
        "multi_edit",
        "multiedit",
        "notebookedit",
        "patch",
        "replace",
        "replace_in_file",
        "replace_string_in_file",
        "search_and_replace",
        "search_replace",
        "str_replace",
        "str_replace_based_edit_tool",
        "str_replace_editor",
        "update_file",
        "write",
        "write_file",
        "write_to_file",
        "writefile",
    }
)
# Tools that submit a plan. Claude Code and Cline list theirs outside of plan mode as well, always beside tools that
# edit; so they signal planning only where nothing can be edited.
_PLAN_TOOLS = frozenset(
    {"exitplanmode", "exit_plan_mode", "plan_mode_respond", "present_plan", "submit_plan", "create_plan"}
)

# Phrases that announce a mode; the last announcement counts.
_PLAN_MODE = (
    "plan mode is active",
    "plan mode is still active",
    "plan mode active",
    "plan mode: active",
    "you are in plan mode",
    "you are now in plan mode",
    "you are currently in plan mode",
    "operating in plan mode",
    "# plan mode (conversational)",
    "approval mode: plan",
    "collaboration mode: plan",
    "current mode\nplan mode",
    "<slug>architect</slug>",
    "you are in read-only mode",
    "you are a planning agent",
    "expert architect engineer",
    "technical leader who is inquisitive and an excellent planner",
    "plan modu etkin",
    "plan modundasın",
)
_OTHER_MODE = (
    "exited plan mode",
    "no longer in plan mode",
    "no longer in read-only mode",
    "changed from plan to build",
    "plan mode is not active",
    "plan mode is off",
    "current mode\nact mode",
    "<slug>code</slug>",
    "collaboration mode: default",
)
# Every phrase that announces planning has one of these: three searches of a text instead of twenty.
_OF_PLAN_MODE = ("plan", "architect", "read-only mode")
# "When you are in plan mode, …" describes a mode and does not announce it.
_CONDITION = re.compile(r"\b(?:when|whenever|if|while|once|unless|until|whether|not|before|after|as)\s+$")

# The model's role is in the first lines.
_ROLE_CHARS = 1000
_REVIEWER = re.compile(
    r"\b(?:you are|you're|act as|acting as|your (?:role|job|task) is)\b[^.\n]{0,80}?"
    r"\b(?:code review|reviewer|reviewing (?:a |the |this )?(?:code|pull|pr|diff|patch|change)|"
    r"security (?:review|audit)|security auditor|code auditor|code critic)"
    r"|\bkod (?:inceleme|denet|gözden geçirme)\w* (?:uzman|asistan)\w*"
    r"|\bkod (?:denetçisi|incelemecisi)\w*"
)
_COMMANDS = {
    "/review": "review",
    "/code-review": "review",
    "/security-review": "review",
    "/plan": "plan",
    "/ultraplan": "plan",
}
_COMMAND = re.compile(r"\s*(?:<command-(?:name|message)>)?\s*(/[a-z-]{1,32})(?![\w/.-])")

# Enough of a system prompt at both ends to find roles and modes.
_SIDE_CHARS = 8 * 1024

_BLOCKS = (
    ("<system-reminder>", "</system-reminder>"),
    ("<system_reminder>", "</system_reminder>"),
    ("<environment_details>", "</environment_details>"),
    ("<environment_context>", "</environment_context>"),
    ("<user_instructions>", "</user_instructions>"),
    ("<file_content", "</file_content>"),
    ("<file ", "</file>"),
    ("<document", "</document>"),
    ("<attachment", "</attachment>"),
    ("<local-command-stdout>", "</local-command-stdout>"),
)
_DIFF = re.compile(r"^(?:diff --git |@@ -\d|\*\*\* (?:Update|Add|Delete) File)", re.MULTILINE)
_DIFF_LINES = ("+", "-", "@@", " ", "\\", "diff --git ", "index ", "*** ", "===")


def split_boilerplate(text: str) -> tuple[str, str]:
    """Split a message into the user's own text and an agent's boilerplate.

    Quoted files and fenced code are in neither: they are no request.
    """
    blocks: list[str] = []
    if "<" in text:
        for begin, end in _BLOCKS:
            if begin in text:
                text = _cut(text, begin, end, blocks)
    if "`" in text and "```" in text:
        text = "\n".join(text.split("```")[::2])
    return text, "\n".join(blocks)


def _cut(text: str, begin: str, end: str, blocks: list[str]) -> str:
    """Move blocks from the text to `blocks`; one that is not closed extends to the end."""
    kept = []
    at = 0
    while (start := text.find(begin, at)) >= 0:
        kept.append(text[at:start])
        stop = text.find(end, start)
        at = len(text) if stop < 0 else stop + len(end)
        blocks.append(text[start:at])
    return "\n".join([*kept, text[at:]])


def has_diff(text: str) -> bool:
    # The pattern takes a hundred times as long as one of its substrings, and that twenty times as long as one letter.
    is_likely = (
        ("@" in text and "@@ -" in text) or ("*" in text and "*** " in text) or ("-" in text and "diff --git " in text)
    )
    return is_likely and bool(_DIFF.search(text))


def without_diff(text: str) -> str:
    """Return the lines that belong to no patch."""
    return "\n".join(line for line in text.splitlines() if not line.startswith(_DIFF_LINES))


def edits_files(tool_names: tuple[str, ...]) -> bool:
    return any(name.lower() in _EDIT_TOOLS for name in tool_names)


def announced_stage(*, system_text: str, boilerplate: str, user_text: str, tool_names: tuple[str, ...]) -> str | None:
    """Return the stage of an agent's mode, role or command: plan, review or None."""
    if "/" in user_text and (command := _COMMAND.match(user_text)) and command[1] in _COMMANDS:
        return _COMMANDS[command[1]]
    if system_text or boilerplate:
        system = _folded(system_text)
        if _is_planning(f"{system}\n{_folded(boilerplate)}"):
            return "plan"
        if _is_reviewer(system):
            return "review"
    if user_text[:8].lower() in ("you are ", "act as a") and _is_reviewer(user_text[:_ROLE_CHARS].lower()):
        return "review"
    if tool_names and not edits_files(tool_names) and any(name.lower() in _PLAN_TOOLS for name in tool_names):
        return "plan"
    return None


def _is_planning(text: str) -> bool:
    first, second, third = _OF_PLAN_MODE
    if first not in text and second not in text and third not in text:
        return False
    entered = max(_last(text, phrase) for phrase in _PLAN_MODE)
    return entered >= 0 and entered > max(text.rfind(phrase) for phrase in _OTHER_MODE)


def _is_reviewer(text: str) -> bool:
    text = text[:_ROLE_CHARS]
    # One of these is in every match, and the pattern takes twenty times as long as all of them.
    is_likely = "review" in text or "audit" in text or "critic" in text or "kod " in text
    return is_likely and bool(_REVIEWER.search(text))


def _last(text: str, phrase: str) -> int:
    """Return the offset of a mode's last announcement, or -1."""
    at = text.rfind(phrase)
    while at >= 0 and _CONDITION.search(text[max(0, at - 16) : at]):
        at = text.rfind(phrase, 0, at)
    return at


def _folded(text: str) -> str:
    """Lower case without emphasis; of a long text its two ends."""
    if len(text) > 2 * _SIDE_CHARS:
        text = f"{text[:_SIDE_CHARS]}\n{text[-_SIDE_CHARS:]}"
    return text.replace("*", "").replace("'re ", " are ").lower()
