// Shows and hides questions while answers change.
//
// The server decides in the end; this only spares the respondent the wait. Each
// question carries its logic as a JSON tree: a text, a field, or an operator
// followed by its operands.

const form = document.querySelector("form");
const questions = [...document.querySelectorAll("[data-field]")];

const isNumber = (text) => /^\s*[+-]?(\d+(\.\d*)?|\.\d+)\s*$/.test(text);
const isTrue = (value) =>
  typeof value === "boolean" ? value : isNumber(value) ? Number(value) !== 0 : value !== "";
const asText = (value) => (typeof value === "boolean" ? String(Number(value)) : String(value));

function order(left, right) {
  const [a, b] = [asText(left), asText(right)];
  const [x, y] = isNumber(a) && isNumber(b) ? [Number(a), Number(b)] : [a, b];
  return x < y ? -1 : x > y ? 1 : 0;
}

function arithmetic(compute) {
  return (left, right) => {
    const [a, b] = [asText(left), asText(right)];
    if (!isNumber(a) || !isNumber(b)) return "";
    const result = compute(Number(a), Number(b));
    return Number.isFinite(result) ? String(result) : "";
  };
}

const isBlank = (value) => asText(value) === "";

const OPERATORS = {
  "=": (a, b) => order(a, b) === 0,
  "<>": (a, b) => order(a, b) !== 0,
  "<": (a, b) => order(a, b) < 0,
  "<=": (a, b) => order(a, b) <= 0,
  ">": (a, b) => order(a, b) > 0,
  ">=": (a, b) => order(a, b) >= 0,
  "or": (a, b) => isTrue(a) || isTrue(b),
  "and": (a, b) => isTrue(a) && isTrue(b),
  "not": (a) => !isTrue(a),
  "+": arithmetic((a, b) => a + b),
  "-": (a, b) => (b === undefined ? arithmetic((x, y) => x - y)("0", a) : arithmetic((x, y) => x - y)(a, b)),
  "*": arithmetic((a, b) => a * b),
  "/": arithmetic((a, b) => a / b),
  "%": arithmetic((a, b) => a % b),
  "^": arithmetic((a, b) => a ** b),
  "if": (test, yes, no) => (isTrue(test) ? yes : no),
  "contains": (text, part) => asText(text).toLowerCase().includes(asText(part).toLowerCase()),
  "isblankormissingcode": isBlank,
  "isblanknotmissingcode": isBlank,
};

function answer(tree, shown) {
  if (!shown.has(tree.field)) return tree.code ? "0" : "";
  const question = questions.find((one) => one.dataset.field === tree.field);
  if (tree.code) {
    const box = [...question.querySelectorAll("input[data-code]")].find((one) => one.dataset.code === tree.code);
    return box?.checked ? "1" : "0";
  }
  const radios = question.querySelectorAll("input[type=radio]");
  if (radios.length) return [...radios].find((one) => one.checked)?.value ?? "";
  const control = question.querySelector("input:not([type=file]), select, textarea");
  return (control?.value ?? "").trim().replace(/^(\d{4}-\d\d-\d\d)T/, "$1 ");
}

function evaluate(tree, shown) {
  if (Array.isArray(tree)) {
    const [operator, ...operands] = tree;
    return OPERATORS[operator](...operands.map((operand) => evaluate(operand, shown)));
  }
  return typeof tree === "object" ? answer(tree, shown) : tree;
}

function update() {
  // As on the server: what is hidden counts as blank, which may hide more.
  const shown = new Set(
    questions.filter((one) => one.dataset.logic || !one.hidden).map((one) => one.dataset.field),
  );
  for (let changed = true; changed; ) {
    changed = false;
    for (const one of questions) {
      const name = one.dataset.field;
      if (one.dataset.logic && shown.has(name) && !isTrue(evaluate(JSON.parse(one.dataset.logic), shown))) {
        shown.delete(name);
        changed = true;
      }
    }
  }
  for (const one of questions) one.hidden = !shown.has(one.dataset.field);
}

function offerDrawing(input) {
  const canvas = document.createElement("canvas");
  const drawn = document.createElement("input");
  Object.assign(canvas, { width: 500, height: 140 });
  Object.assign(drawn, { type: "hidden", name: `__drawn:${input.name}` });
  canvas.setAttribute("aria-hidden", "true");
  const hint = document.createElement("p");
  hint.textContent = input.dataset.draw;
  const clear = document.createElement("button");
  Object.assign(clear, { type: "button", textContent: input.dataset.clear });
  input.before(hint, canvas, clear);
  input.after(drawn);
  const pen = canvas.getContext("2d");
  Object.assign(pen, { lineWidth: 2, lineCap: "round", strokeStyle: "navy" });
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  let drawing = false;
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    pen.lineTo(...at(event));
    pen.stroke();
  });
  clear.addEventListener("click", () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    drawn.value = "";
  });
  canvas.addEventListener("pointerup", () => {
    drawing = false;
    drawn.value = canvas.toDataURL("image/png");
  });
}

if (form) {
  document.querySelectorAll("input[data-draw]").forEach(offerDrawing);
  form.addEventListener("input", update);
  form.addEventListener("change", update);
  update();
  document.querySelector("[aria-invalid=true]")?.focus();
}
