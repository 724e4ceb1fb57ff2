/* The explorer of matches (book/explorer.md), and its small copy on the front page.
   All data come with the page: data.js or front.js. */
(function () {
  "use strict";

  const data = window.qaconvExplorer;
  const root = document.querySelector(".explorer");
  if (!data || !root) return;

  const folder = new URL(".", document.currentScript.src);
  const SVG = "http://www.w3.org/2000/svg";
  const { height, width, unit } = data;
  const locations = height * width;
  const GAP = 4; // columns between the images
  const LOWEST = 0.5; // the scale of local similarities ends here
  const SURE = 0.5; // above this score the model says "the same person"
  const SIDES = ["query", "gallery"];
  const other = { query: "gallery", gallery: "query" };
  const NOT_THE_PERSON = ["background", "other person", "occluder"];
  const GROUPS = {
    head: ["blue", "head"],
    "torso and arms": ["vermilion", "torso", "upper arm", "forearm"],
    bag: ["orange", "bag"],
    legs: ["green", "hips", "thigh", "shin"],
    feet: ["purple", "foot"],
    "not the person": ["grey", ...NOT_THE_PERSON],
  };
  const front = root.dataset.front !== undefined;
  const find = (selector) => root.querySelector(selector);
  const byId = (name) => document.getElementById("explorer-" + name);

  const START = { query: 1, gallery: 1, features: "trained", lines: "mutual",
    above: Math.round(100 * data.threshold), colour: "none" };
  const state = { ...START };
  let kept = null; // the location that was tapped or reached with keys
  let pointed = null; // the one under the pointer
  let quiz = null;
  const images = {};

  // ------------------------------------------------------------------ what the library computed

  const query = () => data.queries[state.query - 1];
  const pair = () => query().gallery[state.gallery - 1];
  const matches = () => pair().matches[state.features];
  const between = (first, second) => matches().similarities[first * locations + second];
  const shown = { query, gallery: pair };
  const partAt = (side, location) => data.shown[data.parts[shown[side]().image][location]];

  function bestMatch(side, location) {
    const { to_gallery, to_query } = matches();
    const [there, back] = side === "query" ? [to_gallery, to_query] : [to_query, to_gallery];
    const place = there[location];
    const value = side === "query" ? between(location, place) : between(place, location);
    return { place, value, mutual: back[place] === location };
  }

  function lineFrom(side, location) {
    const { place, value, mutual } = bestMatch(side, location);
    const [first, second] = side === "query" ? [location, place] : [place, location];
    const part = partAt(side, location);
    const right = part === partAt(other[side], place) && !NOT_THE_PERSON.includes(part);
    const group = Object.keys(GROUPS).find((name) => GROUPS[name].slice(1).includes(part));
    return { query: first, gallery: second, value, mutual, part, right, group };
  }

  function lines() {
    const side = state.lines === "gallery" ? "gallery" : "query";
    return [...Array(locations).keys()].map((location) => lineFrom(side, location)).filter(
      ({ value, mutual }) =>
        value > state.above * (unit / 100) && (mutual || state.lines !== "mutual")
    );
  }

  const weight = (side, location) => data.scores[state.features][SIDES.indexOf(side)][location];
  const addition = (side, location) =>
    (weight(side, location) * bestMatch(side, location).value) / unit;

  function scoreParts() {
    const [first, second] = SIDES.map((side) =>
      [...Array(locations).keys()].reduce((sum, location) => sum + addition(side, location), 0)
    );
    const constant = data.scores[state.features][2];
    const logit = first + second + constant;
    return { query: first, gallery: second, constant, logit, score: 1 / (1 + Math.exp(-logit)) };
  }

  // --------------------------------------------------------------------------- words and colours

  const plain = (value, digits = 2) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
  const signed = (value) => (value < 0 ? "" : "+") + plain(value);
  const place = (location) =>
    `row ${Math.floor(location / width)}, column ${location % width}`;
  // Rounded up in the fifth digit: half of that is taken off before two digits are shown.
  const cosine = (value) => plain((value - 0.5) / unit);
  const person = () => (pair().same ? "the same person" : "another person");

  function colourOf(value) {
    const share = Math.min(1, Math.max(0, (value / unit - LOWEST) / (1 - LOWEST)));
    return data.colours[Math.round(share * (data.colours.length - 1))];
  }

  function make(name, attributes = {}, ...children) {
    const element = name === "svg" || name === "g" || name === "path" || name === "rect"
      ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // ------------------------------------------------------------------------------------- the stage

  function makeStage() {
    for (const side of SIDES) {
      const grid = make("div", { role: "grid", class: "explorer-grid",
        "aria-label": `locations of the ${side} image` });
      const cells = [];
      for (let row = 0; row < height; row += 1) {
        const line = make("div", { role: "row" });
        for (let column = 0; column < width; column += 1) {
          const location = row * width + column;
          const cell = make("div", { role: "gridcell", tabindex: location ? -1 : 0 });
          cell.addEventListener("focus", () => keep(side, location));
          cell.addEventListener("pointerenter", () => point({ side, location }));
          cell.addEventListener("keydown", (event) => move(event, side, location));
          line.append(cell);
          cells.push(cell);
        }
        grid.append(line);
      }
      const image = make("img", { width: 256, height: 512 });
      const caption = make("span", { class: "explorer-caption", "aria-hidden": "true" }, side);
      find(`[data-side="${side}"]`).append(caption, image, grid);
      images[side] = { image, cells };
    }
    find(".explorer-lines").setAttribute("viewBox", `0 0 ${2 * width + GAP} ${height}`);
    find(".explorer-stage").addEventListener("pointerleave", () => point(null));
  }

  const current = () => pointed || kept;

  // A location's lines start at a height of its own, so that those of one row lie side by side.
  function end(side, location) {
    const column = location % width;
    const lift = 0.62 * ((column + 0.5) / width - 0.5);
    return [column + 0.5 + (side === "gallery" ? width + GAP : 0),
      Math.floor(location / width) + 0.5 + lift];
  }

  function drawLine(line, kind) {
    const [x1, y1] = end("query", line.query);
    const [x2, y2] = end("gallery", line.gallery);
    const bend = 0.45 * (x2 - x1);
    const d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
    const marks = [[x1, y1], [x2, y2]].map(([x, y]) =>
      line.right
        ? `M${x - 0.1} ${y}a.1 .1 0 1 0 .2 0a.1 .1 0 1 0 -.2 0`
        : `M${x - 0.1} ${y - 0.1}l.2 .2m0 -.2l-.2 .2`
    ).join("");
    const group = make("g", { class: `${kind} ${line.right ? "explorer-right" : "explorer-wrong"}` },
      make("path", { d, class: "explorer-halo" }), make("path", { d, class: "explorer-curve" }),
      make("path", { d: marks, class: "explorer-end" }));
    group.style.setProperty("--part", `var(--book-${GROUPS[line.group][0]})`);
    return group;
  }

  function drawFrame(side, location) {
    const x = (location % width) + (side === "gallery" ? width + GAP : 0);
    const y = Math.floor(location / width);
    return make("rect", { x, y, width: 1, height: 1, class: "explorer-frame" });
  }

  function showLines(found) {
    const here = current();
    const drawn = found.map((line) => drawLine(line, "explorer-line"));
    if (here) {
      const line = lineFrom(here.side, here.location);
      const there = found.some((one) => one.query === line.query && one.gallery === line.gallery);
      drawn.push(...SIDES.map((side) => drawFrame(side, line[side])),
        drawLine(line, "explorer-chosen" + (there ? "" : " explorer-below")));
    }
    find(".explorer-lines").classList.toggle("explorer-dimmed", Boolean(here));
    find(".explorer-lines").replaceChildren(...drawn);
  }

  function showCount(found) {
    const words = { query: "best matches of the query’s locations",
      gallery: "best matches of the gallery image’s locations", mutual: "mutual best matches" };
    const right = found.filter((line) => line.right).length;
    byId("count").textContent =
      `${found.length} line${found.length === 1 ? "" : "s"}: ${words[state.lines]} above ` +
      `${(state.above / 100).toFixed(2)}. ${right} link the same part of the body, ` +
      `${found.length - right} do not.`;
    byId("table")?.replaceChildren(
      ...found.slice().sort((one, two) => two.value - one.value).map((line) => {
        const texts = [place(line.query), place(line.gallery), line.part,
          line.right ? "yes" : "no", cosine(line.value)];
        return make("tr", {}, ...texts.map((text) => make("td", {}, text)));
      })
    );
  }

  function tintOf(side, location) {
    const here = current();
    if (state.colour === "score") {
      const value = addition(side, location);
      const opacity = (0.85 * Math.abs(value)) / scale.addition;
      return [`var(--book-${value < 0 ? "vermilion" : "blue"})`, opacity];
    }
    if (state.colour === "similarity" && here && here.side !== side) {
      const value =
        side === "gallery" ? between(here.location, location) : between(location, here.location);
      return [colourOf(value), 0.62];
    }
    return ["transparent", 0];
  }

  function showLegend() {
    const entries = Object.entries(GROUPS).map(([name, [colour]]) => {
      const swatch = make("i", { class: "explorer-swatch" });
      swatch.style.setProperty("--part", `var(--book-${colour})`);
      return make("span", {}, swatch, name);
    });
    entries.push(make("span", {}, "Solid lines with dots join the same part, dashed lines with crosses do not."));
    if (state.colour !== "none") {
      const score = state.colour === "score";
      const bar = make("span", { class: "explorer-bar" });
      const stops = score ? ["var(--book-vermilion)", "#fff", "var(--book-blue)"] : data.colours;
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const [low, high] = score ? [signed(-scale.addition), signed(scale.addition)]
        : [`${LOWEST} or less`, "1"];
      const about = score ? "added to the score" : "local similarity";
      entries.push(make("span", {}, low, bar, high, " " + about));
    }
    byId("legend").replaceChildren(...entries);
  }

  // ----------------------------------------------------------------------------------- the numbers

  let scale = {}; // of additions and of the score, for all pairs
  function makeScale() {
    const { query: first, gallery: second } = state;
    scale = { addition: 0, low: 0, high: 0 };
    data.queries.forEach((one, number) => one.gallery.forEach((_, position) => {
      Object.assign(state, { query: number + 1, gallery: position + 1 });
      for (const side of SIDES) {
        for (let location = 0; location < locations; location += 1)
          scale.addition = Math.max(scale.addition, Math.abs(addition(side, location)));
      }
      scale.high = Math.max(scale.high, 1.1 * scoreParts().logit);
    }));
    scale.low = 1.1 * data.scores[state.features][2];
    Object.assign(state, { query: first, gallery: second });
  }

  function showMatch() {
    const here = current();
    for (const side of SIDES) {
      images[side].cells.forEach((cell, location) => {
        const [colour, opacity] = tintOf(side, location);
        cell.style.setProperty("--tint", colour);
        cell.style.setProperty("--tint-opacity", opacity.toFixed(3));
        const chosen = here && here.side === side && here.location === location;
        cell.setAttribute("aria-selected", chosen ? "true" : "false");
        const { place: there, value } = bestMatch(side, location);
        cell.setAttribute("aria-label",
          `${place(location)}, best match ${place(there)}, local similarity ${cosine(value)}`);
      });
    }
    const text = byId("match");
    if (!text) return;
    if (!here) {
      text.textContent = "None yet. Point at one, tap it, or use Tab and the arrow keys.";
      return;
    }
    const { side, location } = here;
    const { place: there, value, mutual } = bestMatch(side, location);
    const back = bestMatch(other[side], there);
    const sentences = [
      `R${place(location).slice(1)} of the ${side} shows: ${partAt(side, location)}. ` +
        `Best match in the ${other[side]} image: ${place(there)}, local similarity ` +
        `${cosine(value)}; ` +
        `it shows: ${partAt(other[side], there)}.`,
      mutual ? "Each is the other’s best."
        : `That location matches ${place(back.place)} better: ${cosine(back.value)}.`,
      value > state.above * (unit / 100) ? "" : "The local similarity is not above the threshold.",
      `With the weight ${plain(weight(side, location), 3)} it adds ` +
        `${signed(addition(side, location))} to the ${state.features === "trained" ? "logit" : "mean"}.`,
    ];
    text.textContent = sentences.filter(Boolean).join(" ");
  }

  function showScore() {
    const parts = scoreParts();
    const trained = state.features === "trained";
    const rows = [
      ...(trained ? [["constant", 0, parts.constant]] : []),
      ["query", parts.constant, parts.constant + parts.query],
      ["gallery", parts.constant + parts.query, parts.logit],
      [trained ? "sum (logit)" : "mean of the best matches", 0, parts.logit],
    ];
    const percent = (value) =>
      100 * Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low)));
    const made = rows.map(([name, from, to]) => {
      const [bar, zero] = [make("div"), make("i")];
      bar.style.left = percent(Math.min(from, to)) + "%";
      bar.style.width = percent(Math.max(from, to)) - percent(Math.min(from, to)) + "%";
      zero.style.left = percent(0) + "%";
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, signed(to - from)),
        make("td", { "aria-hidden": "true" }, make("div", { class: "explorer-track" }, bar, zero)));
    });
    if (trained) {
      made.push(make("tr", {}, make("th", { scope: "row" }, "score (sigmoid)"),
        make("td", { id: "explorer-probability" }, parts.score.toFixed(3)), make("td")));
    }
    byId("score")?.replaceChildren(...made);
    const verdict =
      `${pair().same ? "✓ The same person" : "✗ Another person"}, seen by camera ` +
      `${pair().camera + 1} (query: camera ${query().camera + 1}). ` +
      (trained ? `Score ${parts.score.toFixed(2)}, rank ${pair().rank} of ` +
        `${query().ranked.toLocaleString("en-GB")}.`
        : `Mean of the best matches ${parts.logit.toFixed(2)}, without training on people.`);
    byId("verdict").textContent = asking() ? "Are these two images of the same person?" : verdict;
  }

  // ------------------------------------------------------------------------------- the whole page

  function thumb(choice, number, about, label, spoken) {
    const input = make("input", { type: "radio", name: "explorer-" + choice, value: number,
      "aria-label": spoken });
    input.checked = number === state[choice];
    input.addEventListener("change", () => set({ [choice]: number }));
    const image = make("img", { src: new URL("large/" + about.image, folder).href, alt: "",
      width: 40, height: 80 });
    return make("label", {}, input, image, make("span", { "aria-hidden": "true" }, label));
  }

  function showThumbs() {
    find('[data-choice="query"]')?.replaceChildren(...data.queries.map((one, number) =>
      thumb("query", number + 1, one, front ? "" : `AP ${one.precision.toFixed(2)}`,
        `query ${number + 1}, average precision ${one.precision.toFixed(2)}`)));
    find('[data-choice="gallery"]')?.replaceChildren(...query().gallery.map((one, number) =>
      thumb("gallery", number + 1, one, `${one.same ? "✓" : "✗"} ${one.rank}`,
        `${one.same ? "the same person" : "another person"}, rank ${one.rank}`)));
  }

  function showImages() {
    const kind = byId("seen")?.checked ? "images/" : "large/";
    for (const side of SIDES)
      images[side].image.src = new URL(kind + shown[side]().image, folder).href;
    images.query.image.alt = `Query ${state.query}: a drawn person, camera ${query().camera + 1}`;
    images.gallery.image.alt =
      `Gallery image: ${asking() ? "who is it?" : person()}, camera ${pair().camera + 1}`;
  }

  function showView() {
    const found = lines();
    showLines(found);
    showCount(found);
    showMatch();
    showLegend();
    if (byId("level")) byId("level").textContent = (state.above / 100).toFixed(2);
  }

  function showAll() {
    showImages();
    showThumbs();
    showView();
    showScore();
    for (const [name, value] of Object.entries(state)) {
      for (const input of document.getElementsByName("explorer-" + name)) {
        if (input.type === "radio") input.checked = input.value === String(value);
        else input.value = value;
      }
    }
    writeAddress();
  }

  // Only what differs from the start is in the address, so that a copied link shows the same.
  function writeAddress() {
    if (front) return;
    const entries = Object.entries(state).filter(([name, value]) => value !== START[name]);
    if (kept) entries.push(["at", `${kept.side}-${kept.location}`]);
    const text = quiz ? "quiz" : new URLSearchParams(entries).toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const within = (name, last) => {
      const value = Number(asked.get(name));
      return Number.isInteger(value) && value >= 1 && value <= last ? value : START[name];
    };
    const among = (name, values) =>
      values.includes(asked.get(name)) ? asked.get(name) : START[name];
    state.query = within("query", data.queries.length);
    state.gallery = within("gallery", query().gallery.length);
    state.above = within("above", 100);
    state.features = among("features", Object.keys(data.scores));
    state.lines = among("lines", ["query", "gallery", "mutual"]);
    state.colour = among("colour", ["none", "similarity", "score"]);
    const at = /^(query|gallery)-(\d+)$/.exec(asked.get("at") || "");
    kept = at && at[2] < locations ? { side: at[1], location: Number(at[2]) } : null;
    makeScale();
    showAll();
    if (asked.has("quiz") && !quiz) startQuiz();
  }

  function set(change) {
    if ("query" in change && !("gallery" in change)) change.gallery = 1;
    Object.assign(state, change);
    if ("features" in change) makeScale();
    if (state.colour === "similarity" && !current()) {
      const sums = images.query.cells.map((_, location) => addition("query", location));
      kept = { side: "query", location: sums.indexOf(Math.max(...sums)) };
    }
    const focused = document.activeElement?.name && document.activeElement;
    showAll();
    if (focused) find(`[name="${focused.name}"][value="${focused.value}"]`)?.focus();
  }

  function keep(side, location) {
    for (const [number, cell] of images[side].cells.entries())
      cell.tabIndex = number === location ? 0 : -1;
    kept = { side, location };
    pointed = null;
    showView();
    writeAddress();
  }

  function point(found) {
    pointed = found;
    showView();
  }

  function move(event, side, location) {
    const row = Math.floor(location / width);
    const column = location % width;
    const moves = {
      ArrowLeft: [row, Math.max(0, column - 1)],
      ArrowRight: [row, Math.min(width - 1, column + 1)],
      ArrowUp: [Math.max(0, row - 1), column],
      ArrowDown: [Math.min(height - 1, row + 1), column],
      Home: [row, 0],
      End: [row, width - 1],
    };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      kept = pointed = null;
      showView();
      writeAddress();
    } else if (event.key === "Enter" || event.key === " ") {
      images[other[side]].cells[bestMatch(side, location).place].focus();
    } else if (moves[event.key]) {
      images[side].cells[moves[event.key][0] * width + moves[event.key][1]].focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  // ------------------------------------------------------------------------------ the guessing game

  const asking = () => Boolean(quiz && quiz.answer === null);

  function startQuiz() {
    const pairs = data.queries.flatMap((one, number) =>
      one.gallery.map((_, position) => ({ query: number + 1, gallery: position + 1 })));
    for (let last = pairs.length - 1; last > 0; last -= 1) {
      const chosen = Math.floor(Math.random() * (last + 1));
      [pairs[last], pairs[chosen]] = [pairs[chosen], pairs[last]];
    }
    quiz = { pairs, done: 0, you: 0, model: 0, answer: null };
    nextPair();
  }

  function nextPair() {
    quiz.answer = null;
    kept = pointed = null;
    set({ ...START, ...quiz.pairs[quiz.done % quiz.pairs.length], features: "trained" });
    showQuiz("");
    byId("same").focus({ preventScroll: true });
  }

  function guess(answer) {
    const { score } = scoreParts();
    const model = score > SURE;
    quiz.answer = answer;
    quiz.done += 1;
    quiz.you += Number(answer === pair().same);
    quiz.model += Number(model === pair().same);
    showAll();
    showQuiz(
      `${answer === pair().same ? "Right" : "Wrong"}: this is ${person()}. The model’s score is ` +
        `${score.toFixed(2)}, so it says “${model ? "the same" : "another"} person”: ` +
        `${model === pair().same ? "right" : "wrong"}. You ${quiz.you} of ${quiz.done}, ` +
        `the model ${quiz.model} of ${quiz.done}.`
    );
    byId("next").focus({ preventScroll: true });
  }

  function showQuiz(text) {
    root.classList.toggle("explorer-asking", asking());
    root.classList.toggle("explorer-quizzing", Boolean(quiz));
    byId("quiz").textContent = quiz ? "End the game" : "Guess first";
    byId("result").textContent = text;
    for (const name of ["same", "different"]) byId(name).hidden = !asking();
    byId("next").hidden = !quiz || asking();
  }

  function endQuiz() {
    quiz = null;
    showAll();
    showQuiz("");
  }

  // ----------------------------------------------------------------------------- link and image file

  async function copyLink() {
    const link = location.href;
    try {
      await navigator.clipboard.writeText(link);
      byId("copy").textContent = "Copied";
      setTimeout(() => (byId("copy").textContent = "Copy link"), 2000);
    } catch {
      window.prompt("The link to this view", link);
    }
  }

  function saveImage() {
    const size = 100; // pixels of a location
    const canvas = make("canvas", { width: (2 * width + GAP) * size, height: (height + 0.6) * size });
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(find(".explorer-stage")).backgroundColor;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    SIDES.forEach((side, number) => pen.drawImage(images[side].image,
      number * (width + GAP) * size, 0, width * size, height * size));
    pen.fillStyle = "#fff";
    pen.font = `${0.26 * size}px sans-serif`;
    const [left, bottom] = [0.15 * size, (height + 0.4) * size];
    pen.fillText(byId("verdict").textContent, left, bottom, canvas.width - 2 * left);
    pen.scale(size, size);
    pen.lineCap = "round";
    for (const path of asking() ? [] : root.querySelectorAll(".explorer-lines path")) {
      const style = getComputedStyle(path);
      pen.globalAlpha = Number(getComputedStyle(path.parentNode).opacity);
      pen.strokeStyle = style.stroke;
      pen.fillStyle = style.fill;
      pen.lineWidth = parseFloat(style.strokeWidth);
      pen.setLineDash(style.strokeDasharray === "none" ? []
        : style.strokeDasharray.split(",").map(parseFloat));
      if (style.fill !== "none") pen.fill(new Path2D(path.getAttribute("d")));
      pen.stroke(new Path2D(path.getAttribute("d")));
    }
    const name = `qaconv-${query().image}-${pair().image}`.replaceAll(".jpg", "");
    make("a", { download: `${name}.png`, href: canvas.toDataURL("image/png") }).click();
  }

  function start() {
    makeStage();
    for (const name of ["lines", "features"]) {
      for (const input of document.getElementsByName("explorer-" + name))
        input.addEventListener("change", () => set({ [name]: input.value }));
    }
    byId("above")?.addEventListener("input", () => set({ above: Number(byId("above").value) }));
    byId("colour")?.addEventListener("change", () => set({ colour: byId("colour").value }));
    byId("seen")?.addEventListener("change", showImages);
    const buttons = { copy: copyLink, save: saveImage, next: nextPair,
      quiz: () => (quiz ? endQuiz() : startQuiz()),
      same: () => guess(true), different: () => guess(false) };
    for (const [name, act] of Object.entries(buttons)) byId(name)?.addEventListener("click", act);
    if (!front) window.addEventListener("hashchange", readAddress);
    readAddress();
    for (const still of document.querySelectorAll(".explorer-still")) still.hidden = true;
    root.hidden = false;
  }

  start();
})();
