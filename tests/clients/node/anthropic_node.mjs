// Anthropic's SDK for Node: a stream, its tool runner, and the count of tokens.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { VERSION } from "@anthropic-ai/sdk/version";

const model = "cfx-code";
const client = new Anthropic({
  baseURL: process.env.CFX_BASE_URL.replace(/\/v1$/, ""),
  apiKey: process.env.CFX_API_KEY,
  maxRetries: 0,
});
const add = betaTool({
  name: "add",
  description: "Add two numbers",
  inputSchema: {
    type: "object",
    properties: { a: { type: "integer" }, b: { type: "integer" } },
    required: ["a", "b"],
  },
  run: ({ a, b }) => `sum=${a + b}`,
});

const pieces = [];
const stream = client.messages.stream({
  model,
  max_tokens: 1000,
  messages: [{ role: "user", content: "Remember the word marmalade" }],
});
stream.on("text", (piece) => pieces.push(piece));
await stream.finalMessage();

const runner = client.beta.messages.toolRunner({
  model,
  max_tokens: 1000,
  stream: true,
  messages: [{ role: "user", content: 'call tool add with {"a": 40, "b": 2}' }],
  tools: [add],
});
let last;
for await (const turn of runner) last = await turn.finalMessage();

const counted = await client.messages.countTokens({ model, messages: [{ role: "user", content: "hello" }] });
const messages = { pieces, tool: last.content[0].text, note: `count_tokens: ${counted.input_tokens}` };
console.log(JSON.stringify({ version: VERSION, messages }));
