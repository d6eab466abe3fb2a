// Open pages from disk as a reader would: `node look.js CHROMIUM SCREENSHOTS PAGE...` prints what
// was seen of each page, width and colour scheme as JSON. Packages are found by NODE_PATH.
"use strict";
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const { chromium } = require("playwright-core");

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

async function look(browser, file, width, scheme, shots) {
  // Its own policy would keep axe out; tests/report/page/ check that the policy is there.
  const context = await browser.newContext({
    viewport: { width, height: 900 }, colorScheme: scheme, bypassCSP: true, offline: true,
  });
  const page = await context.newPage();
  const url = pathToFileURL(path.resolve(file)).href;
  const requests = [], errors = [];
  page.on("request", (one) => {
    if (one.url() !== url && !one.url().startsWith("data:")) requests.push(one.url());
  });
  page.on("console", (one) => { if (one.type() === "error") errors.push(one.text()); });
  page.on("pageerror", (one) => errors.push(String(one)));
  await page.goto(url);
  // What is drawn when a layer is opened is looked at too, of the widest and of some others.
  await page.$$eval("details[data-group]", (all) => {
    const step = Math.max(1, Math.ceil(all.length / 4));
    all.forEach((one, i) => { one.open = i % step === 0; });
  });
  await page.waitForTimeout(300);
  const size = await page.evaluate(() => {
    const root = document.documentElement;
    return { overflow: root.scrollWidth - root.clientWidth, height: root.scrollHeight };
  });
  if (shots) {
    const name = `${path.basename(path.dirname(file))}-${path.basename(file, ".html")}`;
    const to = path.join(shots, `${name}-${width}-${scheme}.png`);
    await page.screenshot({ path: to, fullPage: true });
  }
  await page.addScriptTag({ content: AXE });
  const violations = await page.evaluate(async () => (await axe.run()).violations.map((one) => ({
    impact: one.impact, id: one.id, count: one.nodes.length, first: one.nodes[0].html.slice(0, 200),
  })));
  await context.close();
  return { file, width, scheme, requests, errors, violations, ...size };
}

(async () => {
  const [executablePath, shots, ...files] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  const seen = [];
  for (const file of files)
    for (const width of [390, 1440])
      for (const scheme of ["light", "dark"])
        seen.push(await look(browser, file, width, scheme, shots));
  await browser.close();
  console.log(JSON.stringify(seen));
})();
