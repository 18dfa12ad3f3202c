// The chart of one field of one device, drawn by uPlot from /api/v1/devices/{id}/series.
"use strict";
(() => {
  const box = document.getElementById("chart");
  if (!box) return;
  const { say, now } = window.tizhuang;
  const [field, range] = box.querySelectorAll("select");
  const place = box.querySelector("[data-plot]");
  const message = box.querySelector("[data-message]");
  const HEIGHT = 220;
  let plot = null;
  let asked = 0;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  async function draw() {
    const turn = ++asked;
    const cut = field.value.indexOf("/");
    const end = Math.round(now()) + 1;
    const query = new URLSearchParams({
      part: field.value.slice(0, cut), field: field.value.slice(cut + 1), from: end - Number(range.value), to: end,
    });
    try {
      const answer = await fetch(`/api/v1/devices/${encodeURIComponent(box.dataset.device)}/series?${query}`);
      if (!answer.ok) throw new Error(String(answer.status));
      const series = await answer.json();
      if (turn === asked) render(series);
    } catch {
      if (turn === asked) message.textContent = say("device.chart.error");
    }
  }

  function render(series) {
    const points = series.buckets.filter((one) => one.mean !== null);
    message.textContent = points.length ? "" : say("device.chart.none");
    plot?.destroy();
    plot = null;
    if (!points.length) return;
    plot = new uPlot(options(series), columns(points, series.step), place);
    const last = points[points.length - 1];
    requestAnimationFrame(() => plot?.setLegend({ idx: plot.data[0].length - 1 }));
    const name = field.selectedOptions[0].textContent.trim();
    place.setAttribute("aria-label", `${name}: ${short(last.last)} ${series.unit}`);
  }

  const short = (value) => String(Number(value.toFixed(2)));

  // Steps without data break the line, but only where they are longer than the device's own rhythm.
  function columns(points, step) {
    const gaps = points.slice(1).map((one, index) => one.start - points[index].start).sort((a, b) => a - b);
    const usual = Math.max(step, gaps[Math.floor(gaps.length / 2)] ?? step);
    const data = [[], [], [], []];
    let before = null;
    for (const one of points) {
      if (before !== null && one.start - before > usual * 5 + 120_000) {
        data[0].push((before + usual) / 1000);
        for (const column of data.slice(1)) column.push(null);
      }
      before = one.start;
      data[0].push(one.start / 1000);
      data[1].push(one.mean);
      data[2].push(one.min);
      data[3].push(one.max);
    }
    return data;
  }

  function options(series) {
    const line = colour("--accent");
    const unit = series.unit ? ` ${series.unit}` : "";
    const value = (_, number) => (number === null ? "–" : short(number) + unit);
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const two = (number) => String(number).padStart(2, "0");
    const time = (seconds) => {
      const at = new Date(seconds * 1000);
      return `${two(at.getHours())}:${two(at.getMinutes())}`;
    };
    const day = (seconds) => {
      const at = new Date(seconds * 1000);
      return `${at.getMonth() + 1}-${at.getDate()} ${time(seconds)}`;
    };
    const long = series.to - series.from > 86_400_000;
    return {
      width: Math.max(200, place.clientWidth),
      height: HEIGHT,
      scales: { x: { range: [series.from / 1000, series.to / 1000] } },
      legend: { live: true },
      cursor: { y: false },
      axes: [
        { ...axis, values: (_, splits) => splits.map(long ? day : time), space: long ? 90 : 60 },
        { ...axis, size: 56 },
      ],
      series: [
        { value: (_, seconds) => (seconds === null ? "–" : day(seconds)), label: say("device.chart.time") },
        { label: say("device.chart.mean"), stroke: line, width: 1.5, points: { show: false }, value },
        { label: say("device.chart.min"), stroke: "transparent", points: { show: false }, value },
        { label: say("device.chart.max"), stroke: "transparent", points: { show: false }, value },
      ],
      bands: [{ series: [3, 2], fill: colour("--accent-soft") }],
    };
  }

  const fit = () => plot?.setSize({ width: Math.max(200, place.clientWidth), height: HEIGHT });
  field.addEventListener("change", draw);
  range.addEventListener("change", draw);
  addEventListener("resize", fit);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("visibilitychange", () => document.hidden || draw());
  setInterval(() => {
    if (!document.hidden && !box.contains(document.activeElement) && !place.matches(":hover")) draw();
  }, 10_000);
  draw();
})();
