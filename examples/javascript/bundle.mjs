// Inference with an exported task in Node and in browsers, with the files of the bundle as they are.
//
//     import * as ort from "onnxruntime-web";
//     import { Bundle } from "./bundle.mjs";
//     const bundle = await Bundle.load(ort, async (file) => new Uint8Array(await (await fetch(`sentiment/${file}`)).arrayBuffer()));
//     await bundle.answer([{ sentence: "The film is wonderful." }]);  // [{ label, probabilities, truncated }]
//
// The text of a row's value is the same as in Python (docs/deploy.md): a string is its characters, a number
// String(number), a boolean "true" or "false". If the manifest's `missing` is "empty", a value that is null or missing
// is an empty text, else it is an error. Errors are also: numbers that are not finite, integers beyond ±(2^53 - 1), lone
// surrogates, and values of other types.

import { Tokenizer } from "@huggingface/tokenizers";

const FORMAT = 7;
const MAX_CHARACTERS = 32; // per token of max_source_tokens, as in hyperformer/prefix.py

export class Bundle {
  // Load a bundle; `read` returns the bytes of a file in its folder. `allowUnpublished`: also load a bundle that is not
  // published, because its model is no better than the majority baseline.
  static async load(ort, read, { allowUnpublished = false } = {}) {
    const json = async (file) => JSON.parse(new TextDecoder().decode(await read(file)));
    const manifest = await json("manifest.json");
    if (manifest.format !== FORMAT) throw new Error(`the bundle has format ${manifest.format}; expected ${FORMAT}`);
    if (manifest.published !== true && !allowUnpublished)
      throw new Error(
        `${manifest.task} is not published, because its model is no better than the majority baseline on validation. ` +
          "Train a better model, or allow it with allowUnpublished",
      );
    if (manifest.labels.length === 0 || !("model.onnx" in manifest.files))
      throw new Error(`${manifest.task} has no classifier graph; expected a classification or regression task`);
    const graph = await read("model.onnx");
    await verify("model.onnx", graph, manifest.files["model.onnx"]);
    const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    // without added tokens, so that </s> in a text is not read as a special token
    const tokenizer = new Tokenizer({ ...(await json("tokenizer.json")), added_tokens: [] }, {});
    return new Bundle(ort, session, tokenizer, manifest);
  }

  constructor(ort, session, tokenizer, manifest) {
    Object.assign(this, { ort, session, tokenizer, manifest });
  }

  // Answer rows, which are objects with the columns of the task's text.
  async answer(rows) {
    const encoded = rows.map((row) => this.encode(row));
    const length = Math.max(...encoded.map(({ ids }) => ids.length));
    const ids = new BigInt64Array(rows.length * length), mask = new BigInt64Array(rows.length * length);
    encoded.forEach((tokens, row) =>
      tokens.ids.forEach((id, column) => {
        ids[row * length + column] = BigInt(id);
        mask[row * length + column] = 1n;
      }),
    );
    const tensor = (data) => new this.ort.Tensor("int64", data, [rows.length, length]);
    const outputs = await this.session.run({ input_ids: tensor(ids), attention_mask: tensor(mask) });
    const { labels, numbers } = this.manifest;
    return encoded.map(({ truncated }, row) => {
      const start = row * labels.length;
      const probabilities = Array.from(outputs.probabilities.data.slice(start, start + labels.length));
      const best = probabilities.indexOf(Math.max(...probabilities));
      return {
        label: labels[best],
        probabilities: Object.fromEntries(labels.map((label, index) => [label, probabilities[index]])),
        ...(numbers ? { value: outputs.value.data[row] } : {}),
        truncated,
      };
    });
  }

  // Return the source text of a row, or its two source texts, as a list.
  source(row) {
    return [this.manifest.text].flat().map((template) => render(template, row, this.manifest.missing));
  }

