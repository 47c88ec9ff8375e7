// Answer rows in JSONL with Node:  node answer.mjs [--allow-unpublished] data/06_models/onnx/sentiment < rows.jsonl

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as ort from "onnxruntime-web";
import { Bundle } from "./bundle.mjs";

ort.env.wasm.numThreads = 1;
const allowUnpublished = process.argv.includes("--allow-unpublished");
const folder = process.argv.slice(2).find((argument) => argument !== "--allow-unpublished");
if (!folder) throw new Error("missing argument; expected the folder of an exported task");
const bundle = await Bundle.load(ort, (file) => readFile(join(folder, file)), { allowUnpublished });
let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  number += 1;
  try {
    const [answer] = await bundle.answer([JSON.parse(line)]);
    console.log(JSON.stringify(answer));
  } catch (error) {
    console.error(`line ${number}: ${error.message}`);
    process.exit(1);
  }
}
