// Which view is shown: #explorer… the explorer, #reading the blinded reading, every other address the
// report.
(() => {
  const { find } = radquant;
  let away = null; // what names the systems, taken out of the document while somebody reads blinded

  // A reader must not come upon a name, be it by the browser's search or by another program.
  function takeAway() {
    if (away) return;
    radquant.load(); // before its text is gone
    away = ["report", "explorer", "views", "payload"].map((id) => {
      const place = find(id);
      const held = document.createDocumentFragment();
      held.append(...place.childNodes);
      return [place, held];
    });
  }

  function bringBack() {
    for (const [place, held] of away ?? []) place.append(held);
    away = null;
  }

  function route() {
    const asked = location.hash.match(/^#(explorer|reading)(\?|$)/)?.[1] ?? "report";
    const view = radquant.isCopy ? "reading" : asked;
    for (const name of ["report", "explorer", "reading"]) find(name).hidden = name !== view;
    if (view === "reading") {
      takeAway();
      radquant.showReading();
      return;
    }
    radquant.closeReading();
    bringBack();
    for (const link of document.querySelectorAll(".top nav a")) {
      if (link.dataset.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (view === "explorer") radquant.showExplorer();
    else find(location.hash.slice(1))?.scrollIntoView();
  }

  // Columns that are folded away are printed too. Hashes, settings and checks that hold are not.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("#report details.columns:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
  // The link past the header must not change the address, which would leave the view.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    const targets = ["detail-title", "reading-title", "content"].map(find);
    targets.find((target) => target?.checkVisibility()).focus();
  });
  addEventListener("hashchange", route);
  route();
})();
