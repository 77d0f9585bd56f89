// Charts of the overview: blocks of JSON, drawn by Chart.js, and again when the theme changes. A bar or a point opens the
// log with the requests that it counts.
"use strict";
(() => {
  const read = (id) => {
    const source = document.getElementById(id);
    return source && JSON.parse(source.textContent);
  };
  const spec = read("chart-data");
  const course = read("course-data");
  if (!spec || !window.Chart) return;
  const language = document.documentElement.lang;
  const number = new Intl.NumberFormat(language);
  const log = document.getElementById("charts").dataset.log;
  let charts = [];

  // Own abbreviations: Intl's compact form uses "B" for thousands in Turkish.
  function short(value) {
    const [size, letter] = value >= 1e9 ? [1e9, "B"] : value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "K"] : [1, ""];
    return new Intl.NumberFormat(language, { maximumFractionDigits: size === 1 ? 0 : 1 }).format(value / size) + letter;
  }
  function money(value) {
    const digits = value === 0 || value >= 1 ? 2 : value >= 0.01 ? 3 : 6;
    return "$" + new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
  }
  const percent = (value) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 2 }).format(value / 100);
  const ms = (value) => `${number.format(Math.round(value))} ms`;
  // All ticks of an axis have the decimals that its step needs.
  function usdTick(value, _index, ticks) {
    const step = ticks.length > 1 ? Math.abs(ticks[1].value - ticks[0].value) : 1;
    let digits = 2;
    while (digits < 9 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
    return "$" + new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
  }
  const countTick = (value) => (Number.isInteger(value) ? short(value) : "");
  // English days come before their months, as on the rest of the page.
  const label = new Intl.DateTimeFormat(language === "en" ? "en-GB" : language, spec.isHourly
    ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: spec.zone }
    : { day: "numeric", month: "short", timeZone: spec.zone });
  const labels = spec.buckets.map((bucket) => label.format(new Date(bucket)));

  function open(bucket, ...queries) {
    if (spec.links[bucket]) location.assign(`${log}?${[spec.links[bucket], ...queries].filter(Boolean).join("&")}`);
  }

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
    const hue = (n) => rgb(`--series-${n}`);
    // Series of one hue differ by stripes, as their dots in the table do.
    function filled(series) {
      const colour = hue(series.hue);
      if (!series.texture) return colour;
      const tile = document.createElement("canvas");
      tile.width = tile.height = 8;
      const pen = tile.getContext("2d");
      pen.strokeStyle = colour;
      pen.lineWidth = 3;
      const strokes = { 1: [[-2, 10, 10, -2], [-6, 6, 6, -6], [2, 14, 14, 2]], 2: [[0, 2, 8, 2]], 3: [[2, 0, 2, 8]] }[series.texture];
      for (const [x1, y1, x2, y2] of strokes) {
        pen.beginPath();
        pen.moveTo(x1, y1);
        pen.lineTo(x2, y2);
        pen.stroke();
      }
      return pen.createPattern(tile, "repeat");
    }
    for (const chart of charts) chart.destroy();
    charts = [];
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11 };
    const point = (_event, found, chart) => { chart.canvas.style.cursor = found.length && spec.links[found[0].index] ? "pointer" : ""; };
    function options({ tick, exact, stacked = false, isBar = false, max = undefined, onClick }) {
      return {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        onHover: point,
        onClick,
        scales: {
          x: { stacked, offset: true, border: { display: false }, grid: { display: false }, ticks: { color: text, font, maxRotation: 0, autoSkipPadding: 16 } },
          y: { stacked, beginAtZero: true, suggestedMax: max, border: { display: false }, grid: { color: line }, ticks: { color: text, font, maxTicksLimit: 5, callback: tick } },
        },
        plugins: {
          legend: { display: false },
          tooltip: {
            backgroundColor: panel, borderColor: line, borderWidth: 1, titleColor: strong, bodyColor: strong, padding: 10, boxPadding: 4,
            titleFont: { ...font, size: 12 }, bodyFont: { ...font, size: 12 }, usePointStyle: true,
            filter: (item) => !isBar || item.raw > 0,
            callbacks: { label: (item) => ` ${item.dataset.label ? `${item.dataset.label}  ` : ""}${exact(item.raw)}` },
          },
        },
      };
    }

    const scale = spec.metric === "cost" ? 1e-9 : 1;
    charts.push(new window.Chart(document.getElementById("chart"), {
      type: "bar",
      data: {
        labels,
        datasets: spec.series.map((series) => ({
          label: series.name,
          data: series.values.map((value) => value * scale),
          backgroundColor: filled(series),
          borderColor: hue(series.hue),
          borderWidth: series.texture ? 1 : 0,
          borderRadius: 2,
          maxBarThickness: 34,
          categoryPercentage: 0.82,
          barPercentage: 0.9,
        })),
      },
      options: options({
        tick: spec.metric === "cost" ? usdTick : countTick,
        exact: spec.metric === "cost" ? money : (value) => number.format(value),
        stacked: true,
        isBar: true,
        onClick: (event, _found, chart) => {
          const [bar] = chart.getElementsAtEventForMode(event, "nearest", { intersect: true }, false);
          const failed = spec.metric === "errors" ? "status=errors" : "";
          if (bar && spec.series[bar.datasetIndex].query !== null) open(bar.index, spec.series[bar.datasetIndex].query, failed);
          else if (bar) open(bar.index, failed);
        },
      }),
    }));

    const lines = {
      requests: { series: [["", course.requests, 1]], tick: countTick, exact: (value) => number.format(value) },
      rate: { series: [["", course.rate, 4]], tick: percent, exact: percent, max: 1, query: "status=errors" },
      latency: { series: [["p50", course.p50, 5], ["p95", course.p95, 2]], tick: (value) => (value >= 10000 ? `${number.format(value / 1000)} s` : Number.isInteger(value) ? ms(value) : ""), exact: ms },
    };
    for (const canvas of document.querySelectorAll("[data-course]")) {
      const { series, tick, exact, max, query } = lines[canvas.dataset.course];
      charts.push(new window.Chart(canvas, {
        type: "line",
        data: {
          labels,
          datasets: series.map(([name, values, n]) => ({
            label: name,
            data: values,
            borderColor: hue(n),
            backgroundColor: hue(n),
            borderWidth: 1.5,
            pointRadius: values.length > 45 ? 1 : 2.5,
            pointHoverRadius: 5,
            tension: 0,
          })),
        },
        options: options({ tick, exact, max, onClick: (_event, found) => found.length && open(found[0].index, query) }),
      }));
    }
  }

  draw();
  document.addEventListener("themechange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
