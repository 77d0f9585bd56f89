#!/bin/sh
# The agent doctor: tests from this machine what a coding agent needs of CodexFlow, and prints configuration that fits.
#
#   CODEXFLOW_API_KEY=... sh doctor.sh [--base-url URL] [--model NAME] [--quick] [--no-config]
#
# Needs only sh and curl. Makes four small requests and one of about 6,000 tokens (--quick leaves that one out); they are
# logged and charged like any others. The key is read from the environment, or asked for; it goes to curl through a pipe,
# so it stands in no argument, no file, no address and no line of the output.
set -u
umask 077

BASE_URL=__BASE_URL__
MODEL=cfx-code
LONG=yes
CONFIG=yes
while [ $# -gt 0 ]; do
  case $1 in
    --base-url) BASE_URL=${2:?--base-url needs an address}; shift ;;
    --model) MODEL=${2:?--model needs a name}; shift ;;
    --quick) LONG=no ;;
    --no-config) CONFIG=no ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" 2>/dev/null; exit 0 ;;
    *) printf 'unknown option: %s\n' "$1" >&2; exit 2 ;;
  esac
  shift
done
BASE_URL=${BASE_URL%/}
ORIGIN=${BASE_URL%/v1}
BASE_URL=$ORIGIN/v1

case $MODEL in
  *[!0-9A-Za-z._:/-]* | '') echo 'This is no name of a model.' >&2; exit 2 ;;
esac

command -v curl >/dev/null || { echo 'curl is not installed.' >&2; exit 2; }
KEY=${CODEXFLOW_API_KEY:-}
if [ -z "$KEY" ] && [ -r /dev/tty ] && [ -w /dev/tty ] && (: >/dev/tty) 2>/dev/null; then
  printf 'API key (not shown): ' >/dev/tty
  stty -echo </dev/tty
  trap 'stty echo </dev/tty' INT TERM EXIT
  IFS= read -r KEY </dev/tty
  stty echo </dev/tty
  trap - INT TERM EXIT
  echo >/dev/tty
fi
[ -n "$KEY" ] || { echo 'Set CODEXFLOW_API_KEY to your key (cfx_...).' >&2; exit 2; }
case $KEY in
  *[!0-9A-Za-z_]*) echo 'The key has characters that no key has: was it pasted whole, without quotes or spaces?' >&2; exit 2 ;;
esac

DIR=$(mktemp -d) || exit 2
trap 'rm -rf "$DIR"' EXIT
trap 'exit 130' INT TERM
FAILED=0
PASSED=0

say() { printf '%-8s %-14s %s\n' "$1" "$2" "$3"; }
pass() { PASSED=$((PASSED + 1)); say ok "$1" "$2"; }
fail() { FAILED=$((FAILED + 1)); say FAILED "$1" "$2"; [ -z "${3:-}" ] || say '' '' "$3"; }

# ask PATH [BODY FILE]: sets STATUS, FIRST (seconds to the first byte) and TOTAL; the answer is in $DIR/body, $DIR/head.
ask() {
  : >"$DIR/head"
  : >"$DIR/body"
  TIMES=$(
    {
      printf 'header = "Authorization: Bearer %s"\n' "$KEY"
      [ -z "${2:-}" ] || printf 'header = "Content-Type: application/json"\ndata-binary = "@%s"\n' "$2"
    } | curl -q -sS -N -K - --max-time 180 -D "$DIR/head" -o "$DIR/body" \
      -w '%{http_code} %{time_starttransfer} %{time_total}' -- "$BASE_URL$1" 2>"$DIR/curl"
  ) || { STATUS=000; FIRST=0; TOTAL=0; return 1; }
  set -- $TIMES
  STATUS=$1 FIRST=$2 TOTAL=$3
}
header() { tr -d '\r' <"$DIR/head" | awk -F': ' -v name="$1" 'tolower($1) == name { found = $2 } END { print found }'; }
code() { sed -n 's/.*"code": *"\([a-z0-9_]*\)".*/\1/p' "$DIR/body" | head -n 1; }
# What went wrong, in one line, and what to do about it.
explain() {
  if [ "$STATUS" = 000 ]; then
    fail "$1" "no answer: $(head -c 200 "$DIR/curl" | tr '\n' ' ')" 'Check the address, the proxy (HTTPS_PROXY) and the firewall.'
    return
  fi
  case $STATUS in
    401) hint='The key is mistyped, revoked, expired or not allowed from this address.' ;;
    402) hint='Credit or a budget is used up.' ;;
    403) hint='The key, or its plan, does not allow this.' ;;
    413) hint='Something between here and CodexFlow refuses large bodies.' ;;
    429) hint="A limit is reached; it ends in $(header retry-after) s." ;;
    5*) hint='The installation has trouble: see '"$ORIGIN/status/" ;;
    *) hint='See '"$ORIGIN/docs/errors/" ;;
  esac
  fail "$1" "HTTP $STATUS $(code) (request $(header x-cfx-request-id))" "$hint"
}

printf 'CodexFlow at %s, key %s..., model %s\n\n' "$BASE_URL" "$(printf %s "$KEY" | cut -c1-12)" "$MODEL"

