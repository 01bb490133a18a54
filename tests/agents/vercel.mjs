// The Vercel AI SDK: a text, a stream, a loop with a tool and a typed answer; prints what came as JSON.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, apiKey, kind, name] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const model = {
  chat: () => createOpenAI({ baseURL, apiKey }).chat(name),
  responses: () => createOpenAI({ baseURL, apiKey }).responses(name),
  messages: () => createAnthropic({ baseURL, apiKey })(name),
}[kind]();
const prompt = "Good morning";
const cities = [];
const weather = tool({
  description: "The weather",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => (cities.push(city), "sunny"),
});

const text = await generateText({ model, prompt });
let streamed = "";
for await (const piece of streamText({ model, prompt }).textStream) streamed += piece;
const object = await generateObject({ model, prompt, schema: z.object({ name: z.string(), size: z.number() }) });
const loop = await generateText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(4) });
console.log(JSON.stringify({
  text: text.text, streamed, object: object.object, finish: text.finishReason, usage: text.usage.totalTokens,
  cities, steps: loop.steps.length, last: loop.finishReason,
}));
