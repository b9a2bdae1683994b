// What people do with Anthropic's Node SDK: prints what came of each step (or of those named) as JSON.
import Anthropic from "@anthropic-ai/sdk";

const { BASE, TOKEN, VENDOR_KEY } = process.env;
const messages = [{ role: "user", content: "say hi" }];
const asked = { model: "claude-sonnet-5", max_tokens: 100, messages };
const tools = [{ name: "Bash", input_schema: { type: "object", properties: { c: { type: "string" } }, required: ["c"] } }];

const client = (step, simulator = "ok", options = {}) =>
  new Anthropic({ baseURL: BASE, authToken: TOKEN, apiKey: null, defaultHeaders: { "x-step": step, "x-simulator": simulator }, ...options });
const say = async (sdk, more = {}) => (await sdk.messages.create({ ...asked, ...more })).content[0].text;
const stream = async (sdk) => {
  let text = "";
  for await (const event of await sdk.messages.create({ ...asked, stream: true }))
    if (event.type === "content_block_delta") text += event.delta.text;
  return text;
};
const tool = async () => {
  const sdk = client("tool", "tool:Bash");
  const call = (await sdk.messages.create({ ...asked, tools })).content[0];
  const result = { type: "tool_result", tool_use_id: call.id, content: "done" };
  const turns = [...messages, { role: "assistant", content: [call] }, { role: "user", content: [result] }];
  return [call.type, await say(sdk, { messages: turns, tools })];
};
const twice = async () => {
  const sdk = client("twice");
  return [await say(sdk), await stream(sdk), await say(sdk)];
};

const steps = {
  hello: () => say(client("hello")),
  stream: () => stream(client("stream")),
  tool,
  twice,
  big: () => say(client("big"), { messages: [{ role: "user", content: "word ".repeat(600_000) }] }),
  counts: async () => {
    const sdk = client("counts");
    const counted = await Promise.all(Array.from({ length: 26 }, () => sdk.messages.countTokens({ model: "claude-sonnet-5", messages })));
    return counted.map((count) => count.input_tokens);
  },
  models: async () => {
    const ids = [];
    for await (const model of client("models").models.list()) ids.push(model.id);
    return ids;
  },
  slash: () => say(client("slash", "ok", { baseURL: `${BASE}/` })),
  v1: () => say(client("v1", "ok", { baseURL: `${BASE}/v1` })),
  "x-api-key": () => say(client("x-api-key", "ok", { authToken: null, apiKey: TOKEN })),
  both: () => say(client("both", "ok", { defaultHeaders: { "x-step": "both", "x-api-key": TOKEN } })),
  compressed: () => stream(client("compressed", "encode")),
  wrong: () => say(client("wrong", "ok", { authToken: "wrong-wrong-wrong-wrong" })),
  vendor: () => say(client("vendor", "ok", { authToken: null, apiKey: VENDOR_KEY })),
  "no such model": () => say(client("no such model"), { model: "gpt" }),
  500: () => say(client("500", "500")),
  "500, no retry": () => say(client("500, no retry", "500,no-retry")),
  "503:2": () => say(client("503:2", "503:2", { maxRetries: 1 })),
  end: () => stream(client("end", "end:5")),
  cut: () => stream(client("cut", "cut:5")),
  reset: () => stream(client("reset", "reset:5")),
  overload: () => stream(client("overload", "overload:3")),
};

const report = {};
console.error = () => {}; // the SDK tells of broken streams itself
const named = process.argv.slice(2);
for (const name of named.length ? named : Object.keys(steps)) {
  const started = performance.now();
  try {
    report[name] = await steps[name]();
  } catch (error) {
    const seconds = (performance.now() - started) / 1000;
    report[name] = { error: error.constructor.name, message: String(error.message), seconds };
  }
}
process.stdout.write(JSON.stringify(report));
