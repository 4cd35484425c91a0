// What a page looks like to a reader: run in the browser by test_browser.py.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
  const name = (image) => `${image.src.split("/").pop()} alt=${image.getAttribute("alt")} width=${image.naturalWidth}`;
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    theme: document.documentElement.dataset.theme,
    raw: all(".math").filter((math) => !math.querySelector("mjx-container")).map((math) => math.textContent),
    bad: all("mjx-merror").map((error) => error.textContent),
    images: [...document.images].filter((image) => !(image.alt || "").trim() || !image.naturalWidth
                                                   || /\.(png|svg)$/.test(image.alt)).map(name),
    solutions: all(".solution.dropdown").filter((box) => [...box.querySelectorAll("p:not(.admonition-title), pre")].some(shown)).length,
    text: document.body.innerText,
  };
}
