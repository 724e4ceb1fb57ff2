/* The search: chapters before pages of the library, and no formulas or code in the summaries. */
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([page, , , , score]) => {
    const chapter = /^book\/(\d+)/.exec(page);
    if (chapter) return score + 100 - chapter[1] / 100; // equally good ones in reading order
    if (/^book\/[a-z]_/.test(page)) return score + 50; // appendices
    return /^book\/(api|changelog)/.test(page) ? score - 100 : score;
  },
};

// Every name of the library begins with "qaconv_lib"; only its last part counts.
const { performObjectSearch } = Search;
Search.performObjectSearch = (term, terms) =>
  performObjectSearch(term, terms).filter(([, name]) =>
    name.toLowerCase().split(".").pop().includes(term)
  );

Search.htmlToText = (text, anchor) => {
  const page = new DOMParser().parseFromString(text, "text/html");
  const found = (anchor && page.getElementById(anchor.slice(1))) || page.querySelector("article");
  for (const part of found.querySelectorAll(".headerlink, .math, pre, script, style, table, h1, summary, a[href*=colab]"))
    part.remove();
  return found.textContent;
};
