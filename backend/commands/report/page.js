"use strict";
const WIDTH = 900, LEFT = 14, RIGHT = 14; // as the histogram is drawn
function counted(kind, scores, threshold) {
  let rejected = 0;
  for (const score of scores) rejected += score >= threshold;
  return kind === "defective" ? scores.length - rejected : rejected;
}

function percent(count, total) {
  return (100 * count / total).toFixed(1) + " %";
}

function verdictOf(card, threshold) {
  const rejected = Number(card.dataset.score) >= threshold;
  if (card.dataset.kind === "good" && rejected) return "false reject";
  return card.dataset.kind === "defective" && !rejected ? "escape" : "";
}

/** The line, and what follows it; `atRest` is called where it has come to rest. */
function board(section, atRest) {
  const facts = JSON.parse(section.dataset.board);
  const [low, high] = facts.range, { kinds, ng, ok } = facts.words;
  const svg = section.querySelector(".histogram"), line = svg.querySelector(".line");
  if (!line) return null;
  const field = section.querySelector("[data-threshold]"), sentence = section.querySelector("[data-sentence]");
  const buttons = [...section.querySelectorAll("[data-to]")], cards = [...section.querySelectorAll(".card")];
  let threshold = 0;

  function write() {
    const told = [];
    for (const [kind, scores] of Object.entries(facts.scores)) {
      const count = counted(kind, scores, threshold), total = scores.length, bounds = facts.bounds[kind];
      const cell = section.querySelector(`[data-count="${kind}"]`), more = document.createElement("small");
      more.textContent = ` of ${total} · ${percent(count, total)}`;
      cell.replaceChildren(String(count), more);
      const sure = bounds ? `, 95 % confidence: ${bounds[count][0]} to ${bounds[count][1]} %` : "";
      const decided = kind === "defective" ? ok : ng, said = count === 1 ? decided.of_one : decided.of_several;
      if (kind !== "train") told.push(`${count} of ${total} ${kinds[kind]}${total === 1 ? "" : "s"} ${said} (${percent(count, total)}${sure})`);
    }
    const mark = facts.marks.find(([, value]) => value === threshold);
    if (!told.length) return; // images of the fit alone: nothing is decided about them
    let text = `At ${threshold.toFixed(4)}${mark ? ` (${mark[0]})` : ""}, ${told.join(", and ")}.`;
    const types = Object.entries(facts.types);
    if (types.length > 1) {
      const passing = types.map(([type, scores]) => [type, counted("defective", scores, threshold), scores.length]).filter((type) => type[1]);
      if (passing.length) text += ` Of those that ${ok.of_several}: ${passing.map(([type, count, total]) => `${type} ${count} of ${total}`).join(", ")}.`;
    }
    sentence.textContent = text;
  }

  function move(value, keepField) {
    threshold = Math.min(Math.max(value, low), high);
    const x = (LEFT + (WIDTH - LEFT - RIGHT) * (threshold - low) / (high - low)).toFixed(2);
    line.setAttribute("transform", `translate(${x} 0)`);
    line.setAttribute("aria-valuenow", threshold.toFixed(4));
    svg.querySelector('[data-clip="above"]').setAttribute("x", x);
    svg.querySelector('[data-clip="below"]').setAttribute("width", x);
    if (!keepField) field.value = threshold.toFixed(4);
    for (const button of buttons) button.setAttribute("aria-pressed", Number(button.dataset.to) === threshold);
    for (const card of cards) {
      const verdict = verdictOf(card, threshold);
      card.dataset.verdict = verdict;
      card.classList.toggle("wrong", verdict !== "");
      card.querySelector("[data-decision]").textContent = (Number(card.dataset.score) >= threshold ? ng : ok).name;
      card.querySelector("em").textContent = verdict;
    }
    write();
  }

  function at(event) {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * WIDTH / box.width;
    return low + (high - low) * (x - LEFT) / (WIDTH - LEFT - RIGHT);
  }

  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    line.focus({ preventScroll: true });
    move(at(event));
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) move(at(event)); });
  svg.addEventListener("pointerup", () => atRest());
  line.addEventListener("keydown", (event) => {
    const step = (high - low) / 500;
    const value = {
      ArrowLeft: threshold - step, ArrowDown: threshold - step, ArrowRight: threshold + step, ArrowUp: threshold + step,
      PageDown: threshold - 20 * step, PageUp: threshold + 20 * step, Home: low, End: high,
    }[event.key];
    if (value === undefined) return;
    event.preventDefault();
    move(value);
  });
  line.addEventListener("keyup", () => atRest());
  field.addEventListener("input", () => { if (field.value !== "" && Number.isFinite(Number(field.value))) move(Number(field.value), true); });
  field.addEventListener("change", () => { move(threshold); atRest(); });
  for (const button of buttons) button.addEventListener("click", () => { move(Number(button.dataset.to)); atRest(); });
  move(facts.marks[0][1]);
  return () => threshold;
}

/** The cards, sorted and filtered. */
function gallery(section) {
  const holder = section.querySelector("[data-gallery]");
  if (!holder) { board(section, () => {}); return; } // no image has a card
  const cards = [...holder.children];
  const sort = section.querySelector("[data-sort]"), filter = section.querySelector("[data-filter]");
  const current = board(section, () => update());
  const far = (card) => Math.abs(card.dataset.score - current());
  const compare = {
    "telling": (a, b) => (a.dataset.verdict === "") - (b.dataset.verdict === "") || far(a) - far(b),
    "score": (a, b) => a.dataset.score - b.dataset.score,
    "-score": (a, b) => b.dataset.score - a.dataset.score,
    "label": (a, b) => a.dataset.label.localeCompare(b.dataset.label),
  };
  const matches = (card, wanted) =>
    wanted === "" || (wanted === "wrong" ? card.dataset.verdict !== "" :
    wanted.startsWith("label:") ? card.dataset.label === wanted.slice(6) : card.dataset.verdict === wanted);
  function update() {
    cards.sort((a, b) => compare[sort.value](a, b) || a.dataset.order - b.dataset.order);
    let shown = 0;
    for (const card of cards) { card.hidden = !matches(card, filter.value); shown += !card.hidden; }
    holder.append(...cards);
    section.querySelector("[data-shown]").textContent = shown + " of " + cards.length;
  }
  sort.onchange = filter.onchange = update;
  update();
}

for (const section of document.querySelectorAll("section[data-board]")) gallery(section);
