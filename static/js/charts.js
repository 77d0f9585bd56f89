// Charts of the overview: one block of JSON, drawn by Chart.js, and again when the theme changes.
"use strict";
(() => {
  const source = document.getElementById("chart-data");
  const canvas = document.getElementById("chart");
  if (!source || !canvas || !window.Chart) return;
  const spec = JSON.parse(source.textContent);
  const language = document.documentElement.lang;
  const scale = spec.metric === "cost" ? 1e-9 : 1;
  const number = new Intl.NumberFormat(language);
  let chart = null;

  // Own abbreviations: Intl's compact form uses "B" for thousands in Turkish.
  function short(value) {
    const [size, letter] = value >= 1e9 ? [1e9, "B"] : value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "K"] : [1, ""];
    return new Intl.NumberFormat(language, { maximumFractionDigits: size === 1 ? 0 : 1 }).format(value / size) + letter;
  }
  function money(value) {
    const digits = value === 0 || value >= 1 ? 2 : value >= 0.01 ? 3 : 6;
    return "$" + new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
  }
  const tick = (value) => (spec.metric === "cost" ? money(value) : Number.isInteger(value) ? short(value) : "");
  const exact = (value) => (spec.metric === "cost" ? money(value) : number.format(value));
  const label = new Intl.DateTimeFormat(language, spec.isHourly
    ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: spec.zone }
    : { day: "numeric", month: "short", timeZone: spec.zone });

  function draw() {
    const style = getComputedStyle(document.documentElement);
    // Chart.js mixes colours and does not support oklch: let the browser convert them to rgb first.
    const rgb = (name) => {
      const pixel = document.createElement("canvas").getContext("2d");
      pixel.fillStyle = style.getPropertyValue(name).trim();
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b] = pixel.getImageData(0, 0, 1, 1).data;
      return `rgb(${r},${g},${b})`;
    };
    const text = rgb("--muted");
    const line = rgb("--color-base-300");
    const panel = rgb("--color-base-100");
    const strong = rgb("--color-base-content");
    const colours = [0, 1, 2, 3, 4].map((i) => rgb(`--series-${i}`));
    if (chart) chart.destroy();
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11 };
    chart = new window.Chart(canvas, {
      type: "bar",
      data: {
        labels: spec.buckets.map((bucket) => label.format(new Date(bucket))),
        datasets: spec.series.map((series) => ({
          label: series.name,
          data: series.values.map((value) => value * scale),
          backgroundColor: colours[series.colour],
          borderRadius: 2,
          maxBarThickness: 34,
          categoryPercentage: 0.82,
          barPercentage: 0.9,
        })),
      },
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { stacked: true, border: { display: false }, grid: { display: false }, ticks: { color: text, font, maxRotation: 0, autoSkipPadding: 16 } },
          y: { stacked: true, beginAtZero: true, border: { display: false }, grid: { color: line }, ticks: { color: text, font, maxTicksLimit: 5, callback: tick } },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            backgroundColor: panel, borderColor: line, borderWidth: 1, titleColor: strong, bodyColor: strong, padding: 10, boxPadding: 4,
            titleFont: { ...font, size: 12 }, bodyFont: { ...font, size: 12 }, usePointStyle: true,
            filter: (item) => item.raw > 0,
            callbacks: { label: (item) => ` ${item.dataset.label}  ${exact(item.raw)}` },
          },
        },
      },
    });
  }

  draw();
  document.addEventListener("themechange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
