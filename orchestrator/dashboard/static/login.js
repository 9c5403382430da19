// A link that ends in #token=... logs in at once: what stands behind the # never leaves the browser by itself.
(() => {
  "use strict";
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.querySelector("form.login");
  form.elements.token.value = given;
  form.requestSubmit();
})();
