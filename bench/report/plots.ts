/** Results as pictures: SVG, drawn by Vega without a browser. */
import * as vega from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { isOwn, type Measurement, type Run, type ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { estimate } from "../statistics.ts";
import { unitText } from "./format.ts";

/** Hues that the colour-blind can tell apart (Okabe and Ito's), and what is left once those are used up (Tol's). */
const hues = [
  "#0072b2",
  "#009e73",
  "#56b4e9",
  "#cc79a7",
  "#8c6d31",
  "#7f7f7f",
  "#332288",
  "#117733",
  "#aa4499",
  "#bbbb33",
  "#882255",
  "#44aa99",
  "#661100",
  "#6699cc",
  "#000000",
  "#ddcc77",
  "#999933",
  "#cc6677",
];
/** Airlock's own stand out; what goes over the relay is paler. */
const ownHue = "#d55e00";
const relayHue = "#e69f00";

/** A colour for each contender: the same in every picture of a run. */
export type Palette = ReadonlyMap<string, string>;

export function paletteOf({ results }: Run): Palette {
  const names = [...new Set(results.flatMap(({ measurements }) => measurements.map(({ contender }) => contender)))];
  const own = names.filter(isOwn);
  const others = names.filter((name) => !isOwn(name));
  return new Map([
    ...own.map((name) => [name, name.endsWith("relay") ? relayHue : ownHue] as const),
    ...others.map((name, index) => [name, hues[index % hues.length] ?? ownHue] as const),
  ]);
}

export interface Picture {
  readonly title: string;
  readonly svg: string;
}

/** The pictures of a scenario; none where nothing was measured. */
export async function picturesOf(scenario: Scenario, result: ScenarioResult, palette: Palette): Promise<Picture[]> {
  if (scenario.plot === "series")
    return [...(await seriesPictures(result, palette)), ...(await dotPictures(scenario, result, palette))];
  return scenario.plot === "lines" ? await linePictures(result, palette) : await dotPictures(scenario, result, palette);
}

/** Renders a picture. */
export async function draw(spec: TopLevelSpec): Promise<string> {
  const config = { background: "white", font: "system-ui, sans-serif", axis: { labelFontSize: 11, titleFontSize: 12 } };
  return await new vega.View(vega.parse(compile(spec, { config }).spec), { renderer: "none" }).toSVG();
}

/** A measurement as a row of data. */
export function rowsFor(measurements: readonly Measurement[]) {
  return measurements.map(({ samples, ...each }) => {
    const { value, low, high } = estimate(samples);
    return { ...each, value, low: low ?? value, high: high ?? value, x: amountOf(each.of) };
  });
}

export type DataRow = ReturnType<typeof rowsFor>[number];

function colourOf(rows: readonly { contender: string }[], palette: Palette) {
  const domain = [...palette.keys()].filter((name) => rows.some(({ contender }) => contender === name));
  return {
    field: "contender",
    type: "nominal" as const,
    title: null,
    scale: { domain, range: domain.map((name) => palette.get(name) ?? "black") },
    legend: { orient: "bottom" as const, columns: 4, labelLimit: 220, symbolOpacity: 1 },
  };
}

/** A dot for each median, with its bounds: one panel for each thing that was done. */
async function dotPictures(scenario: Scenario, result: ScenarioResult, palette: Palette): Promise<Picture[]> {
  const shown = result.measurements.filter((each) => scenario.isShown?.(each) ?? true);
  return await Promise.all(
    [...groupBy(shown, ({ statistic, unit, condition }) => `${statistic} (${unitText(unit)}), ${condition}`)].map(
      async ([title, group]) => ({ title, svg: await draw(dots(rowsFor(group), title, palette)) }),
    ),
  );
}

export function dots(rows: readonly DataRow[], title: string, palette: Palette): TopLevelSpec {
  const y = { field: "contender", type: "nominal" as const, title: null, sort: null, axis: { labelLimit: 240 } };
  const x = (field: string) => ({ field, ...logarithmic(rows, title) });
  const panel = {
    width: 420,
    height: { step: 18 },
    layer: [
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { x: x("low"), x2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 60, opacity: 1 }, encoding: { x: x("value") } },
    ],
    encoding: { y, color: { ...colourOf(rows, palette), legend: null } },
  };
  const data = { values: [...rows] };
  if (new Set(rows.map(({ of }) => of)).size === 1) return { data, ...panel } as TopLevelSpec;
  const header = { labelAngle: 0, labelAlign: "left", labelLimit: 200 };
  const row = { field: "of", type: "nominal", title: null, sort: null, header };
  return { data, facet: { row }, spec: panel } as TopLevelSpec;
}

