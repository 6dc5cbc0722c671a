// What OpenAI's own client for JavaScript makes of a model that thinks: serve_thinking.mjs BASE_URL KEY PACKAGES, where
// PACKAGES is the folder that has node_modules/openai.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [baseURL, apiKey, packages] = process.argv.slice(2);
const OpenAI = createRequire(path.join(packages, "package.json"))("openai");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Why?" }];
const ask = (fields) =>
  client.chat.completions.create({ model: "tiny", messages, max_tokens: 24, temperature: 0, ...fields });

// A whole answer. Fields that the client does not know pass through it, both ways.
const whole = await ask({ thinking_budget_tokens: 6 });
const { content, reasoning_content, reasoning } = whole.choices[0].message;
assert.ok(content && reasoning_content && reasoning === reasoning_content, JSON.stringify(whole));
const { reasoning_tokens } = whole.usage.completion_tokens_details;
assert.ok(reasoning_tokens >= 6 && reasoning_tokens < whole.usage.completion_tokens, JSON.stringify(whole.usage));

// The same in pieces.
let [thought, text, usage] = ["", "", null];
const events = await ask({ thinking_budget_tokens: 6, stream: true, stream_options: { include_usage: true } });
for await (const event of events) {
  usage = event.usage ?? usage;
  const delta = event.choices[0]?.delta ?? {};
  assert.equal(delta.reasoning, delta.reasoning_content);
  assert.ok(!(delta.reasoning && text), "a thought after the answer began");
  thought += delta.reasoning_content ?? "";
  text += delta.content ?? "";
}
assert.deepEqual([thought, text], [reasoning_content, content]);
assert.equal(usage.completion_tokens_details.reasoning_tokens, reasoning_tokens);

// The client's helper that collects a stream.
const collected = await client.chat.completions
  .stream({ model: "tiny", messages, max_tokens: 24, temperature: 0, thinking_budget_tokens: 6 })
  .finalChatCompletion();
assert.equal(collected.choices[0].message.content, content);

const plain = await ask({ reasoning_effort: "none" });
assert.ok(plain.choices[0].message.content && !("reasoning_content" in plain.choices[0].message));
assert.equal(plain.usage.completion_tokens_details.reasoning_tokens, 0);

const refused = ask({ thinking_budget_tokens: -7 });
await assert.rejects(refused, (error) => error.status === 400 && error.param === "thinking_budget_tokens");
console.log("all well");
