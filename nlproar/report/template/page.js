"use strict";
// Draws the token strips: for each observation and series, one element a token; <del> where it is masked.
const colors = JSON.parse(document.getElementById("colors").textContent);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function words(tokens, level, row, color) {
  const line = element("p", "words");
  tokens.forEach((token, i) => {
    const masked = level.masked[row][i] === "1";
    const shade = Number(level.shade[row][i]);
    const word = element(masked ? "del" : "span", "token", token);
    word.style.setProperty("--shade", `var(${color})`);
    word.style.setProperty("--share", `${5 * shade}%`);
    word.title = `importance ${shade} of 9${masked ? ", masked" : ""}`;
    line.append(word, " ");
  });
  return line;
}

function observation(data, group, k, row) {
  const one = data.observations[row];
  const box = element("article", "observation");
  box.append(element("p", "", `Test observation ${one.number}, label: ${one.label}`));
  if (one.query.length) box.append(element("p", "", one.query.join(" ")));
  for (const series of group.series) {
    const strip = element("div", "strip");
    strip.dataset.series = series.name;
    strip.append(element("span", "name", series.name));
    const level = series.levels[k];
    if (level === undefined || level.gone) strip.append(element("p", "words", "–"));  // said once, above
    else strip.append(words(one.tokens, level, row, colors[series.measure]));
    box.append(strip);
  }
  return box;
}

for (const box of document.querySelectorAll("[data-strips]")) {
  const source = box.querySelector("script");
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const select = box.querySelector("select"), slider = box.querySelector("input"), output = box.querySelector("output");
  const place = box.querySelector(".observations");
  const draw = () => {
    const group = data.groups[select.value];
    const k = group.levels[slider.value];
    output.textContent = `${k} ${group.unit}`;
    slider.setAttribute("aria-valuetext", output.textContent);
    const lacking = group.series.filter(series => k !== 0 && series.levels[k] === undefined).map(series => series.name);
    const notes = lacking.length ? [element("p", "caption", `No record of this level: ${lacking.join(", ")}.`)] : [];
    place.replaceChildren(...notes, ...data.observations.map((_, row) => observation(data, group, k, row)));
  };
  const choose = () => {
    slider.max = data.groups[select.value].levels.length - 1;
    slider.value = Math.min(1, slider.max);
    draw();
  };
  select.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  choose();
}
