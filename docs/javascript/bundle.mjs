// An exported task in JavaScript: the same graph, tokenizer and manifest as everywhere, in Node and in a browser.
//
//     import * as ort from "onnxruntime-web";
//     import { Bundle } from "./bundle.mjs";
//     const task = await Bundle.open(ort, async (file) => new Uint8Array(await (await fetch(`sentiment/${file}`)).arrayBuffer()));
//     await task.answer([{ sentence: "The film is wonderful." }]);  // [{ label, probabilities, truncated }]

import { Tokenizer } from "@huggingface/tokenizers";

const FORMAT = 3;
const CHARACTERS = 32; // that are read of a text, per token of max_source_tokens: as hyperformer/prefix.py

export class Bundle {
  // `read` gives the bytes of a file of the bundle's folder.
  static async open(ort, read) {
    const json = async (file) => JSON.parse(new TextDecoder().decode(await read(file)));
    const manifest = await json("manifest.json");
    if (manifest.format !== FORMAT) throw new Error(`the bundle has format ${manifest.format}, expected ${FORMAT}`);
    if (manifest.labels.length === 0 || !("model.onnx" in manifest.files))
      throw new Error(`${manifest.task} has no classifier graph of its own; give the bundle of a task of given answers`);
    const graph = await read("model.onnx");
    await verify("model.onnx", graph, manifest.files["model.onnx"]);
    const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    // without added tokens, so that </s> in a text is text
    const tokenizer = new Tokenizer({ ...(await json("tokenizer.json")), added_tokens: [] }, {});
    return new Bundle(ort, session, tokenizer, manifest);
  }

  constructor(ort, session, tokenizer, manifest) {
    Object.assign(this, { ort, session, tokenizer, manifest });
  }

  // Answers to rows: objects with the columns of the task's text.
  async answer(rows) {
    const encoded = rows.map((row) => this.encode(row));
    const length = Math.max(...encoded.map(({ ids }) => ids.length));
    const ids = new BigInt64Array(rows.length * length), mask = new BigInt64Array(rows.length * length);
    encoded.forEach((one, row) =>
      one.ids.forEach((id, place) => {
        ids[row * length + place] = BigInt(id);
        mask[row * length + place] = 1n;
      }),
    );
    const tensor = (data) => new this.ort.Tensor("int64", data, [rows.length, length]);
    const found = await this.session.run({ input_ids: tensor(ids), attention_mask: tensor(mask) });
    const { labels, numbers } = this.manifest;
    return encoded.map(({ truncated }, row) => {
      const shares = Array.from(found.probabilities.data.slice(row * labels.length, (row + 1) * labels.length));
      const best = shares.indexOf(Math.max(...shares));
      return {
        label: labels[best],
        probabilities: Object.fromEntries(labels.map((label, place) => [label, shares[place]])),
        ...(numbers ? { value: found.value.data[row] } : {}),
        truncated,
      };
    });
  }

  // Token ids of a row, truncated to what the task reads.
  encode(row) {
    const limit = CHARACTERS * this.manifest.max_source_tokens;
    const texts = [this.manifest.text].flat().map((template) => rendered(template, row));
    const parts = texts.map((text) => limited(text, limit));
    const longer = texts.some((text, part) => text.length > parts[part].length);
    const bare = parts.map((part) => this.tokenizer.encode(part, { add_special_tokens: false }).ids);
    const whole = this.tokenizer.encode(parts[0], { text_pair: parts[1] ?? null }).ids;
    const marks = whole.length - bare.flat().length;
    const most = this.manifest.max_source_tokens - marks;
    if (bare.flat().length <= most) return { ids: whole, truncated: longer };
    const counts = bare.map((ids) => Math.min(ids.length, limit));
    const kept = counts.length === 1 ? [most] : shared(...counts, most);
    const cut = [];
    let place = 0;
    bare.forEach((ids, part) => {
      const start = at(whole, ids, place);
      cut.push(...whole.slice(place, start), ...ids.slice(0, kept[part]));
      place = start + ids.length;
    });
    return { ids: [...cut, ...whole.slice(place)], truncated: true };
  }
}

// A template's text for a row; the columns stand in braces.
function rendered(template, row) {
  return template.replace(/\{\{|\}\}|\{(\w+)\}/g, (found, column) => {
    if (column === undefined) return found[0];
    if (typeof row[column] !== "string" && typeof row[column] !== "number")
      throw new Error(`the row has no text in ${column}`);
    return String(row[column]);
  });
}

// The first `limit` characters of a text; one beyond U+FFFF is two units of a string.
function limited(text, limit) {
  let end = 0;
  for (let count = 0; count < limit && end < text.length; count++) end += text.codePointAt(end) > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

// How much is kept of two texts of these lengths: the longer one is cut first, as `tokenizers` does.
function shared(first, second, most) {
  let [short, long] = first > second ? [second, first] : [first, second];
  long = short > most ? short : Math.max(short, most - short);
  if (short + long > most) [short, long] = [Math.floor(most / 2), Math.ceil(most / 2)];
  return first > second ? [long, short] : [short, long];
}

// Where `part` begins in `whole`, from `place` on.
function at(whole, part, place) {
  while (!part.every((id, offset) => whole[place + offset] === id)) place += 1;
  return place;
}

async function verify(file, bytes, expected) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== expected) throw new Error(`${file} is not the file that was exported (its sha256 differs)`);
}