/** A line over sizes, depths or numbers of hosts: one picture for each statistic. */
async function linePictures(result: ScenarioResult, palette: Palette): Promise<Picture[]> {
  const groups = groupBy(
    result.measurements,
    (each) => `${each.statistic}${kindOf(each.of)} (${unitText(each.unit)}), ${each.condition}`,
  );
  return await Promise.all(
    [...groups].map(async ([title, group]) => ({ title, svg: await draw(lines(rowsFor(group), title, palette)) })),
  );
}

export function lines(rows: readonly DataRow[], title: string, palette: Palette): TopLevelSpec {
  const isSize = rows.some(({ of }) => /[KMG]iB/.test(of));
  const x = {
    field: "x",
    type: "quantitative" as const,
    title: isSize ? "size" : "how many",
    scale: { type: "log" as const, base: 2 },
    axis: {
      values: [...new Set(rows.map((row) => row.x))].filter((_, at) => !isSize || at % 2 === 0),
      labelExpr: isSize ? sizeLabel : "format(datum.value, 'd')",
    },
  };
  return {
    width: 560,
    height: 320,
    data: { values: [...rows] },
    layer: [
      {
        mark: { type: "area", opacity: 0.15 },
        encoding: { x, y: { field: "low", ...logarithmic(rows, title) }, y2: { field: "high" } },
      },
      {
        mark: { type: "line", point: { size: 30 } },
        encoding: { x, y: { field: "value", ...logarithmic(rows, title) } },
      },
    ],
    encoding: { color: colourOf(rows, palette) },
  } as TopLevelSpec;
}

/** Memory over time: one picture for all contenders. */
async function seriesPictures(result: ScenarioResult, palette: Palette): Promise<Picture[]> {
  const groups = groupBy(result.series, ({ of, unit }) => `${of}: ${unitText(unit)} over seconds`);
  return await Promise.all(
    [...groups].map(async ([title, group]) => {
      const rows = group.flatMap(({ contender, points }) =>
        points.map(([seconds, value, what]) => ({ contender, seconds, value, what })),
      );
      const spec = {
        width: 560,
        height: 320,
        data: { values: rows },
        mark: { type: "line", interpolate: "step-after" },
        encoding: {
          x: { field: "seconds", type: "quantitative", title: "seconds", scale: { type: "symlog" } },
          y: { field: "value", type: "quantitative", title },
          color: colourOf(rows, palette),
        },
      } as TopLevelSpec;
      return { title, svg: await draw(spec) };
    }),
  );
}

function logarithmic(rows: readonly DataRow[], title: string) {
  const isPositive = rows.every(({ low }) => low > 0);
  return {
    type: "quantitative" as const,
    title,
    scale: isPositive ? { type: "log" as const, nice: true } : { zero: true },
  };
}

const sizeLabel =
  "datum.value >= 1073741824 ? datum.value / 1073741824 + ' GiB' : datum.value >= 1048576 ? datum.value / 1048576 + ' MiB' : datum.value / 1024 + ' KiB'";

const factors: Readonly<Record<string, number>> = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

/** The amount that a name begins with: `16 MiB` are so many bytes, `8 tasks` are 8. */
export function amountOf(of: string): number {
  const [, number, unit] = /^([\d.,]+) ?(\w+)?/.exec(of) ?? [];
  return Number((number ?? "1").replaceAll(",", "")) * (factors[unit ?? ""] ?? 1);
}

/** What is counted, where it isn't bytes: `, tasks` of `8 tasks`. */
function kindOf(of: string): string {
  const [, kind] = /^\d+ (task|thread|host|in flight)/.exec(of) ?? [];
  return kind === undefined ? "" : `, ${kind === "in flight" ? kind : `${kind}s`}`;
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
