// Answers rows of JSON lines in Node:  node answer.mjs data/06_models/onnx/sentiment < rows.jsonl

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as ort from "onnxruntime-web";
import { Bundle } from "./bundle.mjs";

ort.env.wasm.numThreads = 1;
const folder = process.argv[2];
if (!folder) throw new Error("give the folder of an exported task");
const task = await Bundle.open(ort, (file) => readFile(join(folder, file)));
for await (const line of createInterface({ input: process.stdin })) {
  const [answer] = await task.answer([JSON.parse(line)]);
  console.log(JSON.stringify(answer));
}
