/* The explorer of matches (book/explorer.md). Nothing is fetched: data.js comes with the page. */
(function () {
  "use strict";

  const data = window.qaconvExplorer;
  const root = document.getElementById("explorer");
  if (!data || !root) return;

  const images = new URL("images/", document.currentScript.src);
  const SVG = "http://www.w3.org/2000/svg";
  const { height, width, unit } = data;
  const locations = height * width;
  const HUNDREDTH = unit / 100;
  const GAP = 3; // columns between the pictures
  const LOWEST = 0.5; // the scale of colours ends here
  const SIDES = ["query", "gallery"];
  const other = { query: "gallery", gallery: "query" };
  const byId = (name) => document.getElementById("explorer-" + name);

  const state = {
    query: 0,
    gallery: 0,
    direction: "mutual",
    threshold: Math.round(100 * data.threshold),
    tint: "none",
    kept: null, // the location that was tapped or reached with keys
    pointed: null, // the one under the pointer
  };
  const pictures = {};

  // ------------------------------------------------------------------ what the library computed

  const pair = () => data.queries[state.query].gallery[state.gallery];
  const between = (query, gallery) => pair().similarities[query * locations + gallery];

  function bestMatch(side, location) {
    if (side === "query") {
      const place = pair().to_gallery[location];
      return { place, value: between(location, place), mutual: pair().to_query[place] === location };
    }
    const place = pair().to_query[location];
    return { place, value: between(place, location), mutual: pair().to_gallery[place] === location };
  }

  function lines() {
    const side = state.direction === "gallery" ? "gallery" : "query";
    const found = [];
    for (let location = 0; location < locations; location += 1) {
      const { place, value, mutual } = bestMatch(side, location);
      if (value <= state.threshold * HUNDREDTH || (state.direction === "mutual" && !mutual)) continue;
      const [query, gallery] = side === "query" ? [location, place] : [place, location];
      found.push({ query, gallery, value });
    }
    return found;
  }

  const weight = (side, location) => data[side + "_weights"][location];
  const addition = (side, location) =>
    (weight(side, location) * bestMatch(side, location).value) / unit;

  function scoreParts() {
    const sum = (side) => {
      let total = 0;
      for (let location = 0; location < locations; location += 1) total += addition(side, location);
      return total;
    };
    const [query, gallery] = SIDES.map(sum);
    const logit = query + gallery + data.constant;
    return { query, gallery, logit, similarity: 1 / (1 + Math.exp(-logit)) };
  }

  // --------------------------------------------------------------------------- words and colours

  const signed = (value, digits = 2) =>
    (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
  const plain = (value, digits = 2) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
  const place = (location) =>
    "row " + Math.floor(location / width) + ", column " + (location % width);
  const short = (location) => Math.floor(location / width) + ", " + (location % width);
  // Rounded up in the fifth digit: half of that is taken off before two digits are shown.
  const cosine = (value) => plain((value - 0.5) / unit);

  function mixed(first, second, share) {
    const part = (colour, start) => parseInt(colour.slice(start, start + 2), 16);
    const parts = [1, 3, 5].map((start) =>
      Math.round(part(first, start) * (1 - share) + part(second, start) * share)
    );
    return "rgb(" + parts.join(", ") + ")";
  }

  function colourOf(value) {
    const share = Math.min(1, Math.max(0, (value / unit - LOWEST) / (1 - LOWEST)));
    const step = Math.min(data.colours.length - 2, Math.floor(share * (data.colours.length - 1)));
    return mixed(data.colours[step], data.colours[step + 1], share * (data.colours.length - 1) - step);
  }

  // ------------------------------------------------------------------------------------- elements

  function make(name, attributes = {}, text = "", space = null) {
    const element = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  }

  const draw = (name, attributes) => make(name, attributes, "", SVG);

  function thumb(choice, number, about, label, spoken) {
    const holder = make("label");
    const input = make("input", {
      type: "radio",
      name: "explorer-" + choice,
      value: number,
      "aria-label": spoken,
    });
    input.checked = number === state[choice];
    input.addEventListener("change", () => choose(choice, number));
    const image = make("img", { src: new URL(about.image, images).href, alt: "", width: 64, height: 128 });
    holder.append(input, image, make("span", { "aria-hidden": "true" }, label));
    return holder;
  }

  function showThumbs(choice) {
    const entries =
      choice === "query"
        ? data.queries.map((query, number) => {
            const precision = query.precision.toFixed(2);
            const spoken = "query " + (number + 1) + ", average precision " + precision;
            return thumb(choice, number, query, "AP " + precision, spoken);
          })
        : data.queries[state.query].gallery.map((one, number) => {
            const spoken =
              (one.same ? "the same person" : "somebody else") + ", rank " + one.rank;
            return thumb(choice, number, one, (one.same ? "✓ " : "✗ ") + one.rank, spoken);
          });
    root.querySelector('[data-choice="' + choice + '"]').replaceChildren(...entries);
  }

  function makePicture(side) {
    const holder = root.querySelector('[data-side="' + side + '"]');
    const caption = make("span", { class: "explorer-caption", "aria-hidden": "true" }, side);
    const image = make("img", { width: 64, height: 128 });
    const grid = make("div", { role: "grid", class: "explorer-grid", "aria-label": "locations of the " + side + " picture" });
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
    holder.append(caption, image, grid);
    pictures[side] = { image, cells };
  }

  // -------------------------------------------------------------------------------- what is shown

  const current = () => state.pointed || state.kept;

  function middle(side, location) {
    const column = (location % width) + 0.5 + (side === "gallery" ? width + GAP : 0);
    return [column, Math.floor(location / width) + 0.5];
  }

  function drawLine(query, gallery, value, kind) {
    const [x1, y1] = middle("query", query);
    const [x2, y2] = middle("gallery", gallery);
    const group = draw("g", { class: kind });
    group.append(draw("line", { x1, y1, x2, y2, class: "explorer-halo" }));
    group.append(draw("line", { x1, y1, x2, y2, stroke: colourOf(value) }));
    for (const [cx, cy] of [[x1, y1], [x2, y2]]) {
      group.append(draw("circle", { cx, cy, r: 0.11, fill: colourOf(value) }));
    }
    return group;
  }

  function drawFrame(side, location) {
    const [x, y] = middle(side, location);
    return draw("rect", { x: x - 0.5, y: y - 0.5, width: 1, height: 1, class: "explorer-frame" });
  }

  function showLines(found) {
    const here = current();
    const svg = root.querySelector(".explorer-lines");
    const drawn = found.map(({ query, gallery, value }) => drawLine(query, gallery, value, "explorer-line"));
    if (here) {
      const { place: there, value } = bestMatch(here.side, here.location);
      const [query, gallery] = here.side === "query" ? [here.location, there] : [there, here.location];
      const shown = found.some((line) => line.query === query && line.gallery === gallery);
      drawn.push(drawFrame("query", query), drawFrame("gallery", gallery));
      drawn.push(drawLine(query, gallery, value, "explorer-chosen" + (shown ? "" : " explorer-below")));
    }
    svg.classList.toggle("explorer-dimmed", Boolean(here));
    svg.replaceChildren(...drawn);
  }

  function showTable(found) {
    const rows = found
      .slice()
      .sort((one, two) => two.value - one.value)
      .map((line) => {
        const row = make("tr");
        row.append(make("td", {}, short(line.query)), make("td", {}, short(line.gallery)));
        row.append(make("td", {}, cosine(line.value)));
        return row;
      });
    byId("table").replaceChildren(...rows);
  }

  function showCount(found) {
    const words = {
      query: "best matches of the query’s locations",
      gallery: "best matches of the gallery picture’s locations",
      mutual: "mutual best matches",
    };
    const number = found.length + (found.length === 1 ? " line" : " lines");
    byId("count").textContent =
      number + ": " + words[state.direction] + " above " + (state.threshold / 100).toFixed(2) + ".";
  }

  // The scales of additions and of the score hold for all pairs.
  const scale = { addition: 0, logit: 1 };
  function makeScales() {
    data.queries.forEach((query, number) =>
      query.gallery.forEach((one, position) => {
        Object.assign(state, { query: number, gallery: position });
        for (const side of SIDES) {
          for (let location = 0; location < locations; location += 1) {
            scale.addition = Math.max(scale.addition, Math.abs(addition(side, location)));
          }
        }
        scale.logit = Math.max(scale.logit, scoreParts().logit);
      })
    );
    Object.assign(state, { query: 0, gallery: 0 });
  }

  function tintOf(side, location) {
    const here = current();
    if (state.tint === "score") {
      const value = addition(side, location);
      const opacity = (0.85 * Math.abs(value)) / scale.addition;
      return { colour: value < 0 ? data.takes : data.adds, opacity };
    }
    if (state.tint === "similarity" && here && here.side !== side) {
      const value =
        side === "gallery" ? between(here.location, location) : between(location, here.location);
      return { colour: colourOf(value), opacity: 0.62 };
    }
    return { colour: "", opacity: 0 };
  }

  function showTint() {
    for (const side of SIDES) {
      pictures[side].cells.forEach((cell, location) => {
        const { colour, opacity } = tintOf(side, location);
        cell.style.setProperty("--tint", colour || "transparent");
        cell.style.setProperty("--tint-opacity", opacity.toFixed(3));
      });
    }
  }

  function showLegend() {
    const score = state.tint === "score";
    const bar = make("span", { class: "explorer-bar" });
    const stops = score ? [data.takes, "#ffffff", data.adds] : data.colours;
    bar.style.background = "linear-gradient(to right, " + stops.join(", ") + ")";
    const words = score
      ? [signed(-scale.addition), "added to the score", signed(scale.addition)]
      : [LOWEST.toFixed(1) + " or less", "similarity", "1.0"];
    byId("legend").replaceChildren(
      make("span", {}, words[0]), bar, make("span", {}, words[2]), make("span", {}, words[1])
    );
  }

  function showMatch() {
    const here = current();
    SIDES.forEach((side) =>
      pictures[side].cells.forEach((cell, location) => {
        const chosen = here && here.side === side && here.location === location;
        cell.setAttribute("aria-selected", chosen ? "true" : "false");
        const { place: there, value } = bestMatch(side, location);
        cell.setAttribute(
          "aria-label",
          place(location) + ", best match " + place(there) + ", similarity " + cosine(value)
        );
      })
    );
    const text = byId("match");
    if (!here) {
      text.textContent = "None yet. Point at one, tap it, or use Tab and the arrow keys.";
      return;
    }
    const { side, location } = here;
    const { place: there, value, mutual } = bestMatch(side, location);
    const name = { query: "query", gallery: "gallery picture" };
    const sentences = [
      "Row " + place(location).slice(4) + " of the " + name[side] + ". Best match in the " +
        name[other[side]] + ": " + place(there) + ", similarity " + cosine(value) + ".",
    ];
    if (mutual) {
      sentences.push("Each is the other’s best.");
    } else {
      const back = bestMatch(other[side], there);
      sentences.push(
        "That location itself matches " + place(back.place) + " better: " + cosine(back.value) + "."
      );
    }
    if (value <= state.threshold * HUNDREDTH) sentences.push("It is not above the threshold.");
    sentences.push(
      "With the weight " + plain(weight(side, location)) + " it adds " +
        signed(addition(side, location)) + " to the score."
    );
    text.textContent = sentences.join(" ");
  }

  function showScore() {
    const parts = scoreParts();
    const rows = [
      ["constant", 0, data.constant, "explorer-constant"],
      ["query", data.constant, data.constant + parts.query, "explorer-part"],
      ["gallery", data.constant + parts.query, parts.logit, "explorer-part"],
      ["sum (logit)", 0, parts.logit, "explorer-sum"],
    ];
    const low = data.constant - 1;
    const high = scale.logit + 1;
    const percent = (value) =>
      100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    const made = rows.map(([name, from, to, kind]) => {
      const row = make("tr");
      const track = make("div", { class: "explorer-track" });
      const bar = make("div", { class: kind });
      bar.style.left = percent(Math.min(from, to)) + "%";
      bar.style.width = percent(Math.max(from, to)) - percent(Math.min(from, to)) + "%";
      const zero = make("i");
      zero.style.left = percent(0) + "%";
      track.append(bar, zero);
      const graph = make("td", { "aria-hidden": "true" });
      graph.append(track);
      row.append(make("th", { scope: "row" }, name), make("td", {}, signed(to - from)), graph);
      return row;
    });
    const last = make("tr");
    last.append(make("th", { scope: "row" }, "similarity"));
    last.append(make("td", { id: "explorer-similarity" }, parts.similarity.toFixed(3)), make("td", { "aria-hidden": "true" }));
    byId("score").replaceChildren(...made, last);
    const query = data.queries[state.query];
    byId("verdict").textContent =
      (pair().same ? "✓ The same person, seen by camera " : "✗ Somebody else, seen by camera ") +
      (pair().camera + 1) + " (the query: camera " + (query.camera + 1) + "). Similarity " +
      parts.similarity.toFixed(2) + ", rank " + pair().rank + " of " +
      query.ranked.toLocaleString("en-GB") + ".";
  }

  function showPictures() {
    const query = data.queries[state.query];
    const shown = { query, gallery: pair() };
    for (const side of SIDES) {
      const { image } = pictures[side];
      image.src = new URL(shown[side].image, images).href;
    }
    pictures.query.image.alt = "Query " + (state.query + 1) + ": a drawn person, camera " + (query.camera + 1);
    pictures.gallery.image.alt =
      "Gallery picture: " + (pair().same ? "the same person" : "somebody else") +
      ", camera " + (pair().camera + 1);
  }

  function showAll() {
    showPictures();
    showView();
    showScore();
  }

  function showView() {
    const found = lines();
    byId("level").textContent = (state.threshold / 100).toFixed(2);
    showLines(found);
    showTable(found);
    showCount(found);
    showLocation();
    showLegend();
  }

  function showLocation() {
    showMatch();
    showTint();
  }

  // --------------------------------------------------------------------------- what the reader does

  function choose(choice, number) {
    state[choice] = number;
    if (choice === "query") {
      state.gallery = 0;
      showThumbs("gallery");
    }
    showAll();
  }

  function changeLocation() {
    showLines(lines());
    showLocation();
  }

  function keep(side, location) {
    for (const [number, cell] of pictures[side].cells.entries()) {
      cell.tabIndex = number === location ? 0 : -1;
    }
    state.kept = { side, location };
    state.pointed = null;
    changeLocation();
  }

  function point(found) {
    state.pointed = found;
    changeLocation();
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
      state.kept = null;
      state.pointed = null;
      changeLocation();
    } else if (event.key === "Enter" || event.key === " ") {
      pictures[other[side]].cells[bestMatch(side, location).place].focus();
    } else if (moves[event.key]) {
      const [nextRow, nextColumn] = moves[event.key];
      pictures[side].cells[nextRow * width + nextColumn].focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  function start() {
    makeScales();
    SIDES.forEach(makePicture);
    const svg = root.querySelector(".explorer-lines");
    svg.setAttribute("viewBox", [0, 0, 2 * width + GAP, height].join(" "));
    showThumbs("query");
    showThumbs("gallery");
    root.querySelector(".explorer-stage").addEventListener("pointerleave", () => point(null));
    for (const input of root.querySelectorAll('[name="explorer-direction"]')) {
      input.checked = input.value === state.direction; // browsers remember other choices
      input.addEventListener("change", () => {
        state.direction = input.value;
        showView();
      });
    }
    const threshold = byId("threshold");
    threshold.value = state.threshold;
    threshold.addEventListener("input", () => {
      state.threshold = Number(threshold.value);
      showView();
    });
    const tint = byId("tint");
    tint.value = state.tint;
    tint.addEventListener("change", () => {
      state.tint = tint.value;
      showView();
    });
    showAll();
    for (const still of document.querySelectorAll(".explorer-still")) still.hidden = true;
    root.hidden = false;
  }

  start();
})();
