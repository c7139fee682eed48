// How values of a chart's axis are told, where the axis ends, and where it has ticks.
"use strict";
window.snugnetScales = (() => {
  const number = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  };
  const two = (n) => String(n).padStart(2, "0");
  const show = (axis, value) => {
    if (axis.categories && Number.isInteger(value) && axis.categories[value] !== undefined)
      return axis.categories[value];
    if (axis.form === "percent") return `${number(100 * value)} %`;
    if (axis.form === "time") {
      const at = new Date(1000 * value);
      return `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    }
    return axis.unit ? `${number(value)} ${axis.unit}` : number(value);
  };
  const title = (axis) => (axis.unit ? `${axis.label}, ${axis.unit}` : axis.label);

  // "14:05:09", in UTC, of seconds since the epoch.
  const clock = (seconds) => new Date(1000 * seconds).toISOString().slice(11, 19);

  // --- ranges and ticks ---------------------------------------------------------------------

  const valuesOf = (chart, axis) => {
    const lists = chart.series.flatMap((s) => [s[axis], s[`${axis}_to`], ...(axis === "y" ? [s.low, s.high] : [])]);
    const guides = (chart.guides || []).filter((g) => g.axis === axis).map((g) => g.value);
    return [...lists, guides].flatMap((values) => values || []);
  };

  const rangeOf = (chart, name) => {
    const axis = chart[name];
    if (axis.categories) return [-0.6, axis.categories.length - 0.4];
    let low = Infinity, high = -Infinity;
    for (const value of valuesOf(chart, name)) {
      if (axis.is_log && value <= 0) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low === 0 && high === 0) return [0, 1];
    if (low > high) return axis.is_log ? [0.1, 10] : [0, 1];
    if (axis.is_log) {
      const room = Math.max((high / low) ** 0.06, 1.05);
      return [low / room, high * room];
    }
    const room = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    // Nothing is better than all of it: a perfect quality has no room above.
    const top = axis.form === "percent" && high <= 1 && high > 0.5 ? Math.min(high + room, 1.015) : high + room;
    const hasBars = chart.series.some((s) => s.mark === "bars");
    if (axis.low !== undefined && axis.low !== null) return [axis.low, top];
    if (name === "y" && hasBars) return [Math.min(low < 0 ? low - room : 0, 0), high > 0 ? top : 0];
    return [low - room, top];
  };

  const linearTicks = (low, high, count) => {
    const raw = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++)
      found.push(Number((i * step).toPrecision(12)));
    return found;
  };

  const logTicks = (low, high, count) => {
    if (high / low < 5) return linearTicks(low, high, count);
    const found = [];
    const decades = Math.log10(high / low);
    const factors = decades > count ? [1] : decades * 3 > count ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
      for (const f of factors) {
        const value = Number((f * 10 ** power).toPrecision(3));
        if (value >= low && value <= high) found.push(value);
      }
    return found;
  };

  return { show, title, rangeOf, linearTicks, logTicks, clock };
})();
