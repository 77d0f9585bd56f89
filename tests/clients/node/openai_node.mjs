// The OpenAI SDK for Node: chat and responses, each streamed and with a tool.
import OpenAI from "openai";
import { VERSION } from "openai/version";

const ASK = "Remember the word marmalade";
const CALL = 'call tool add with {"a": 40, "b": 2}';
const parameters = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
};
const add = (text) => {
  const { a, b } = JSON.parse(text);
  return `sum=${a + b}`;
};
const model = "cfx-code";
const client = new OpenAI({ baseURL: process.env.CFX_BASE_URL, apiKey: process.env.CFX_API_KEY, maxRetries: 0 });

async function chat() {
  const pieces = [];
  const stream = client.chat.completions.stream({ model, messages: [{ role: "user", content: ASK }] });
  stream.on("content", (piece) => pieces.push(piece));
  await stream.done();
  const runner = client.chat.completions.runTools({
    model,
    stream: true,
    messages: [{ role: "user", content: CALL }],
    tools: [{ type: "function", function: { name: "add", parameters, function: add } }],
  });
  return { pieces, tool: await runner.finalContent() };
}

async function responses() {
  const pieces = [];
  const stream = client.responses.stream({ model, input: ASK });
  stream.on("response.output_text.delta", (event) => pieces.push(event.delta));
  await stream.finalResponse();
  const tools = [{ type: "function", name: "add", parameters, strict: false }];
  const input = [{ role: "user", content: CALL }];
  const [call] = (await client.responses.stream({ model, input, tools, store: false }).finalResponse()).output;
  const result = { type: "function_call_output", call_id: call.call_id, output: add(call.arguments) };
  const last = await client.responses.create({ model, input: [...input, call, result], tools, store: false });
  return { pieces, tool: last.output_text };
}

console.log(JSON.stringify({ version: VERSION, chat: await chat(), responses: await responses() }));
