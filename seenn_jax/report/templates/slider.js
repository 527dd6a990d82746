// The slider puts what stands in the page's JSON, in words, to its places.
(() => {
  const sweep = JSON.parse(document.getElementById("sweep").textContent);
  const range = document.getElementById("threshold");
  const back = document.getElementById("back");
  const here = document.getElementById("here");
  const places = document.querySelectorAll("[data-shows]");
  const shares = document.querySelectorAll("[data-share]");
  const bars = document.querySelectorAll("[data-bar]");
  const show = () => {
    const row = sweep.rows[range.value];
    places.forEach((place) => { place.textContent = row.shows[place.dataset.shows]; });
    back.disabled = Number(range.value) === sweep.used;
    here.setAttribute("d", back.disabled ? "" : row.point);
    row.shares.forEach((share, i) => {
      shares[i].textContent = share;
      bars[i].style.width = share.replace(" ", "");
    });
    range.setAttribute("aria-valuetext",
      `${sweep.name} ${row.shows.threshold}: ${row.shows.headline}`);
  };
  range.addEventListener("input", show);
  back.addEventListener("click", () => { range.value = sweep.used; show(); });
  show();
  document.querySelectorAll("[data-scripted]").forEach((part) => { part.hidden = false; });
})();
