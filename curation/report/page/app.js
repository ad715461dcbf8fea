// Start.

for (const draw of [drawTop, drawFunnel, drawReasons, drawScores, drawCategories, drawClips, drawRun, drawGallery]) {
  try {
    draw();
  } catch (error) {
    // An unusual manifest can break one chart; the others are still drawn.
    console.error(error);
  }
}

const SECTIONS = [["funnel", "Funnel"], ["reasons", "Reasons"], ["scores", "Scores"], ["categories", "Categories"], ["clips", "Clips"], ["run", "Run"], ["gallery", "Gallery"]];
fillNode(byId("nav"), {}, [
  h("a", { href: "#", class: "home", "data-goto": "top" }, overview.name),
  h("span", { class: "links" }, SECTIONS.map(([id, name]) => h("a", { href: "#", "data-goto": id }, name))),
]);
fillNode(byId("foot"), {}, [`Made by Reprise${overview.reprise_version ? ` ${overview.reprise_version}` : ""}`, overview.config_hash ? ` · config ${overview.config_hash}` : ""]);

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("[data-goto]") : null;
  if (!link) return;
  event.preventDefault(); // the address holds the filters, so links between sections do not change it
  goTo(link.dataset.goto);
});

addEventListener("popstate", () => {
  gallery.state = readState();
  if (gallery.parts) showState();
});

document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || byId("lightbox").open) return;
  if (event.target instanceof Element && event.target.closest("input, video, pre, .picker")) return;
  const at = byId("gallery").getBoundingClientRect();
  if (at.top < innerHeight && at.bottom > 0) turnPage(step);
});

if (isFiltered(gallery.state) || gallery.state.page > 1) requestAnimationFrame(() => byId("gallery").scrollIntoView());
