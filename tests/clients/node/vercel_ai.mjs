// Vercel's AI SDK over both of its providers: a stream, and a loop of a tool in one call.
import { createRequire } from "node:module";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.env.CFX_BASE_URL;
const apiKey = process.env.CFX_API_KEY;
const add = tool({
  description: "Add two numbers",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: async ({ a, b }) => `sum=${a + b}`,
});

async function tried(model) {
  const common = { model, maxRetries: 0, onError: ({ error }) => { throw error; } };
  const pieces = [];
  for await (const piece of streamText({ ...common, prompt: "Remember the word marmalade" }).textStream) pieces.push(piece);
  const loop = streamText({
    ...common,
    prompt: 'call tool add with {"a": 40, "b": 2}',
    tools: { add },
    stopWhen: isStepCount(3),
  });
  return { pieces, tool: await loop.text };
}

const compatible = createOpenAICompatible({ name: "codexflow", baseURL, apiKey, includeUsage: true });
const claude = createAnthropic({ baseURL, apiKey });
const { version } = createRequire(import.meta.url)("ai/package.json");
console.log(JSON.stringify({ version, chat: await tried(compatible("cfx-code")), messages: await tried(claude("cfx-code")) }));
