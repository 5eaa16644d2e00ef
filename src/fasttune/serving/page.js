"use strict";
// The page of `fasttune serve`. Every text is set as text, never as HTML; nothing is kept beyond this tab.

const ZH = {
  run: "模型", language: "语言", token: "令牌", predict: "预测", words: "显示左右预测的词", result: "预测结果",
  examples: "验证集中的示例", file: "小型 CSV 文件",
  "file-help": "首行为列名，与上面的输入框同名。最多 500 行，由浏览器读取。", choose: "CSV 文件",
  download: "下载预测结果", table: "文件的预测结果", text: "文本", text_pair: "第二句", question: "问题", context: "上下文",
  working: "计算中……", done: "完成", empty: "请先输入文本。", "no-answer": "（没有答案）", none: "（无）",
  "bad-file": "文件没有这些列：", "too-many": "最多 500 行。", entity: "实体", unsure: "（不确定）",
  effect: "数字：去掉该词后，预测概率下降的百分点（负数表示上升）。",
};
const EN = {
  text: "Text", text_pair: "Second text", question: "Question", context: "Context", working: "Computing ...",
  done: "Done", empty: "Enter a text first.", "no-answer": "(no answer)", none: "(none)",
  "bad-file": "The file lacks these columns: ", "too-many": "At most 500 rows.", entity: "entity", unsure: "(unsure)",
  effect: "Numbers: points that the probability loses without the word; below 0, points that it gains.",
};
const ROLES = { text: ["text"], pair: ["text", "text_pair"], question: ["question", "context"], sentence: ["text"] };
const MOST_ROWS = 500, ITEMS = 32, MOST_BARS = 10;
const $ = (id) => document.getElementById(id);
const english = {};
let runs = [], run = null, predictedRows = [];

const say = (name) => ($("language").value === "zh" ? ZH[name] : EN[name] ?? english[name]) ?? name;

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text ?? "";
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function translate() {
  document.documentElement.lang = $("language").value;
  for (const one of document.querySelectorAll("[data-say]")) {
    english[one.dataset.say] ??= one.textContent;
    one.textContent = say(one.dataset.say);
  }
}

function showRun() {
  run = runs[$("run").selectedIndex] ?? runs[0];
  $("title").textContent = run.name;
  document.title = run.name;
  const fields = $("fields");
  fields.replaceChildren();
  for (const role of ROLES[run.kind]) {
    const label = element("label", "", { for: `field-${role}` });
    label.append(element("span", say(role), { "data-say": role }));
    const area = element("textarea", "", { id: `field-${role}`, name: role });
    if (role === "question") area.className = "short";
    fields.append(label, area);
  }
  $("explain").hidden = true;
  $("result").hidden = true;
  $("examples-part").hidden = !run.examples.length;
  $("examples").replaceChildren(...run.examples.map((example) => {
    const item = document.createElement("li");
    const texts = typeof example === "string" ? { text: example } : example;
    const button = element("button", Object.values(texts).join(" / "), { type: "button" });
    button.addEventListener("click", () => { fill(texts); predict(); });
    item.append(button);
    return item;
  }));
}

function fill(texts) {
  for (const role of ROLES[run.kind]) $(`field-${role}`).value = texts[role] ?? "";
}

function input() {
  const texts = Object.fromEntries(ROLES[run.kind].map((role) => [role, $(`field-${role}`).value]));
  return ROLES[run.kind].every((role) => texts[role].trim()) ? texts : null;
}

const item = (texts) => (ROLES[run.kind].length === 1 ? texts.text : texts);

async function ask(path, inputs) {
  const headers = { "Content-Type": "application/json" };
  if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
  const answer = await fetch(run.path + path, { method: "POST", headers, body: JSON.stringify({ inputs }) });
  const content = await answer.json();
  if (answer.status === 401) $("token-label").hidden = false;
  if (!answer.ok) throw new Error(content.error.message);
  return content;
}

async function busy(work) {
  $("status").textContent = say("working");
  try {
    await work();
    $("status").textContent = say("done");
  } catch (error) {
    $("status").textContent = error.message;
  }
}

function predict() {
  const texts = input();
  if (!texts) { $("status").textContent = say("empty"); return; }
  busy(async () => {
    const { predictions } = await ask("/predict", [item(texts)]);
    show(predictions[0], texts);
  });
}

function show(found, texts) {
  const output = $("output");
  output.replaceChildren();
  if ("answer" in found) {
    output.append(element("p", found.answer || say("no-answer"), { class: "answer" }));
    output.append(marked(texts.context, found.start === null ? [] : [found]));
  } else if ("entities" in found || "tags" in found) {
    output.append(marked(found.text, found.entities ?? []));
  } else {
    const answer = found.labels ? found.labels.join(", ") || say("none") : found.label;
    output.append(element("p", answer ?? (found.probabilities ? say("unsure") : String(found.score)), { class: "answer" }));
    if (found.probabilities) output.append(bars(found.probabilities));
  }
  $("result").hidden = false;
  $("explain").hidden = !run.explains;
}