# 1. The way there.
if curl -q -sS --max-time 20 -o /dev/null -- "$ORIGIN/health/live" 2>"$DIR/curl"; then
  pass network "$ORIGIN answers"
else
  STATUS=000
  explain network
  exit 1
fi

# 2. The key, and 3. what it may use.
ask /models
if [ "$STATUS" = 200 ]; then
  pass key 'accepted'
  COUNT=$(grep -o '"id"' "$DIR/body" | wc -l | tr -d ' ')
  if grep -q "\"id\": *\"$MODEL\"" "$DIR/body"; then
    pass models "$COUNT to choose from, $MODEL among them"
  else
    fail models "$MODEL is not among the $COUNT that this key may use" 'Choose another with --model.'
  fi
else
  explain key
  exit 1
fi

# 4. A short answer.
cat >"$DIR/short" <<EOF
{"model": "$MODEL", "max_tokens": 32, "messages": [{"role": "user", "content": "Reply with the word ready."}]}
EOF
ask /chat/completions "$DIR/short"
if [ "$STATUS" = 200 ] && grep -q '"choices"' "$DIR/body"; then
  pass answer "$TOTAL s from $(header x-cfx-model), stage $(header x-cfx-stage)"
else
  explain answer
fi

# 5. A stream: in pieces, and with its end.
cat >"$DIR/stream" <<EOF
{"model": "$MODEL", "max_tokens": 96, "stream": true, "messages": [{"role": "user", "content": "Count from one to twenty in words."}]}
EOF
ask /chat/completions "$DIR/stream"
if [ "$STATUS" != 200 ]; then
  explain stream
elif ! grep -q '^data: \[DONE\]' "$DIR/body"; then
  fail stream 'broke off before its end' 'A proxy on the way may cut long answers; see its read timeout.'
else
  pass stream "$(grep -c '^data: {' "$DIR/body") pieces, the first after $FIRST s, the last after $TOTAL s"
fi

# 6. A tool call.
cat >"$DIR/tool" <<EOF
{"model": "$MODEL", "max_tokens": 128, "messages": [{"role": "user", "content": "call tool get_weather with {\"city\": \"Ankara\"}"}],
 "tools": [{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city",
 "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]}
EOF
ask /chat/completions "$DIR/tool"
if [ "$STATUS" != 200 ]; then
  explain tool
elif grep -q '"tool_calls"' "$DIR/body" && grep -q 'get_weather' "$DIR/body"; then
  pass tool "get_weather was called by $(header x-cfx-model)"
else
  fail tool "$(header x-cfx-model) answered without calling it" 'Agents need a model that calls tools: try another stage.'
fi

# 7. A long prompt.
if [ "$LONG" = yes ]; then
  {
    printf '{"model": "%s", "max_tokens": 32, "messages": [{"role": "user", "content": "Here are notes. ' "$MODEL"
    i=0
    while [ $i -lt 440 ]; do
      printf 'Line %s of the notes says that all is well in the garden. ' "$i"
      i=$((i + 1))
    done
    printf 'Reply with the word ready."}]}'
  } >"$DIR/long"
  ask /chat/completions "$DIR/long"
  if [ "$STATUS" = 200 ] && grep -q '"choices"' "$DIR/body"; then
    pass long "$(wc -c <"$DIR/long" | tr -d ' ') bytes answered in $TOTAL s"
  else
    explain long
  fi
fi

printf '\n%s passed, %s failed\n' "$PASSED" "$FAILED"
[ "$CONFIG" = yes ] && cat <<EOF

Configuration for this address. CODEXFLOW_API_KEY stands for your key.

--- any OpenAI SDK, aider
export OPENAI_BASE_URL=$BASE_URL
export OPENAI_API_BASE=$BASE_URL
export OPENAI_API_KEY=\$CODEXFLOW_API_KEY
aider --model openai/$MODEL

--- Claude Code
export ANTHROPIC_BASE_URL=$ORIGIN
export ANTHROPIC_AUTH_TOKEN=\$CODEXFLOW_API_KEY
export ANTHROPIC_MODEL=$MODEL
claude

--- Codex CLI, in ~/.codex/config.toml
model = "$MODEL"
model_provider = "codexflow"
[model_providers.codexflow]
name = "CodexFlow"
base_url = "$BASE_URL"
env_key = "CODEXFLOW_API_KEY"
wire_api = "responses"

--- opencode, in opencode.json
{"provider": {"codexflow": {"npm": "@ai-sdk/openai-compatible", "name": "CodexFlow",
 "options": {"baseURL": "$BASE_URL", "apiKey": "{env:CODEXFLOW_API_KEY}"}, "models": {"$MODEL": {}}}}}

--- Continue, in config.yaml
models:
  - {name: CodexFlow, provider: openai, model: $MODEL, apiBase: $BASE_URL, apiKey: your key}

--- Cursor, Cline: an OpenAI-compatible provider
base URL $BASE_URL, model $MODEL, and your key

More: $ORIGIN/docs/clients/
EOF
[ "$FAILED" = 0 ]
