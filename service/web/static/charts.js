// Draws every <figure data-chart>: its data is the JSON beside it, which the table is made from too.
// uPlot keeps axes, zoom and cursor; the marks are drawn here, since a chart has many x's. What the
// axes say and where they end is chart-scales.js's.
"use strict";
(() => {
  const SHAPES = { unsearched: "square", "unsearched-int8": "diamond", winner: "star", infeasible: "ring" };
  const SIZES = { winner: 8, unsearched: 5.5, "unsearched-int8": 6 };
  for (const role of ["first", "second", "third", "fourth", "fifth", "sixth"]) SIZES[role] = 5;
  const ON_TOP = { winner: 3, unsearched: 2, "unsearched-int8": 2 };
  const MANY = 1500; // points of a chart, from which they are smaller and squares
  const FINGERPRINT = /^[0-9a-f]{16}$/;
  const NEAR = 28; // CSS pixels, within which a point is told of
  const SLANT = 40; // degrees, of categories that have no room side by side
  const ruler = document.createElement("canvas").getContext("2d");

  const { show, title, rangeOf, linearTicks, logTicks, clock } = window.snugnetScales;

  // --- one chart ----------------------------------------------------------------------------

  class Picture {
    constructor(figure, chart) {
      this.figure = figure;
      this.plot = figure.querySelector(".chart-plot");
      this.hidden = new Set();
      this.tip = document.createElement("div");
      this.tip.className = "chart-tip";
      this.tip.hidden = true;
      this.setData(chart);
      this.resizing = new ResizeObserver(() => this.fit());
      this.resizing.observe(this.plot);
    }

    setData(chart) {
      this.chart = chart;
      this.isCrowded = chart.series.reduce((sum, s) => sum + s.x.length, 0) > MANY;
      this.ranges = { x: rangeOf(chart, "x"), y: rangeOf(chart, "y") };
      this.legend();
      if (this.u) {
        this.u.setData(this.corners(), true);
        return;
      }
      this.make();
    }

    corners() {
      return [this.ranges.x, this.ranges.y];
    }

    make() {
      const { x, y } = this.chart;
      const size = this.size();
      const options = {
        ...size,
        legend: { show: false },
        padding: [14, x.categories ? 34 : x.form === "time" ? 30 : 14, 0, 0],
        cursor: {
          drag: { x: !x.categories, y: !x.categories, uni: 24, setScale: true },
          points: { show: false },
          y: !x.categories,
          x: !x.categories,
        },
        scales: {
          x: { time: false, distr: x.is_log ? 3 : 1, range: (u, low, high) => this.limits("x", low, high) },
          y: { distr: y.is_log ? 3 : 1, range: (u, low, high) => this.limits("y", low, high) },
        },
        series: [{}, { show: true, paths: () => null, points: { show: false } }],
        axes: [this.axis("x"), this.axis("y")],
        hooks: {
          draw: [() => this.draw()],
          setCursor: [() => this.point()],
        },
      };
      this.u = new uPlot(options, this.corners(), this.plot);
      this.u.over.append(this.tip);
      if (this.figure.dataset.link) this.follow(this.figure.dataset.link);
      this.u.over.addEventListener("mouseleave", () => (this.tip.hidden = true));
    }

    // A press on a point leads to its network; one that moves on is a zoom.
    follow(link) {
      let pressed = null;
      this.u.over.addEventListener("mousedown", ({ clientX, clientY }) => (pressed = [clientX, clientY]));
      this.u.over.addEventListener("mouseup", ({ clientX, clientY }) => {
        const isStill = pressed && Math.hypot(clientX - pressed[0], clientY - pressed[1]) < 4;
        const name = isStill && !this.tip.hidden && this.nearest && (this.nearest.series.names || [])[this.nearest.i];
        if (name && FINGERPRINT.test(name)) location.assign(link + name);
      });
    }

    limits(name, low, high) {
      // Before anything is drawn, and after a double click, uPlot knows no range but the data's.
      return low == null || high == null || low === high ? this.ranges[name] : [low, high];
    }

    axis(name) {
      const axis = this.chart[name];
      const places = (u, side, low, high) => {
        const length = name === "x" ? u.bbox.width : u.bbox.height;
        const count = Math.max(2, Math.round(length / devicePixelRatio / (name === "x" ? 90 : 48)));
        if (axis.categories) return axis.categories.map((_, i) => i).filter((i) => i >= low && i <= high);
        if (axis.is_log) return logTicks(low, high, count);
        const ticks = linearTicks(low, high, count);
        return axis.is_whole ? ticks.filter(Number.isInteger) : ticks;
      };
      const bare = { ...axis, unit: "" };
      return {
        stroke: () => this.colour("text"),
        grid: { stroke: () => this.colour("grid"), width: 1, show: !(name === "x" && axis.categories) },
        ticks: { stroke: () => this.colour("grid"), width: 1, size: 5 },
        font: this.font(),
        labelFont: this.font(),
        label: axis.categories ? undefined : title(axis),
        labelSize: axis.categories ? 0 : 22,
        labelGap: 0,
        size: name === "x" ? (axis.categories ? this.categoriesHeight() : 30) : 58,
        gap: 4,
        splits: places,
        filter: (u, splits) => splits,
        values: (u, splits) => splits.map((value) => this.tick(axis, bare, value)),
        rotate: name === "x" && axis.categories && this.isNarrow() ? SLANT : 0,
      };
    }

    tick(axis, bare, value) {
      const [low, high] = this.ranges.x;
      if (axis.form !== "time" || high - low > 3600) return show(bare, value);
      return clock(value);
    }

    isNarrow() {
      return this.plot.clientWidth < 110 * (this.chart.x.categories || []).length;
    }

    categoriesHeight() {
      if (!this.isNarrow()) return 30;
      ruler.font = this.font();
      const longest = Math.max(...this.chart.x.categories.map((words) => ruler.measureText(words).width));
      return Math.ceil(longest * Math.sin((SLANT * Math.PI) / 180)) + 24;
    }

    font() {
      return `12px ${getComputedStyle(this.figure).fontFamily}`;
    }

    colour(role) {
      const style = getComputedStyle(this.figure);
      return (style.getPropertyValue(`--chart-${role}`) || style.getPropertyValue("--chart-plain")).trim();
    }

    size() {
      const width = Math.max(240, Math.floor(this.plot.clientWidth));
      const wanted = Number(this.figure.dataset.height) || 360;
      return { width, height: Math.round(Math.min(wanted, Math.max(240, width * 0.72))) };
    }

    fit() {
      const size = this.size();
      if (size.width !== this.u.width || size.height !== this.u.height) this.u.setSize(size);
    }

    redraw() {
      this.u.redraw(false, true);
    }

    // --- drawing: all places in canvas pixels -------------------------------------------------

    draw() {
      const { ctx, bbox } = this.u;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      this.spots = [];
      for (const guide of this.chart.guides || []) this.drawGuide(ctx, guide);
      const shown = this.chart.series.map((s, i) => [s, i]).filter(([, i]) => !this.hidden.has(i));
      shown.reverse(); // what comes first is on top
      shown.sort(([a], [b]) => (ON_TOP[a.role] || 0) - (ON_TOP[b.role] || 0));
      for (const [series, place] of shown) this.drawSeries(ctx, series, place);
      this.named = [];
      const inOrder = [...(this.chart.guides || [])].sort((a, b) => a.value - b.value);
      for (const guide of inOrder) this.nameGuide(ctx, guide);
      ctx.restore();
    }

    at(x, y) {
      return [this.u.valToPos(x, "x", true), this.u.valToPos(y, "y", true)];
    }

    drawSeries(ctx, series, place) {
      const spots = series.x.map((x, i) => this.at(x, series.y[i]));
      ctx.strokeStyle = ctx.fillStyle = this.colour(series.role);
      ctx.lineWidth = 1.75 * devicePixelRatio;
      ctx.globalAlpha = 1;
      if (series.mark === "points") this.drawPoints(ctx, series, spots);
      else if (series.mark === "bars") this.drawBars(ctx, series, spots);
      else if (series.mark === "links") this.drawLinks(ctx, series, spots);
      else this.drawLine(ctx, series, spots);
      this.spots.push({ series, place, spots });
    }

    drawPoints(ctx, series, spots) {
      const ratio = devicePixelRatio;
      const isMany = this.isCrowded && !SIZES[series.role];
      const size = (SIZES[series.role] || (isMany ? 1.75 : 3.25)) * ratio;
      const shape = SHAPES[series.role] || "dot";
      if ((series.low || []).length) this.drawIntervals(ctx, series, spots);
      ctx.beginPath();
      for (const [x, y] of spots) {
        if (isMany) ctx.rect(x - size, y - size, 2 * size, 2 * size);
        else outline(ctx, shape, x, y, size);
      }
      ctx.globalAlpha = SIZES[series.role] ? 1 : isMany ? 0.45 : 0.7;
      if (shape === "ring" && !isMany) {
        ctx.lineWidth = 1.25 * ratio;
        ctx.stroke();
      } else ctx.fill();
      if (SIZES[series.role]) {
        ctx.strokeStyle = this.colour("ground");
        ctx.lineWidth = 1.25 * ratio;
        ctx.stroke();
      }
      ctx.globalAlpha = 1;
    }

    drawIntervals(ctx, series, spots) {
      ctx.globalAlpha = 0.4;
      ctx.lineWidth = 1.25 * devicePixelRatio;
      ctx.beginPath();
      spots.forEach(([x], i) => {
        ctx.moveTo(x, this.at(series.x[i], series.low[i])[1]);
        ctx.lineTo(x, this.at(series.x[i], series.high[i])[1]);
      });
      ctx.stroke();
      ctx.globalAlpha = 1;
    }

    drawLine(ctx, series, spots) {
      ctx.beginPath();
      spots.forEach(([x, y], i) => {
        if (i === 0) ctx.moveTo(x, y);
        else {
          if (series.mark === "step") ctx.lineTo(x, spots[i - 1][1]);
          ctx.lineTo(x, y);
        }
      });
      ctx.globalAlpha = series.mark === "step" && this.chart.x.is_log ? (series.role === "search" ? 1 : 0.75) : 1;
      ctx.stroke();
      ctx.globalAlpha = 1;
      if (series.mark === "step" || spots.length > 30) return;
      ctx.beginPath();
      for (const [x, y] of spots) outline(ctx, "dot", x, y, 2.75 * devicePixelRatio);
      ctx.fill();
    }

    drawBars(ctx, series, spots) {
      const width = Math.abs(this.at(0.62, series.y[0])[0] - this.at(0, series.y[0])[0]);
      spots.forEach(([x, y], i) => {
        const [, base] = this.at(series.x[i], (series.low || [])[i] || 0);
        const height = Math.max(Math.abs(base - y), 2 * devicePixelRatio);
        ctx.fillRect(x - width / 2, Math.min(base, y), width, height);
      });
    }

    drawLinks(ctx, series, spots) {
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.beginPath();
      spots.forEach(([x, y], i) => {
        ctx.moveTo(x, y);
        ctx.lineTo(...this.at(series.x_to[i], series.y_to[i]));
      });
      ctx.stroke();
      ctx.beginPath();
      for (const [x, y] of spots) outline(ctx, "ring", x, y, 4 * devicePixelRatio);
      ctx.fillStyle = this.colour("ground");
      ctx.fill();
      ctx.stroke();
    }

    drawGuide(ctx, guide) {
      const { bbox } = this.u;
      const ratio = devicePixelRatio;
      const role = guide.role && guide.role !== "plain" ? guide.role : "guide";
      ctx.strokeStyle = ctx.fillStyle = this.colour(role);
      ctx.lineWidth = 1.25 * ratio;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      const place = this.u.valToPos(guide.value, guide.axis, true);
      if (guide.axis === "x") {
        ctx.moveTo(place, bbox.top);
        ctx.lineTo(place, bbox.top + bbox.height);
      } else {
        ctx.moveTo(bbox.left, place);
        ctx.lineTo(bbox.left + bbox.width, place);
      }
      ctx.stroke();
      ctx.setLineDash([]);
    }

    nameGuide(ctx, guide) {
      const { bbox } = this.u;
      const ratio = devicePixelRatio;
      const role = guide.role && guide.role !== "plain" ? guide.role : "guide";
      const place = this.u.valToPos(guide.value, guide.axis, true);
      ctx.fillStyle = this.colour(role);
      ctx.strokeStyle = this.colour("ground");
      ctx.lineWidth = 4 * ratio;
      ctx.lineJoin = "round";
      ctx.font = `${11 * ratio}px ${getComputedStyle(this.figure).fontFamily}`;
      ctx.textBaseline = "bottom";
      if (guide.axis === "x") {
        const { side, up } = this.freePlace(place, ctx.measureText(guide.label).width);
        ctx.save();
        ctx.translate(place + 3 * side * ratio, bbox.top + bbox.height - up);
        ctx.rotate(-Math.PI / 2);
        ctx.textAlign = "left";
        ctx.textBaseline = side < 0 ? "bottom" : "top";
        ctx.strokeText(guide.label, 0, 0);
        ctx.fillText(guide.label, 0, 0);
        ctx.restore();
      } else {
        ctx.textAlign = "right";
        const end = bbox.left + bbox.width - 4 * ratio;
        const isAtTop = place - bbox.top < 16 * ratio; // there is no room above it
        ctx.textBaseline = isAtTop ? "top" : "bottom";
        const side = place + (isAtTop ? 3 : -3) * ratio;
        ctx.strokeText(guide.label, end, side);
        ctx.fillText(guide.label, end, side);
      }
    }

    // The name of an upright line stands left of it, or right of it where another line is close by,
    // or else above the names that are there.
    freePlace(place, length) {
      const ratio = devicePixelRatio;
      const lines = (this.chart.guides || [])
        .filter((guide) => guide.axis === "x")
        .map((guide) => this.u.valToPos(guide.value, "x", true) - place);
      const isFree = (side) => !lines.some((away) => away * side > 0 && Math.abs(away) < 16 * ratio);
      const side = isFree(-1) || !isFree(1) ? -1 : 1;
      const middle = place + 9 * side * ratio;
      const beside = this.named.filter((other) => Math.abs(other.middle - middle) < 14 * ratio);
      const up = Math.max(6 * ratio, ...beside.map((other) => other.end + 10 * ratio));
      this.named.push({ middle, end: up + length });
      return { side, up };
    }

    // --- what is under the cursor -------------------------------------------------------------

    point() {
      const { left, top } = this.u.cursor;
      if (left == null || left < 0 || !this.spots) {
        this.tip.hidden = true;
        return;
      }
      const ratio = devicePixelRatio;
      const [x, y] = [left * ratio + this.u.bbox.left, top * ratio + this.u.bbox.top];
      const isBars = Boolean(this.chart.x.categories);
      let nearest = null, least = (NEAR * ratio) ** 2;
      for (const { series, spots } of this.spots)
        for (let i = 0; i < spots.length; i++) {
          const across = (spots[i][0] - x) ** 2;
          const distance = isBars ? across : across + (spots[i][1] - y) ** 2;
          if (distance < least || (distance === least && ON_TOP[series.role])) {
            least = distance;
            nearest = { series, i, spot: spots[i] };
          }
        }
      this.tip.hidden = nearest === null;
      this.nearest = nearest;
      if (nearest !== null) this.tell(nearest);
    }

    tell({ series, i, spot }) {
      const { x, y } = this.chart;
      const lines = [series.label];
      if ((series.names || [])[i]) lines[0] += `: ${series.names[i]}`;
      if (series.mark === "links") {
        lines.push(`predicted ${show(x, series.x[i])}, measured ${show(x, series.x_to[i])}`);
      } else {
        lines.push(x.categories ? show(x, series.x[i]) : `${x.label}: ${show(x, series.x[i])}`);
      }
      lines.push(`${y.label}: ${show(y, series.y[i])}`);
      if ((series.high || []).length)
        lines.push(`between ${show(y, series.low[i])} and ${show(y, series.high[i])}`);
      this.tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
      const ratio = devicePixelRatio;
      const [left, top] = [(spot[0] - this.u.bbox.left) / ratio, (spot[1] - this.u.bbox.top) / ratio];
      const isRight = left > this.u.over.clientWidth / 2;
      this.tip.style.left = isRight ? "" : `${left + 12}px`;
      this.tip.style.right = isRight ? `${this.u.over.clientWidth - left + 12}px` : "";
      this.tip.style.top = `${Math.max(0, top - 12)}px`;
    }

    // --- the legend: each entry hides and shows its series -------------------------------------

    runs() {
      const found = [];
      this.chart.series.forEach((series, place) => {
        const last = this.chart.series[place - 1];
        if (last && last.role === series.role && last.mark !== series.mark) found.at(-1).push(place);
        else found.push([place]);
      });
      return found;
    }

    legend() {
      const list = this.figure.querySelector(".chart-legend");
      if (!list) return;
      list.replaceChildren(
        ...this.runs().map((places) => {
          const series = this.chart.series[places[0]];
          const button = document.createElement("button");
          button.type = "button";
          button.setAttribute("aria-pressed", String(!this.hidden.has(places[0])));
          const swatch = document.createElement("span");
          swatch.className = `swatch swatch-${series.mark} role-${series.role || "plain"}`;
          button.append(swatch, series.label);
          button.addEventListener("click", () => {
            const isShown = this.hidden.has(places[0]);
            for (const place of places) this.hidden[isShown ? "delete" : "add"](place);
            button.setAttribute("aria-pressed", String(isShown));
            this.redraw();
          });
          const item = document.createElement("li");
          item.append(button);
          return item;
        }),
      );
    }
  }

  const outline = (ctx, shape, x, y, size) => {
    if (shape === "square") ctx.rect(x - size, y - size, 2 * size, 2 * size);
    else if (shape === "diamond") {
      ctx.moveTo(x, y - 1.3 * size);
      ctx.lineTo(x + 1.3 * size, y);
      ctx.lineTo(x, y + 1.3 * size);
      ctx.lineTo(x - 1.3 * size, y);
      ctx.closePath();
    } else if (shape === "star") {
      for (let i = 0; i < 10; i++) {
        const radius = i % 2 ? 0.45 * size : size;
        const angle = (Math.PI * i) / 5 - Math.PI / 2;
        ctx[i ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle));
      }
      ctx.closePath();
    } else {
      ctx.moveTo(x + size, y);
      ctx.arc(x, y, size, 0, 2 * Math.PI);
    }
  };

  // --- all charts of a page -------------------------------------------------------------------

  const pictures = new Map();

  const read = (figure) => JSON.parse(figure.querySelector("script.chart-data").textContent);

  const mount = (root = document) => {
    for (const figure of root.querySelectorAll("figure[data-chart]"))
      if (!pictures.has(figure)) pictures.set(figure, new Picture(figure, read(figure)));
    for (const figure of pictures.keys()) if (!figure.isConnected) pictures.delete(figure);
  };

  const update = (figure, chart) => {
    const picture = pictures.get(figure);
    if (picture) picture.setData(chart);
  };

  const redraw = () => pictures.forEach((picture) => picture.redraw());

  window.snugnetCharts = { mount, update, redraw };
  const begin = () => {
    mount();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme", "class"] });
    document.addEventListener("htmx:afterSettle", () => mount());
    document.addEventListener("htmx:after:settle", () => mount());
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
