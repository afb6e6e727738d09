// Shows the OpenAPI document. Promises: nothing from outside, text from the document is only ever text.

import { element } from "./panels.js";

const METHODS = ["get", "post", "put", "delete", "patch"];

const main = document.getElementById("operations");
try {
  const response = await fetch("openapi.json");
  main.replaceChildren(...sections(await response.json()));
} catch (error) {
  main.replaceChildren(element("p", { class: "notice" }, `The OpenAPI document could not be read: ${error.message}`));
}

/** One section per tag, operations in the order of the document. */
function sections(api) {
  const byTag = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => name in item)) {
      const tag = item[method].tags?.[0] ?? "other";
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(api, path, method, item[method]));
    }
  }
  return [...byTag].map(([tag, operations]) => element("section", {}, element("h2", {}, tag), ...operations));
}

function operation(api, path, method, described) {
  return element(
    "details",
    { class: "operation" },
    element("summary", {}, element("span", { class: "method" }, method.toUpperCase()), element("code", {}, path)),
    element(
      "div",
      {},
      element("p", {}, described.description ?? described.summary ?? ""),
      ...(described.security ? [element("p", { class: "help" }, keyNote(described.security))] : []),
      ...(described["x-codeSamples"] ?? []).flatMap(({ label, source }) => [element("h3", {}, label), element("pre", {}, source)]),
      ...parameters(described.parameters ?? []),
      ...content(api, "Request body", described.requestBody?.content),
      ...Object.entries(described.responses ?? {}).flatMap(([status, answer]) =>
        content(api, `${status} ${answer.description ?? ""}`, answer.content ?? {}),
      ),
    ),
  );
}

function keyNote(security) {
  const isOptional = security.some((choice) => Object.keys(choice).length === 0);
  return isOptional ? "No key is set here." : "Needs a key: Authorization: Bearer KEY.";
}

function parameters(given) {
  if (given.length === 0) return [];
  const rows = given.map((item) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, item.name), item.required ? " (required)" : ""),
      element("td", {}, item.in),
      element("td", {}, typeOf(item.schema ?? {})),
      element("td", {}, item.description ?? ""),
    ),
  );
  const head = element("tr", {}, ...["name", "in", "type", "what"].map((name) => element("th", { scope: "col" }, name)));
  return [element("h3", {}, "Parameters"), element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))];
}

/** Media types that share a schema are shown once. */
function content(api, title, types) {
  if (!types) return [];
  const typesBySchema = new Map();
  for (const [type, { schema }] of Object.entries(types)) {
    const text = JSON.stringify(resolved(api, schema ?? {}, []), null, 2);
    typesBySchema.set(text, [...(typesBySchema.get(text) ?? []), type]);
  }
  const shown = [...typesBySchema].flatMap(([text, names]) => [
    element("p", { class: "help" }, names.join(", ")),
    text === "{}" ? null : element("details", {}, element("summary", {}, "schema"), element("pre", {}, text)),
  ]);
  return [element("h3", {}, title), ...shown.filter((node) => node !== null)];
}

function typeOf(schema) {
  if (schema.enum) return schema.enum.join(" | ");
  const limits = [["minimum", "≥"], ["maximum", "≤"]].filter(([name]) => name in schema);
  return [schema.type ?? "any", ...limits.map(([name, sign]) => `${sign} ${schema[name]}`)].join(" ");
}

/** The schema with its references followed; one that refers to itself ends in its name. */
function resolved(api, node, names) {
  if (Array.isArray(node)) return node.map((item) => resolved(api, item, names));
  if (node === null || typeof node !== "object") return node;
  const name = node.$ref?.split("/").pop();
  if (name) return names.includes(name) ? name : resolved(api, api.components.schemas[name], [...names, name]);
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, resolved(api, value, names)]));
}
