// The page's request as others would send it. Promises: the key is a variable, never its value.

import { contentTypeOf, predictPath } from "./api.js";

const WORDS = new Set(["mask_format", "explain"]); // parameters that are no numbers

/** A POSIX shell command for the same request. */
export function curlCommand(page, ask, hasKey) {
  const lines = [`curl ${quoted(new URL(predictPath(ask.target, ask.parameters), page).href)}`];
  if (hasKey) lines.push('-H "Authorization: Bearer $SACCADE_API_KEY"');
  if (ask.files.length === 1) {
    const [file] = ask.files;
    lines.push(`-H ${quoted(`Content-Type: ${contentTypeOf(file)}`)}`, `--data-binary ${quoted(`@${file.name}`)}`);
  } else {
    for (const file of ask.files) lines.push(`-F ${quoted(`image=@"${file.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  }
  return lines.join(" \\\n  ");
}

/** A Python program for the same request. */
export function pythonProgram(page, ask, hasKey) {
  const server = new URL(".", page).href.replace(/\/$/, "");
  const { model, kind, name } = ask.target;
  const named = { model, ...(kind === "policy" ? {} : { [kind]: name }) };
  const [words, others] = [true, false].map((isWord) =>
    Object.entries(ask.parameters).filter(([key]) => WORDS.has(key) === isWord),
  );
  const texts = { ...named, ...Object.fromEntries(words) };
  const options = [...Object.entries(texts).map(([key, text]) => [key, python(text)]), ...others];
  const given = options.map(([key, value]) => `${key}=${value === true ? "True" : value}`).join(", ");
  const files = ask.files.map((file) => python(file.name));
  const shown = ask.task === "embed" ? "print(answer.vector)" : `answer.draw(${files[0]}).save("answer.png")`;
  const asking =
    files.length === 1
      ? [`    answer = client.predict(${files[0]}, ${given})`, `    ${shown}`]
      : [`    for answer in client.predict_many([${files.join(", ")}], ${given}):`, "        print(answer)"];
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from saccade.client import Client",
    "",
    `with Client(${python(server)}${hasKey ? ', key=os.environ["SACCADE_API_KEY"]' : ""}) as client:`,
    ...asking,
    ...(files.length === 1 && ask.task !== "embed" ? ["print(answer)"] : []),
  ].join("\n");
}

/** Puts the text of `source` on the clipboard, or selects it where the page may not; `button` says which. */
export async function copyText(source, button) {
  button.dataset.name ??= button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent); // only over HTTPS or from this machine
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = button.dataset.name), 1500);
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A Python string literal; JSON's escapes are Python's too, but for characters beyond 16 bits, which stay as they are. */
function python(text) {
  return JSON.stringify(text);
}
