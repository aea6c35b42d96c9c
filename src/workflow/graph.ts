/**
 * The order in which nodes can run, and the cycles that leave none.
 *
 * It sees ids and links only. The walk keeps its own stack: a workflow may be deeper than a call stack.
 */

export interface GraphWalk {
  /** All ids that were reached, each after its sources: what belongs to the first root comes first. */
  readonly order: readonly string[];
  /** Each as a path in the direction of the data, starting and ending with one id. */
  readonly cycles: readonly (readonly string[])[];
}

interface Step {
  readonly id: string;
  readonly sources: readonly string[];
  next: number;
}

/** Walks from the roots against the direction of the data. */
export function walkGraph(roots: Iterable<string>, sourcesOf: (id: string) => readonly string[]): GraphWalk {
  const order: string[] = [];
  const cycles: string[][] = [];
  const finished = new Set<string>();
  for (const root of roots) {
    if (finished.has(root)) continue;
    const path: Step[] = [{ id: root, sources: sourcesOf(root), next: 0 }];
    const onPath = new Set([root]);
    for (let step = path.at(-1); step !== undefined; step = path.at(-1)) {
      const source = step.sources[step.next];
      step.next += 1;
      if (source === undefined) {
        path.pop();
        onPath.delete(step.id);
        finished.add(step.id);
        order.push(step.id);
      } else if (onPath.has(source)) {
        cycles.push(cycleOf(path, source));
      } else if (!finished.has(source)) {
        path.push({ id: source, sources: sourcesOf(source), next: 0 });
        onPath.add(source);
      }
    }
  }
  return { order, cycles };
}

function cycleOf(path: readonly Step[], source: string): string[] {
  const ids = path.map((step) => step.id);
  return [...ids.slice(ids.indexOf(source)), source].reverse();
}
