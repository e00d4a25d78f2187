// Vercel's AI SDK with its OpenAI provider (responses and chat) and the one for compatible servers.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import {
  BROKEN, CALL, EXPECTED, FILTERED, IMAGE, KEY, MODEL, SAY, TEXT, TOLD, URL_, WEATHER,
  fails, report, same, sawImage, sawTurns,
} from "./harness.mjs";

const openai = createOpenAI({ baseURL: URL_, apiKey: KEY });
const compatible = createOpenAICompatible({
  name: "sluice", baseURL: URL_, apiKey: KEY, supportsStructuredOutputs: true, includeUsage: true,
});
const Person = z.object({ name: z.string(), age: z.number() });
const weather = tool({
  description: "Tell the weather.", inputSchema: z.object({ city: z.string() }), execute: async () => WEATHER,
});

// `store: false`: each call brings the whole conversation; without it the SDK only refers to the items of earlier
// answers, which needs RESPONSES_STORE=true.
const STATELESS = { openai: { store: false } };

function rows(model, providerOptions) {
  const ask = (more, name = MODEL) => generateText({ model: model(name), maxRetries: 0, providerOptions, ...more });
  return {
    async chat() {
      const said = await ask({ prompt: SAY });
      same([said.text, said.finishReason, said.usage.outputTokens > 0], [TEXT, "stop", true]);
    },
    async stream() {
      let text = "";
      for await (const part of streamText({ model: model(MODEL), maxRetries: 0, prompt: SAY }).textStream) text += part;
      same(text, TEXT);
    },
    async tools() {
      const said = await ask({ prompt: CALL, tools: { weather }, stopWhen: stepCountIs(3) });
      same([said.steps[0].toolCalls[0].input, said.text], [{ city: "Paris" }, TOLD]);
      const streamed = streamText({
        model: model(MODEL), maxRetries: 0, prompt: CALL, tools: { weather }, stopWhen: stepCountIs(3),
      });
      same(await streamed.text, TOLD);
    },
    async structured() {
      same((await generateObject({ model: model(MODEL), maxRetries: 0, schema: Person, prompt: "who?" })).object, EXPECTED);
    },
    async vision() {
      const content = [{ type: "text", text: SAY }, { type: "image", image: IMAGE }];
      same((await ask({ messages: [{ role: "user", content }] })).text, TEXT);
      await sawImage();
    },
    async "multi-turn"() {
      const messages = [{ role: "user", content: "SAY first" }];
      messages.push(...(await ask({ system: "Be brief.", messages })).response.messages, { role: "user", content: SAY });
      same((await ask({ system: "Be brief.", messages })).text, TEXT);
      await sawTurns("Be brief.", "SAY first", '"first"', SAY);
    },
    async errors() {
      await fails(() => ask({ prompt: "x" }, FILTERED), "policy");
      await fails(async () => {
        let broken;
        const said = streamText({
          model: model(BROKEN), maxRetries: 0, prompt: "x", onError: ({ error }) => { broken = error; },
        });
        await said.consumeStream();
        if (broken) throw broken instanceof Error ? broken : new Error(JSON.stringify(broken));
      }, "error");
    },
  };
}

await report(["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"], {
  "AI SDK, openai() (responses, RESPONSES_STORE=true)": rows((name) => openai(name)),
  "AI SDK, openai() (responses, store: false)": rows((name) => openai(name), STATELESS),
  "AI SDK, openai.chat()": rows((name) => openai.chat(name)),
  "AI SDK, openai-compatible": rows((name) => compatible(name)),
  "AI SDK, embeddings": {
    async chat() {
      same((await embed({ model: compatible.embeddingModel("up/e"), value: "blue" })).embedding.length, 16);
      same((await embed({ model: openai.embeddingModel("up/e"), value: "blue" })).embedding.length, 16);
    },
  },
});
