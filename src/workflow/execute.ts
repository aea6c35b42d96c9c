/**
 * Executes a checked workflow: each node once, after its sources, independent nodes side by side.
 *
 * Of a pack's synchronous nodes as many run at a time as it has workers: more would only wait there. The first failure
 * ends the run: nothing new starts, calls under way are told by their signal, and the run settles when they have ended,
 * so nothing goes on behind the caller's back. Of nodes that are ready, those unlocked last go first: a branch is
 * finished, and its outputs dropped, before another begins. Nothing is cached between runs.
 */
import type { Clock } from "../transport/clock.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import { gatherInputs } from "./call-inputs.ts";
import { type OutputSlots, OutputStore } from "./output-store.ts";
import type { WorkflowPack } from "./pack.ts";
import type { NodeLabel } from "./problem.ts";
import { type NodeRun, nodeError, runNode } from "./run-node.ts";
import { sourcesOf, type Workflow, type WorkflowNode } from "./workflow.ts";

/** One node that ran. */
export interface NodeReport extends NodeLabel {
  /** Name of the pack. */
  readonly pack: string;
  /** From when the node started until its outputs were there, in milliseconds. */
  readonly ms: number;
  /** How often its function was called: once for each value of its longest list. */
  readonly calls: number;
}

/** Each `started` is followed by one `finished` or `failed` of the same node. */
export type NodeEvent =
  | (NodeLabel & { readonly kind: "started"; readonly pack: string })
  | (NodeReport & { readonly kind: "finished" })
  | (NodeLabel & { readonly kind: "failed"; readonly pack: string; readonly ms: number; readonly error: AirlockError });

export interface WorkflowResult {
  /** In the order in which they finished. */
  readonly nodes: readonly NodeReport[];
  /** What nodes returned for the front end, by node id. */
  readonly ui: Readonly<Record<string, unknown>>;
  /** The outputs of the output nodes, by node id. */
  readonly outputs: ReadonlyMap<string, OutputSlots>;
}

export interface ExecuteOptions {
  readonly clock: Clock;
  /** Nodes that run at a time, and calls of one async node: by default what all workers can take, and 4 at least. */
  readonly concurrency?: number;
  /** Ends the run with `cancelled`, or with the reason's own code where that is an AirlockError. */
  readonly signal?: AbortSignal;
  /** Told as it happens. If it throws, the run fails with that. */
  readonly onNode?: (event: NodeEvent) => void;
}

const concurrencyDefaultMin = 4;

/** Runs all output nodes and what they need. Throws the first failure, see {@link runNode}. */
export async function executeWorkflow(workflow: Workflow, options: ExecuteOptions): Promise<WorkflowResult> {
  const concurrency = options.concurrency ?? Math.max(concurrencyDefaultMin, workersOf(workflow));
  if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
    throw new AirlockError("bad_request", `concurrency must be a whole number from 1 up, not ${concurrency}`);
  }
  return new WorkflowRun(workflow, { ...options, concurrency }).run();
}

/** How many workers its packs may have, all together. */
function workersOf({ nodes }: Workflow): number {
  const packs = new Set([...nodes.values()].map(({ pack }) => pack));
  return [...packs].reduce((sum, { workersMax }) => sum + workersMax, 0);
}

class WorkflowRun {
  readonly #workflow: Workflow;
  readonly #options: ExecuteOptions & { readonly concurrency: number };
  readonly #store: OutputStore;
  readonly #abort = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  readonly #reports: NodeReport[] = [];
  readonly #ui = new Map<string, unknown>();
  readonly #consumers = new Map<string, WorkflowNode[]>();
  /** How many sources of a node haven't finished. */
  readonly #sourcesLeft = new Map<WorkflowNode, number>();
  /** The last one runs next. */
  readonly #ready: WorkflowNode[] = [];
  #runningCount = 0;
  /** Of those, the synchronous ones of each pack. */
  readonly #busyWorkers = new Map<WorkflowPack, number>();
  #failure: AirlockError | undefined;

