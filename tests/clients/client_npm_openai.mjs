// The official JavaScript SDK.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  BROKEN, CALL, EXPECTED, FILTERED, IMAGE, KEY, MODEL, SAY, TEXT, TOLD, URL_, WEATHER,
  fails, report, same, sawImage, sawTurns,
} from "./harness.mjs";

const ai = new OpenAI({ baseURL: URL_, apiKey: KEY, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number() });
const parameters = {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
};
const user = (content) => ({ role: "user", content });
const say = (content, more = {}) => ai.chat.completions.create({ model: MODEL, messages: [user(content)], ...more });
const respond = (input, more = {}) => ai.responses.create({ model: MODEL, input, ...more });
const tools = [{ type: "function", function: { name: "weather", parameters, strict: true } }];
const flat = [{ type: "function", name: "weather", parameters, strict: true }];

await report(["openai"], {
  "npm openai, chat completions": {
    async chat() {
      same((await say(SAY)).choices[0].message.content, TEXT);
    },
    async stream() {
      let text = "";
      for await (const chunk of await say(SAY, { stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
      same(text, TEXT);
    },
    async tools() {
      const messages = [user(CALL)];
      const first = (await ai.chat.completions.create({ model: MODEL, messages, tools })).choices[0].message;
      same(JSON.parse(first.tool_calls[0].function.arguments), { city: "Paris" });
      messages.push(first, { role: "tool", tool_call_id: first.tool_calls[0].id, content: WEATHER });
      same((await ai.chat.completions.create({ model: MODEL, messages, tools })).choices[0].message.content, TOLD);
      const streamed = await ai.chat.completions
        .stream({ model: MODEL, messages: [user(CALL)], tools }).finalChatCompletion();
      same(JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments), { city: "Paris" });
    },
    async structured() {
      const format = zodResponseFormat(Person, "person");
      const found = await ai.chat.completions.parse({ model: MODEL, messages: [user("who?")], response_format: format });
      same(found.choices[0].message.parsed, EXPECTED);
    },
    async vision() {
      const parts = [{ type: "text", text: SAY }, { type: "image_url", image_url: { url: IMAGE } }];
      same((await say(parts)).choices[0].message.content, TEXT);
      await sawImage();
    },
    async "multi-turn"() {
      const messages = [{ role: "system", content: "Be brief." }, user("SAY first")];
      messages.push((await ai.chat.completions.create({ model: MODEL, messages })).choices[0].message, user(SAY));
      same((await ai.chat.completions.create({ model: MODEL, messages })).choices[0].message.content, TEXT);
      await sawTurns("Be brief.", "SAY first", '"first"', SAY);
    },
    async errors() {
      await fails(() => say("x", { model: FILTERED }), "policy", OpenAI.BadRequestError);
      await fails(async () => {
        for await (const _ of await say("x", { model: BROKEN, stream: true }));
      }, "error", OpenAI.APIError);
    },
  },
  "npm openai, responses": {
    async chat() {
      same((await respond(SAY)).output_text, TEXT);
    },
    async stream() {
      let text = "";
      for await (const event of await respond(SAY, { stream: true }))
        if (event.type === "response.output_text.delta") text += event.delta;
      same(text, TEXT);
    },
    async tools() {
      const input = [user(CALL)];
      const first = await respond(input, { tools: flat });
      const call = first.output.find((item) => item.type === "function_call");
      same(JSON.parse(call.arguments), { city: "Paris" });
      input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: WEATHER });
      same((await respond(input, { tools: flat })).output_text, TOLD);
    },
    async structured() {
      const format = zodTextFormat(Person, "person");
      same((await ai.responses.parse({ model: MODEL, input: "who?", text: { format } })).output_parsed, EXPECTED);
    },
    async vision() {
      const content = [{ type: "input_text", text: SAY }, { type: "input_image", image_url: IMAGE, detail: "auto" }];
      same((await respond([user(content)])).output_text, TEXT);
      await sawImage();
    },
    async "multi-turn"() {
      const input = [user("SAY first")];
      input.push(...(await respond(input, { instructions: "Be brief." })).output, user(SAY));
      same((await respond(input, { instructions: "Be brief." })).output_text, TEXT);
      await sawTurns("Be brief.", "SAY first", '"first"', SAY);
    },
    async errors() {
      await fails(() => respond("x", { model: FILTERED }), "policy", OpenAI.BadRequestError);
    },
  },
  "npm openai, embeddings": {
    async chat() {
      const made = await ai.embeddings.create({ model: "up/e", input: ["red fox", "blue"] });
      same(made.data.map((row) => row.embedding.length), [16, 16]);
    },
  },
});
