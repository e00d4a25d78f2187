// What every JavaScript client's script shares; see harness.py.
import { readFileSync } from "node:fs";

export const URL_ = process.env.SLUICE_URL;
export const KEY = "any";
export const MODEL = "up/ok";
export const TEXT = "The gate is open, and the water runs.";
export const SAY = `SAY ${TEXT}`;
export const CALL = 'CALL weather {"city": "Paris"}';
export const WEATHER = "21 degrees";
export const TOLD = `The tool said: ${WEATHER}`;
export const FILTERED = "up/m-400filter";
export const BROKEN = "up/m-ssemid:2";
export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const IMAGE = `data:image/png;base64,${PNG}`;
export const EXPECTED = { name: "text", age: 1 };
const FEATURES = ["chat", "stream", "tools", "structured", "vision", "multi-turn", "errors"];

export function same(found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted))
    throw new Error(`got ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

async function lastBody() {
  const told = await (await fetch(`${process.env.UPSTREAM_URL}/_log`)).json();
  return JSON.stringify(told.log.at(-1).body);
}

export async function sawImage() {
  if (!(await lastBody()).includes(PNG)) throw new Error("the image did not reach the backend");
}

export async function sawTurns(...texts) {
  const told = await lastBody();
  const places = texts.map((text) => told.indexOf(text));
  if (places.some((at, n) => at < 0 || at < (places[n - 1] ?? 0)))
    throw new Error(`the conversation did not reach the backend: ${places}`);
}

export async function fails(call, told, kind = Error) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof kind)) throw new Error(`another kind of error: ${error?.name}: ${error?.message}`);
    const text = `${error.message} ${error.responseBody ?? ""} ${error.lastError?.message ?? ""}`;
    if (!text.includes(told)) throw new Error(`the error says ${text}`);
    return;
  }
  throw new Error("no error");
}

export async function report(packages, rows) {
  const versions = Object.fromEntries(
    packages.map((name) => [name, JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version]),
  );
  console.log(JSON.stringify({ versions }));
  let good = true;
  for (const [row, features] of Object.entries(rows))
    for (const feature of FEATURES) {
      const told = await run(features[feature]);
      good &&= told.ok !== false;
      console.log(JSON.stringify({ row, feature, ...told }));
    }
  process.exit(good ? 0 : 1);
}

async function run(work) {
  if (work === undefined) return { ok: null, note: "the client has no such thing" };
  try {
    await work();
  } catch (error) {
    console.error(error);
    return { ok: false, note: `${error?.name}: ${error?.message}`.slice(0, 300) };
  }
  return { ok: true, note: "" };
}