  constructor(workflow: Workflow, options: ExecuteOptions & { readonly concurrency: number }) {
    this.#workflow = workflow;
    this.#options = options;
    const nodes = [...workflow.nodes.values()];
    const outputIds = nodes.filter((node) => node.definition.outputNode).map((node) => node.id);
    this.#store = new OutputStore(nodes, new Set(outputIds));
    // Backwards, so that the first node ends up on top of the stack.
    for (const node of nodes.reverse()) {
      const sources = sourcesOf(node);
      this.#sourcesLeft.set(node, sources.length);
      if (sources.length === 0) this.#ready.push(node);
      for (const source of sources) this.#consumers.set(source, [...(this.#consumers.get(source) ?? []), node]);
    }
  }

  async run(): Promise<WorkflowResult> {
    const { signal } = this.#options;
    const onAbort = () => this.#fail(abortError(signal?.reason));
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      this.#startReady();
      await this.#ended.promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
    if (this.#failure !== undefined) throw this.#failure;
    return { nodes: this.#reports, ui: Object.fromEntries(this.#ui), outputs: this.#store.kept };
  }

  #startReady(): void {
    while (this.#failure === undefined && this.#runningCount < this.#options.concurrency) {
      const index = this.#ready.findLastIndex((node) => this.#hasRoomFor(node));
      const [node] = index < 0 ? [] : this.#ready.splice(index, 1);
      if (node === undefined) break;
      this.#count(node, 1);
      // Never rejects: what goes wrong is the failure of the run.
      void this.#runOne(node);
    }
    if (this.#runningCount === 0) this.#ended.resolve();
  }

  /** Coroutines share a worker; other nodes of a pack with one worker keep to their order. */
  #hasRoomFor({ pack, definition }: WorkflowNode): boolean {
    return definition.isAsync || (this.#busyWorkers.get(pack) ?? 0) < pack.workersMax;
  }

  #count({ pack, definition }: WorkflowNode, change: 1 | -1): void {
    this.#runningCount += change;
    if (!definition.isAsync) this.#busyWorkers.set(pack, (this.#busyWorkers.get(pack) ?? 0) + change);
  }

  async #runOne(node: WorkflowNode): Promise<void> {
    const { clock, concurrency } = this.#options;
    const { id, title, classType } = node;
    const label = { id, title, classType, pack: node.pack.name };
    const startedMs = clock.nowMs();
    try {
      this.#emit({ kind: "started", ...label });
      const lists = gatherInputs(node, this.#workflow.prompt, this.#store);
      const run = await runNode(node, lists, { signal: this.#abort.signal, asyncCallsMax: concurrency });
      this.#take(node, run);
      const report = { ...label, ms: clock.nowMs() - startedMs, calls: run.calls };
      this.#reports.push(report);
      this.#emit({ kind: "finished", ...report });
    } catch (thrown) {
      const error = toAirlockError(thrown);
      this.#fail(error);
      this.#emit({ kind: "failed", ...label, ms: clock.nowMs() - startedMs, error });
    } finally {
      this.#count(node, -1);
      this.#startReady();
    }
  }

  #take(node: WorkflowNode, run: NodeRun): void {
    if (run.outputs === undefined && this.#store.isRead(node.id)) {
      const message = "it returned no outputs, but other nodes are linked to them";
      throw nodeError(node, new AirlockError("node_invalid", message));
    }
    this.#store.put(node.id, run.outputs ?? []);
    this.#store.release(node);
    if (run.ui !== undefined) this.#ui.set(node.id, run.ui);
    for (const consumer of this.#consumers.get(node.id) ?? []) {
      const left = (this.#sourcesLeft.get(consumer) ?? 0) - 1;
      this.#sourcesLeft.set(consumer, left);
      if (left === 0) this.#ready.push(consumer);
    }
  }

  /** The first failure is the run's; those that follow are mostly its echo. */
  #fail(error: AirlockError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#abort.abort(new AirlockError("cancelled", "the run ended before this node had", {}, { cause: error }));
  }

  #emit(event: NodeEvent): void {
    try {
      this.#options.onNode?.(event);
    } catch (thrown) {
      this.#fail(toAirlockError(thrown));
    }
  }
}

function abortError(reason: unknown): AirlockError {
  if (reason instanceof AirlockError) return reason;
  if (reason instanceof DOMException && reason.name === "TimeoutError") {
    return new AirlockError("deadline_exceeded", "the workflow took longer than its deadline", {}, { cause: reason });
  }
  return new AirlockError("cancelled", "the workflow was cancelled", {}, { cause: reason });
}