  // Encode a row into token ids, truncated to max_source_tokens.
  encode(row) {
    const limit = MAX_CHARACTERS * this.manifest.max_source_tokens;
    const texts = this.source(row);
    const prefixes = texts.map((text) => truncate(text, limit));
    const truncated = texts.some((text, index) => text.length > prefixes[index].length);
    const tokens = prefixes.map((text) => this.tokenizer.encode(text, { add_special_tokens: false }).ids);
    const all = this.tokenizer.encode(prefixes[0], { text_pair: prefixes[1] ?? null }).ids; // with special tokens
    const specialTokens = all.length - tokens.flat().length;
    const maxTokens = this.manifest.max_source_tokens - specialTokens;
    if (tokens.flat().length <= maxTokens) return { ids: all, truncated };
    const counts = tokens.map((ids) => Math.min(ids.length, limit));
    const lengths = counts.length === 1 ? [maxTokens] : truncateLongestFirst(...counts, maxTokens);
    const ids = [];
    let position = 0;
    tokens.forEach((textIds, index) => {
      const start = findSequence(all, textIds, position);
      ids.push(...all.slice(position, start), ...textIds.slice(0, lengths[index]));
      position = start + textIds.length;
    });
    return { ids: [...ids, ...all.slice(position)], truncated: true };
  }
}

// Return the distinct columns of a template, or of a pair of templates, in order.
export function findColumns(text) {
  return [...new Set([text].flat().flatMap((template) => parseTemplate(template).map(([, column]) => column)))].filter(
    (column) => column !== undefined,
  );
}

// Parse a template with columns in braces, in which {{ and }} are literal braces, into pairs of a literal text and the
// column after it; the last pair has no column.
function parseTemplate(template) {
  const pieces = [];
  let literal = "";
  for (const [match, column] of template.matchAll(/\{\{|\}\}|\{([^{}]*)\}|[^{}]+|./gs)) {
    if (column === undefined) {
      if (match === "{" || match === "}") throw new Error(`the text ${template} has a stray ${match}`);
      literal += match === "{{" || match === "}}" ? match[0] : match;
    } else {
      if (!column.trim() || /[:!]/.test(column)) throw new Error(`the text ${template} has the invalid column {${column}}`);
      pieces.push([literal, column]);
      literal = "";
    }
  }
  return [...pieces, [literal, undefined]];
}

// Fill a template with the values of a row.
function render(template, row, missing) {
  return parseTemplate(template)
    .map(([literal, column]) => (column === undefined ? literal : literal + renderValue(row, column, missing)))
    .join("");
}

function renderValue(row, column, missing) {
  const value = Object.hasOwn(row, column) ? row[column] : undefined;
  if ((value === undefined || value === null || Number.isNaN(value)) && missing === "empty") return "";
  const reason = refuse(value);
  if (reason) throw new Error(`the row's ${JSON.stringify(column)} is ${reason}`);
  return String(value);
}

// Return why a value has no text; an empty text if it has one.
function refuse(value) {
  if (value === undefined) return "missing; expected a string, a number or a boolean";
  if (typeof value === "string")
    return /\p{Surrogate}/u.test(value) ? "not valid Unicode; expected text without lone surrogates" : "";
  if (typeof value === "boolean") return "";
  if (typeof value !== "number")
    return `${value === null ? "null" : `of type ${typeof value}`}; expected a string, a number or a boolean`;
  if (!Number.isFinite(value)) return `${value}; expected a finite number`;
  if (Number.isInteger(value) && !Number.isSafeInteger(value))
    return `an integer beyond ±${Number.MAX_SAFE_INTEGER}; expected a smaller one. Write it as a string`;
  return "";
}

// Return the first `limit` characters of a text; a character beyond U+FFFF has two units in a string.
function truncate(text, limit) {
  let end = 0;
  for (let count = 0; count < limit && end < text.length; count++) end += text.codePointAt(end) > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

// Return the lengths of two texts after truncation to `limit` tokens, the longer one first, as `tokenizers` does.
function truncateLongestFirst(first, second, limit) {
  let [short, long] = first > second ? [second, first] : [first, second];
  long = short > limit ? short : Math.max(short, limit - short);
  if (short + long > limit) [short, long] = [Math.floor(limit / 2), Math.ceil(limit / 2)];
  return first > second ? [long, short] : [short, long];
}

// Return the index of `sequence` in `ids`, from `position` on.
function findSequence(ids, sequence, position) {
  while (!sequence.every((id, offset) => ids[position + offset] === id)) position += 1;
  return position;
}

async function verify(file, bytes, expected) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const checksum = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (checksum !== expected) throw new Error(`${file} does not match its sha256 in the manifest`);
}
