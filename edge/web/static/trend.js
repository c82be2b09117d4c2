// Series of (time, value) that never grow beyond a limit, and the line through them. Pure: no document.

export const POINTS_MAX = 720;

// Keeps a whole day in POINTS_MAX points: when full, every second point goes and the spacing doubles.
export class Series {
  constructor(pointsMax = POINTS_MAX) {
    this.pointsMax = pointsMax;
    this.points = [];
    this.spacing = 0;
  }

  // time in seconds; null is a hole in the line. Points closer together than the spacing are left out.
  add(time, value) {
    const last = this.points.at(-1);
    if (last && time - last.time < this.spacing) return;
    this.points.push({ time, value });
    if (this.points.length < this.pointsMax) return;
    const length = time - this.points[0].time;
    this.points = this.points.filter((_, i) => i % 2 === 0);
    this.spacing = length / this.points.length;
  }

  // [low, high] of the values with some air, null if there is none.
  range() {
    const values = this.points.map((p) => p.value).filter((v) => v !== null);
    if (values.length === 0) return null;
    const low = Math.min(...values);
    const high = Math.max(...values);
    const air = (high - low) * 0.08 || Math.abs(high) * 0.02 || 1;
    return [low - air, high + air];
  }

  // The "d" of an SVG path in a box of width x height; holes start a new stroke.
  path(width, height, [low, high]) {
    if (this.points.length === 0) return "";
    const start = this.points[0].time;
    const length = this.points.at(-1).time - start || 1;
    let pen = "M";
    let d = "";
    for (const { time, value } of this.points) {
      if (value === null) {
        pen = "M";
        continue;
      }
      const x = ((time - start) / length) * width;
      const y = height - ((value - low) / (high - low)) * height;
      d += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    }
    return d;
  }
}