function bars(probabilities) {
  const box = element("div", "", { class: "bars" });
  const first = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, MOST_BARS);
  for (const [name, value] of first) {
    const meter = element("meter", "", { min: 0, max: 1, value, "aria-label": `${name} ${(100 * value).toFixed(1)} %` });
    box.append(element("span", name), meter, element("span", `${(100 * value).toFixed(1)} %`));
  }
  return box;
}

// Characters of the server are code points, those of JavaScript are not.
function marked(text, spans, name = (span) => span.type) {
  const box = element("div", "", { class: "text" });
  const points = Array.from(text);
  let place = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (span.start < place) continue;
    box.append(points.slice(place, span.start).join(""));
    const mark = element("mark", points.slice(span.start, span.end).join(""));
    if (name(span)) mark.append(element("small", name(span)));
    box.append(mark);
    place = span.end;
  }
  box.append(points.slice(place).join(""));
  return box;
}

function explain() {
  const texts = input();
  if (!texts) return;
  busy(async () => {
    const found = await ask("/words", [item(texts)]);
    const signed = (word) => `${word.effect > 0 ? "+" : "−"}${Math.abs(100 * word.effect).toFixed(0)}`;
    for (const old of $("output").querySelectorAll(".text, .note")) old.remove();
    $("output").append(element("p", say("effect"), { class: "note", "data-say": "effect" }));
    for (const role of ROLES[run.kind])
      $("output").append(marked(texts[role], found.words.filter((word) => word.role === role), signed));
  });
}

// Cells of a CSV text, with quotes, line breaks in quotes, and a comma, semicolon or tab between cells.
function cellsOf(text) {
  const head = text.slice(0, text.search(/\r?\n|$/));
  const separator = [",", ";", "\t"].sort((a, b) => head.split(b).length - head.split(a).length)[0];
  const rows = [[]];
  let cell = "", quoted = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted && character === '"' && text[at + 1] === '"') { cell += '"'; at++; }
    else if (character === '"' && (quoted || cell === "")) quoted = !quoted;
    else if (!quoted && character === separator) { rows.at(-1).push(cell); cell = ""; }
    else if (!quoted && character === "\n") { rows.at(-1).push(cell.replace(/\r$/, "")); cell = ""; rows.push([]); }
    else cell += character;
  }
  if (cell || rows.at(-1).length) rows.at(-1).push(cell);
  return rows.filter((row) => row.some((one) => one.trim()));
}

function scoreFile() {
  const file = $("file").files[0];
  if (!file) return;
  busy(async () => {
    const [header, ...rows] = cellsOf((await file.text()).replace(/^\ufeff/, ""));
    const places = Object.fromEntries(ROLES[run.kind].map((role) => [role, header.indexOf(role)]));
    const missing = ROLES[run.kind].filter((role) => places[role] < 0);
    if (missing.length) throw new Error(say("bad-file") + missing.join(", "));
    if (rows.length > MOST_ROWS) throw new Error(say("too-many"));
    const inputs = rows.map((row) => Object.fromEntries(ROLES[run.kind].map((role) => [role, row[places[role]] ?? ""])));
    predictedRows = [];
    for (let first = 0; first < inputs.length; first += ITEMS) {
      const part = inputs.slice(first, first + ITEMS);
      const { predictions } = await ask("/predict", part.map(item));
      predictedRows.push(...predictions.map((found, at) => ({ ...part[at], ...flat(found) })));
      $("status").textContent = `${predictedRows.length} / ${inputs.length}`;
    }
    showTable();
  });
}

function flat(found) {
  if ("answer" in found) return { answer: found.answer, start: found.start ?? "", end: found.end ?? "" };
  if ("entities" in found) return { entities: found.entities.map((one) => `${one.type}: ${one.text}`).join("; ") };
  if ("labels" in found) return { labels: found.labels.join("; ") };
  return "label" in found ? { label: found.label ?? "", score: found.score.toFixed(4) } : { score: found.score };
}

function showTable() {
  const names = Object.keys(predictedRows[0] ?? {});
  const head = document.createElement("tr");
  head.append(...names.map((name) => element("th", name, { scope: "col" })));
  const body = predictedRows.map((row) => {
    const line = document.createElement("tr");
    line.append(...names.map((name) => element("td", String(row[name]))));
    return line;
  });
  $("table").replaceChildren(head, ...body);
  $("table-part").hidden = false;
}

function download() {
  const names = Object.keys(predictedRows[0] ?? {});
  // A cell that a spreadsheet would compute gets an apostrophe.
  const cell = (value) => `"${String(value).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const lines = [names, ...predictedRows.map((row) => names.map((name) => row[name]))];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.map((line) => line.map(cell).join(",")).join("\n") + "\n"]));
  link.download = "predictions.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function start() {
  $("language").value = navigator.language.startsWith("zh") ? "zh" : "en";
  ({ runs } = await (await fetch("/page.json")).json());
  $("run").replaceChildren(...runs.map((one) => element("option", one.name)));
  $("run-label").hidden = runs.length < 2;
  showRun();
  translate();
  $("run").addEventListener("change", () => { showRun(); translate(); });
  $("language").addEventListener("change", translate);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); predict(); });
  $("explain").addEventListener("click", explain);
  $("file").addEventListener("change", scoreFile);
  $("download").addEventListener("click", download);
}

start();
