// What people do with OpenAI's Node SDK: prints what came of each step (or of those named) as JSON.
import OpenAI from "openai";

const { BASE, TOKEN, VENDOR_KEY } = process.env;
const input = [{ role: "user", content: "say hi" }];
const parameters = { type: "object", properties: { c: { type: "string" } }, required: ["c"] };
const tools = [{ type: "function", name: "shell", parameters, strict: false }];

const client = (step, simulator = "ok", options = {}) =>
  new OpenAI({ baseURL: BASE, apiKey: TOKEN, defaultHeaders: { "x-step": step, "x-simulator": simulator }, ...options });
const say = async (sdk, more = {}) => (await sdk.responses.create({ model: "gpt-5.5", input, ...more })).output_text;
const stream = async (sdk) => {
  let text = "";
  for await (const event of await sdk.responses.create({ model: "gpt-5.5", input, stream: true })) {
    if (event.type === "response.failed") throw new Error(event.response.error.message);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  return text;
};
const chat = async (sdk) => (await sdk.chat.completions.create({ model: "gpt-5.5", messages: input })).choices[0].message.content;
const chatStream = async (sdk) => {
  let text = "";
  for await (const chunk of await sdk.chat.completions.create({ model: "gpt-5.5", messages: input, stream: true }))
    text += chunk.choices[0]?.delta.content ?? "";
  return text;
};
const tool = async () => {
  const sdk = client("tool", "tool:shell");
  const call = (await sdk.responses.create({ model: "gpt-5.5", input, tools })).output[0];
  const result = { type: "function_call_output", call_id: call.call_id, output: "done" };
  return [call.type, await say(sdk, { input: [...input, call, result], tools })];
};
const twice = async () => {
  const sdk = client("twice");
  return [await say(sdk), await stream(sdk), await say(sdk)];
};

const steps = {
  hello: () => say(client("hello")),
  stream: () => stream(client("stream")),
  chat: () => chat(client("chat")),
  "chat stream": () => chatStream(client("chat stream")),
  tool,
  twice,
  big: () => say(client("big"), { input: [{ role: "user", content: "word ".repeat(600_000) }] }),
  models: async () => {
    const ids = [];
    for await (const model of client("models").models.list()) ids.push(model.id);
    return ids;
  },
  slash: () => say(client("slash", "ok", { baseURL: `${BASE}/` })),
  "no v1": () => say(client("no v1", "ok", { baseURL: BASE.replace(/\/v1$/, "") })),
  compressed: () => stream(client("compressed", "encode")),
  wrong: () => say(client("wrong", "ok", { apiKey: "wrong-wrong-wrong-wrong" })),
  vendor: () => say(client("vendor", "ok", { apiKey: VENDOR_KEY })),
  "no such model": () => say(client("no such model"), { model: "claude" }),
  500: () => say(client("500", "500")),
  "500, no retry": () => say(client("500, no retry", "500,no-retry")),
  "503:2": () => say(client("503:2", "503:2", { maxRetries: 1 })),
  end: () => stream(client("end", "end:5")),
  cut: () => stream(client("cut", "cut:5")),
  reset: () => stream(client("reset", "reset:5")),
  "chat end": () => chatStream(client("chat end", "end:3")),
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
